"""The client without ``await``, the names of the module, and batches."""

from __future__ import annotations

import asyncio
import functools
import inspect
from typing import Any, Self, cast

import konko_async
from konko_async import AsyncKonko
from konko_async._core.secret import masked, masked_keyword
from konko_async.batch import Stop
from konko_async.batch import run_batch as _run_batch
from konko_async.blocking._mirror import Mirror, adapted, arguments, register, unwrapped
from konko_async.blocking._portal import Caller, Portal
from konko_async.errors import ConfigurationError

__all__ = [
    "Konko",
    "batches",
    "chat",
    "close",
    "completions",
    "embeddings",
    "files",
    "models",
    "run_batch",
]


class _KonkoBase(Mirror):
    """What of a client is not the same as in AsyncKonko: how it is made and closed."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # At once: a traceback of whatever fails below may show the locals of this frame.
        args = tuple(map(masked, args))
        kwargs = {name: masked(masked_keyword(name, value)) for name, value in kwargs.items()}
        inner = AsyncKonko(*args, **kwargs)
        super().__init__(Portal([inner.close]), inner)
        self._owner = True

    @classmethod
    def over(cls, portal: Portal, inner: AsyncKonko) -> Self:
        """Return a client for a copy that ``with_options()`` made, in the same thread."""
        copy = cls.__new__(cls)
        Mirror.__init__(copy, portal, inner)
        copy._owner = False  # noqa: SLF001 - made here
        return copy

    def close(self) -> None:
        """Close the pool and end the thread: streams still open are cut. Idempotent.

        A copy closes nothing. A client that is dropped, or left to the end of the program, is
        closed without a warning.
        """
        if self._owner:
            self._portal.end()

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` has been called (on this client or on the original of a copy)."""
        return self._portal.closed

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        inner = getattr(self, "_inner", None)  # a traceback may show one that was never made
        return f"<Konko {'not made' if inner is None else f'base_url={inner.base_url!r}'}>"


Konko: Any = register(AsyncKonko, name="Konko", base=_KonkoBase)
Konko.__doc__ = """A client whose calls return when the answer is there.

It is AsyncKonko without ``await``: it runs one on an event loop in a thread of its own, which the
first call starts. Any number of threads may use it at once, also inside a running event loop
(notebooks). Arguments, methods and errors are those of :class:`~konko_async.AsyncKonko`.

Use ``with``, or call :meth:`close` at the end; where neither is done, it is closed quietly with the
last reference, or with the program. Ctrl-C cancels the call that is waited for.

Middleware, observers and async tools run in that thread: they must not make blocking calls.

Example:
    >>> def main() -> None:
    ...     with Konko() as konko:
    ...         completion = konko.chat.completions.create(
    ...             model="codellama/codellama-13b-instruct",
    ...             messages=[{"role": "user", "content": "Write a haiku about sockets."}],
    ...         )
    ...         print(completion.choices[0].message.content)
"""
Konko.__signature__ = inspect.signature(AsyncKonko)

# The module-level names stand for those of the package, whose client is that of the running loop:
# here, the one of this thread, made from the environment at the first call.
_portal = Portal([konko_async.aclose])
chat: Any = adapted(_portal, konko_async.chat)
completions: Any = adapted(_portal, konko_async.completions)
embeddings: Any = adapted(_portal, konko_async.embeddings)
models: Any = adapted(_portal, konko_async.models)
files: Any = adapted(_portal, konko_async.files)
batches: Any = adapted(_portal, konko_async.batches)


def close() -> None:
    """Close the client of the module-level names, if there is one; the next call makes another."""
    _portal.end(final=False)


@functools.wraps(_run_batch)
def run_batch(client: Any, *args: Any, **kwargs: Any) -> Any:
    """Run a batch with a blocking client; see :func:`konko_async.batch.run_batch`."""
    if not isinstance(client, _KonkoBase):
        raise ConfigurationError(
            f"client must be a konko_async.blocking.Konko, not {type(client).__name__}"
        )
    caller = Caller()
    kwargs = arguments(caller, kwargs)
    stop = kwargs.get("stop")
    portal = client._portal  # noqa: SLF001 - the same wing
    return portal.call(caller, _batch, unwrapped(client), args, kwargs, stop)


del run_batch.__wrapped__
run_batch.__signature__ = inspect.signature(_run_batch)  # type: ignore[attr-defined]  # functions may have one


async def _batch(
    client: AsyncKonko, args: tuple[Any, ...], kwargs: dict[str, Any], stop: Stop | None
) -> Any:
    if stop is None:
        return await _run_batch(client, *args, **kwargs)
    # Requested from a signal handler or another thread, while a batch wants it in its own.
    loop, inner = asyncio.get_running_loop(), Stop()
    unlisten = stop.listen(lambda _level: cast("None", loop.call_soon_threadsafe(inner.request)))
    try:
        return await _run_batch(client, *args, **{**kwargs, "stop": inner})
    finally:
        unlisten()
