"""The pytest plugin: the fixtures `konko_emulator` and `konko_aioresponses`.

Loaded for everyone who has `konko_async` installed, so it imports nothing of weight by itself.
"""

import inspect
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from konko_async.testing import Emulator

_MISSING = (
    "the fixture konko_emulator needs pytest-asyncio in asynchronous tests: "
    "pip install pytest-asyncio"
)

if find_spec("pytest_asyncio") is not None:
    import pytest_asyncio

    @pytest_asyncio.fixture
    async def _konko_emulator_on_the_loop() -> "AsyncIterator[Emulator]":
        from konko_async.testing import Emulator  # noqa: PLC0415 - aiohttp, only when it is used

        async with Emulator() as emulator:
            yield emulator

else:

    @pytest.fixture
    def _konko_emulator_on_the_loop() -> None:
        # "fixture not found" would not say what to install.
        pytest.fail(_MISSING, pytrace=False)


@pytest.fixture
def _konko_emulator_in_a_thread() -> "Iterator[Any]":
    from konko_async.testing import EmulatorInThread  # noqa: PLC0415 - aiohttp, only when it is used

    with EmulatorInThread() as emulator:
        yield emulator


@pytest.fixture
def konko_emulator(request: pytest.FixtureRequest) -> Any:
    """A running `konko_async.testing.Emulator`, new for each test and closed after it.

    In synchronous tests it runs in a thread of its own, and its `wait_until` is no coroutine.
    """
    is_async = inspect.iscoroutinefunction(request.function)
    marked = request.node.get_closest_marker("asyncio") is not None
    where = "on_the_loop" if is_async or marked else "in_a_thread"
    return request.getfixturevalue(f"_konko_emulator_{where}")


@pytest.fixture
def konko_aioresponses() -> "Iterator[Any]":
    """An `aioresponses.aioresponses` that works with every release of aiohttp.

    aiohttp 3.14 requires an argument of its responses that aioresponses 0.7 does not give.
    """
    from konko_async.testing._doubles import aioresponses_for_today  # noqa: PLC0415 - aioresponses is optional

    with aioresponses_for_today() as mocked:
        yield mocked
