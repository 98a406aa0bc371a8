"""What the resources share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from konko_async._engine import Engine

__all__ = ["EngineGetter", "Resource"]

EngineGetter = Callable[[], Engine]


class Resource:
    """A part of a client; finds the engine anew for each call.

    Args:
        engine: returns the engine; for the module-level style, that of the running loop.
    """

    __slots__ = ("_engine",)

    def __init__(self, engine: EngineGetter) -> None:
        self._engine = engine

    @staticmethod
    async def _verify(engine: Engine, model: str, kind: Literal["chat", "text"]) -> None:
        if engine.policies.verify_models:
            await engine.index.check(model, kind)
