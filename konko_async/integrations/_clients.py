"""The clients of a framework's object, which nobody closes."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any, NoReturn

from konko_async import AsyncKonko
from konko_async._module_client import LoopClients
from konko_async.blocking import Konko
from konko_async.errors import ConfigurationError

__all__ = ["Clients", "missing"]


class Clients:
    """A client per running event loop, and one for calls that block; each made on first use.

    Whatever was made here is closed quietly: at the end of its loop, of the program, or with the
    last reference to this object. Given clients are left to their makers. Copies and pickles
    of a framework's object make clients of their own.

    Args:
        options: of :class:`~konko_async.AsyncKonko`, for the clients that are made.
        given: an AsyncKonko for asynchronous calls, instead.
        blocking: a Konko for calls that block, instead.

    Raises:
        ConfigurationError: an option cannot be used, or something else was given for a client.
    """

    def __init__(
        self,
        options: Mapping[str, Any],
        given: AsyncKonko | None = None,
        blocking: Konko | None = None,
    ) -> None:
        self._options = dict(options)
        self._given = given
        self._given_blocking = self._blocking = blocking
        self._lock = threading.Lock()
        options = self._options
        if given is None and blocking is None:
            # What cannot work is said when a framework's object is made, as its users expect, and
            # not at the first call. Making a client does no I/O.
            AsyncKonko(**options)
        # Without self: a cycle would delay the end of what is dropped.
        self._loops = LoopClients(lambda: AsyncKonko(**options))
        for name, value, kind in (("async_client", given, AsyncKonko), ("client", blocking, Konko)):
            if value is not None and not isinstance(value, kind):
                raise ConfigurationError(
                    f"{name} must be a {kind.__name__}, not {type(value).__name__}"
                )

    def current(self) -> AsyncKonko:
        """Return the client of the running loop.

        Raises:
            ConfigurationError: it cannot be made.
        """
        if self._given is not None:
            return self._given
        if self._given_blocking is not None:
            raise ConfigurationError(
                "this object was given a client for blocking calls only: give it "
                "async_client=AsyncKonko(...) as well"
            )
        return self._loops.get()

    def blocking(self) -> Konko:
        """Return the client of calls that block.

        Raises:
            ConfigurationError: it cannot be made.
        """
        with self._lock:
            if self._blocking is None:
                if self._given is not None:
                    raise ConfigurationError(
                        "this object was given a client for asynchronous calls only: give it "
                        "client=konko_async.blocking.Konko(...) as well"
                    )
                self._blocking = Konko(**self._options)
            return self._blocking

    def close(self) -> None:
        """Close the client of blocking calls, if one was made here; the next call makes another."""
        with self._lock:
            made, self._blocking = self._blocking, self._given_blocking
        if made is not None and made is not self._given_blocking:
            made.close()

    async def aclose(self) -> None:
        """Close the running loop's client, if one was made here, and that of blocking calls."""
        await self._loops.aclose()
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        if self._given is not None or self._given_blocking is not None:
            raise TypeError("an object that was given a client cannot be pickled")
        return (Clients, (self._options,))

    def __deepcopy__(self, memo: dict[int, Any]) -> Clients:
        return Clients(self._options, self._given, self._given_blocking)


def missing(extra: str, error: ImportError) -> NoReturn:
    """Say which extra an integration needs.

    Raises:
        ConfigurationError: always.
    """
    raise ConfigurationError(
        f"this needs the extra `{extra}` ({error}): pip install 'konko-async[{extra}]'"
    ) from None
