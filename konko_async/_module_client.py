"""The guide's module-level style: ``await konko_async.models.list()``.

One client per running event loop, made from the environment on first use. An async generator that
the loop knows holds it, so that ``asyncio.run()`` closes it by ``loop.shutdown_asyncgens()``.
"""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from konko_async._client import AsyncKonko
from konko_async.resources import Batches, Chat, Completions, Embeddings, Files, Models

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from konko_async._engine.engine import Engine

__all__ = [
    "LoopClients",
    "aclose",
    "batches",
    "chat",
    "completions",
    "embeddings",
    "files",
    "models",
]


class LoopClients:
    """A client per running event loop, made on first use, and closed without a warning.

    A loop's client is closed when ``asyncio.run()`` ends, or when this object is dropped.

    Args:
        make: makes a client.
    """

    def __init__(self, make: Callable[[], AsyncKonko]) -> None:
        self._make = make
        self._keepers: WeakKeyDictionary[
            asyncio.AbstractEventLoop, AsyncGenerator[AsyncKonko, None]
        ] = WeakKeyDictionary()
        self._clients: WeakKeyDictionary[asyncio.AbstractEventLoop, AsyncKonko]
        self._clients = WeakKeyDictionary()

    def get(self) -> AsyncKonko:
        """Return the running loop's client.

        Raises:
            ConfigurationError: it cannot be made, for example without a key.
        """
        loop = asyncio.get_running_loop()
        client = self._clients.get(loop)
        if client is None or client.closed:
            for other in [other for other in self._clients if other.is_closed()]:
                self.forget(other)  # a loop that was closed without shutdown_asyncgens()
            client = self._make()
            keeper = _keep(client, weakref.ref(self))
            # The first step runs to the yield without suspending, and makes the loop know the
            # generator: shutdown_asyncgens() closes it, and so does the collector.
            with contextlib.suppress(StopIteration):
                keeper.__anext__().send(None)
            self._keepers[loop] = keeper
            self._clients[loop] = client
        return client

    def forget(self, loop: asyncio.AbstractEventLoop) -> None:
        """Let the client of a loop go."""
        self._clients.pop(loop, None)
        self._keepers.pop(loop, None)

    async def aclose(self) -> None:
        """Close the running loop's client, if there is one; the next call makes another."""
        keeper = self._keepers.get(asyncio.get_running_loop())
        if keeper is not None:
            await keeper.aclose()


async def _keep(
    client: AsyncKonko, owner: weakref.ref[LoopClients]
) -> AsyncGenerator[AsyncKonko, None]:
    loop = asyncio.get_running_loop()
    try:
        yield client
    finally:
        # A weak reference: one that is dropped goes at once, not when cycles are collected.
        clients = owner()
        if clients is not None:
            clients.forget(loop)
        await client.close()


_default = LoopClients(AsyncKonko)


def _engine() -> Engine:
    return _default.get()._get_engine()  # noqa: SLF001 - the module-level face of the same client


async def aclose() -> None:
    """Close the running loop's default client, if there is one; the next call makes another."""
    await _default.aclose()


chat = Chat(_engine)
completions = Completions(_engine)
embeddings = Embeddings(_engine)
models = Models(_engine)
files = Files(_engine)
batches = Batches(_engine)
