"""The pytest plugin: the fixture `konko_emulator`.

Loaded for everyone who has `konko_async` installed, so it imports nothing of weight by itself.
"""

from importlib.util import find_spec
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from konko_async.testing import Emulator

_MISSING = "the fixture konko_emulator needs pytest-asyncio: pip install pytest-asyncio"

if find_spec("pytest_asyncio") is not None:
    import pytest_asyncio

    @pytest_asyncio.fixture
    async def konko_emulator() -> "AsyncIterator[Emulator]":
        """A running `konko_async.testing.Emulator`, new for each test and closed after it."""
        from konko_async.testing import Emulator  # noqa: PLC0415 - aiohttp, only when it is used

        async with Emulator() as emulator:
            yield emulator

else:

    @pytest.fixture
    def konko_emulator() -> None:
        """Tells what is missing."""
        pytest.fail(_MISSING, pytrace=False)
