"""Checks a model's id and kind against the server's model list, as Konko's guide advises."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Literal

from konko_async.errors import ConfigurationError
from konko_async.wire import Model

__all__ = ["ModelIndex"]

Kind = Literal["chat", "text"]


class ModelIndex:
    """The model list, fetched once and kept.

    Args:
        fetch: gets the list.
    """

    def __init__(self, fetch: Callable[[], Awaitable[list[Model]]]) -> None:
        self._fetch = fetch
        self._models: dict[str, Model] | None = None
        self._lock: tuple[asyncio.AbstractEventLoop, asyncio.Lock] | None = None

    async def models(self) -> dict[str, Model]:
        """Return the models by id; however many calls ask at once, one request is made.

        Raises:
            APIError: the list could not be fetched; the next call tries again.
        """
        if self._models is None:
            async with self._own_lock():
                if self._models is None:
                    self._models = {model.id: model for model in await self._fetch()}
        return self._models

    def _own_lock(self) -> asyncio.Lock:
        loop = asyncio.get_running_loop()
        # A lock is bound to the loop on which it was first waited for.
        if self._lock is None or self._lock[0] is not loop:
            self._lock = (loop, asyncio.Lock())
        return self._lock[1]

    async def check(self, model: str, kind: Kind) -> None:
        """Check that ``model`` is there and does not say that it is of another kind.

        Raises:
            ConfigurationError: with near misses for an unknown id, and fitting models for a known
                one of the wrong kind.
            APIError: the list could not be fetched.
        """
        models = await self.models()
        flag = f"is_{kind}"
        # Servers other than Konko do not say what kind a model is (None): such a model fits.
        fitting = [name for name, known in models.items() if getattr(known, flag) is not False]
        known = models.get(model)
        if known is None:
            import difflib  # noqa: PLC0415 - only who misspells a model loads it

            # Looser than difflib's default of 0.6: a bad suggestion costs nothing.
            near = difflib.get_close_matches(model, fitting, n=3, cutoff=0.5) or fitting[:3]
            raise ConfigurationError(
                f"there is no model {model!r}; did you mean {' or '.join(map(repr, near))}?"
                if near
                else f"there is no model {model!r}, and the server lists no other"
            )
        if getattr(known, flag) is False:
            other = "completions" if kind == "chat" else "chat.completions"
            raise ConfigurationError(
                f"model {model!r} is no {kind} model ({flag} is false): use client.{other}, or a "
                f"model such as {', '.join(map(repr, fitting[:3])) or '(none listed)'}"
            )
