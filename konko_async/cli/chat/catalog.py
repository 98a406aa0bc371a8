"""The server's model list, for completion and prices."""

from __future__ import annotations

import asyncio
import contextlib
import difflib
from collections.abc import AsyncIterator

from konko_async import AsyncKonko, KonkoError, Model
from konko_async.batch import Price, parse_price

__all__ = ["Catalog", "catalog", "nearest"]

_PATIENCE = 10.0  # seconds; by then the first question has been asked without the list


class Catalog:
    """The models that a server lists; empty until they are known.

    Args:
        client: asks for them.
    """

    def __init__(self, client: AsyncKonko) -> None:
        # Without retries: the list is a convenience, and many servers have none.
        self._client = client.with_options(timeout=_PATIENCE, retry=None)
        self._lock = asyncio.Lock()
        self.models: list[Model] = []

    async def load(self) -> None:
        """Ask for the list; a server without one has no models to name."""
        # /model may ask while the list is on its way: it then waits for that one.
        async with self._lock:
            if self.models:
                return
            with contextlib.suppress(KonkoError):
                self.models = (await self._client.models.list()).data

    @property
    def chat_models(self) -> list[str]:
        """The ids of the models that may be used here."""
        return [model.id for model in self.models if model.is_chat is not False]

    def price(self, model: str) -> Price | None:
        """Return what a model costs; None if the list does not say."""
        for listed in self.models:
            if listed.id == model:
                return parse_price(listed.public_endpoint_pricing)
        return None


@contextlib.asynccontextmanager
async def catalog(client: AsyncKonko, *, load: bool = True) -> AsyncIterator[Catalog]:
    """Give a catalog that is loaded in the background, as long as the block lasts."""
    found = Catalog(client)
    loading = asyncio.ensure_future(found.load()) if load else None
    try:
        yield found
    finally:
        if loading is not None:
            # Awaited below, so that it is not left to the client that is closed next.
            loading.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await loading


def nearest(name: str, names: list[str]) -> str | None:
    """Return the name that was probably meant, if there is one."""
    # difflib finds misspelt ids; the fallback finds a short part of a long id, such as `13b`.
    found = difflib.get_close_matches(name, names, 1)
    return found[0] if found else next((other for other in names if name in other), None)
