"""Closes iterators that own background tasks."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Self

__all__ = ["Closing", "ended"]


class Closing:
    """Base of everything that ``async with`` closes by its ``aclose()``."""

    async def aclose(self) -> None:
        """Cancel the tasks and free what they hold; idempotent."""
        raise NotImplementedError

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


async def ended(tasks: Sequence[asyncio.Task[Any]]) -> None:
    """Wait until cancelled tasks have ended."""
    if tasks:
        # Shielded: a cancellation of the one who waits must not leave them behind.
        await asyncio.shield(asyncio.gather(*tasks, return_exceptions=True))
