"""Keys that a function of the user's hands out, such as tokens that expire."""

from __future__ import annotations

import asyncio
import hashlib
import inspect
from collections.abc import Awaitable, Callable
from typing import Any

from konko_async._core.secret import Secret, masked
from konko_async.errors import ConfigurationError

__all__ = ["KeyFunction", "KeySource"]

KeyFunction = Callable[[], str | Awaitable[str]]


class KeySource:
    """Calls a function for the key: before the first request, and again after a 401.

    Args:
        function: returns the key, or an awaitable of it.

    Attributes:
        fingerprint: stands for the key where limits are kept per key; it stays when
            the key changes.
    """

    __slots__ = ("_function", "_lock", "_secret", "fingerprint")

    def __init__(self, function: KeyFunction) -> None:
        self._function = function
        self._secret: Secret | None = None
        self._lock: tuple[asyncio.AbstractEventLoop, asyncio.Lock] | None = None
        # From the function's name and not from the key: limits would otherwise start anew with each
        # token.
        name = f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', '')}"
        self.fingerprint = hashlib.blake2b(name.encode(), digest_size=4).hexdigest()

    async def secret(self, refused: Secret | None = None) -> Secret:
        """Return the key; many calls at once ask for it once.

        Args:
            refused: the key that a server did not accept: if it is still the current one, the
                function is called again.

        Raises:
            ConfigurationError: the function raised something, or returned no key.
        """
        if self._secret is None or self._secret is refused:
            async with self._lock_of(asyncio.get_running_loop()):
                if self._secret is None or self._secret is refused:  # nobody did it meanwhile
                    self._secret = Secret(await self._ask(), name="the key that api_key() returned")
        return self._secret

    async def _ask(self) -> str:
        try:
            found: Any = self._function()
            if inspect.isawaitable(found):
                found = await found
        except Exception as error:
            raise ConfigurationError(f"api_key() raised {type(error).__name__}") from error
        return masked(found)  # type: ignore[no-any-return]  # checked by Secret

    def _lock_of(self, loop: asyncio.AbstractEventLoop) -> asyncio.Lock:
        # A lock is bound to the loop it was first waited on; a client may be used on one loop after
        # another.
        if self._lock is None or self._lock[0] is not loop:
            self._lock = loop, asyncio.Lock()
        return self._lock[1]

    def __repr__(self) -> str:
        return "<KeySource>"

    def __reduce__(self) -> tuple[Any, ...]:
        return KeySource, (self._function,)  # another process asks for itself
