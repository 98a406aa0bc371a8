"""How iterators that run tasks of their own are left."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["Closing", "ended"]


class Closing:
    """``async with`` for what has an ``aclose()``."""

    async def aclose(self) -> None:
        """Let go of everything; idempotent."""
        raise NotImplementedError

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()


async def ended(tasks: Sequence[asyncio.Task[Any]]) -> None:
    """Wait until cancelled tasks have ended; our own cancellation must not leave them behind."""
    if tasks:
        await asyncio.shield(asyncio.gather(*tasks, return_exceptions=True))
