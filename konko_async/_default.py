"""The guide's module-level style: ``await konko_async.models.list()``.

One client per running event loop, made from the environment on first use. An async generator that
the loop knows holds it, so that ``asyncio.run()`` closes it by ``loop.shutdown_asyncgens()``.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from konko_async._client import AsyncKonko
from konko_async.resources import Chat, Completions, Embeddings, Models

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from konko_async._engine import Engine

__all__ = ["aclose", "chat", "completions", "embeddings", "models"]

_keepers: WeakKeyDictionary[asyncio.AbstractEventLoop, AsyncGenerator[AsyncKonko, None]]
_keepers = WeakKeyDictionary()
_clients: WeakKeyDictionary[asyncio.AbstractEventLoop, AsyncKonko] = WeakKeyDictionary()


async def _keep(client: AsyncKonko) -> AsyncGenerator[AsyncKonko, None]:
    loop = asyncio.get_running_loop()
    try:
        yield client
    finally:
        _clients.pop(loop, None)
        _keepers.pop(loop, None)
        await client.close()


def _client() -> AsyncKonko:
    loop = asyncio.get_running_loop()
    client = _clients.get(loop)
    if client is None or client.closed:
        for other in [other for other in _clients if other.is_closed()]:
            _clients.pop(other, None)  # a loop that was closed without shutdown_asyncgens()
            _keepers.pop(other, None)
        client = AsyncKonko()
        keeper = _keep(client)
        # The first step runs to the yield without suspending, and tells the loop of the generator.
        with contextlib.suppress(StopIteration):
            keeper.__anext__().send(None)
        _keepers[loop] = keeper
        _clients[loop] = client
    return client


def _engine() -> Engine:
    return _client()._get_engine()  # noqa: SLF001 - the module-level face of the same client


async def aclose() -> None:
    """Close the running loop's default client, if there is one; the next call makes another."""
    keeper = _keepers.get(asyncio.get_running_loop())
    if keeper is not None:
        await keeper.aclose()


chat = Chat(_engine)
completions = Completions(_engine)
embeddings = Embeddings(_engine)
models = Models(_engine)
