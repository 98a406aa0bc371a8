"""The side of the process that makes the calls: permits are asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from konko_async._options import Priority, RateLimit
from konko_async.limits import Lane, Limiter, Limits, Outcome, Permit

__all__ = ["RemoteLane", "RemoteLimiter", "RemotePermit", "Send"]

Send = Callable[[tuple[Any, ...]], object]
"""Sends a message (a tuple of builtins that begins with its kind) to the other side, in order."""

_REPORTED = "x-ratelimit-"


class RemotePermit(Permit):
    """A permit of another process's lane."""

    __slots__ = ("_corrected", "_granted_at", "_number", "_refunded", "_remote", "_used")

    def __init__(self, remote: RemoteLane, number: int, tokens: int, waited: float) -> None:
        # What belongs to a lane of this process is left unset.
        self._remote = remote
        self._number = number
        self._granted_at = asyncio.get_running_loop().time()
        self._used: int | None = None
        self._refunded = False
        self._open = True
        self._settled = False
        self.tokens = tokens
        self.waited = waited

    def settle(self, total_tokens: int | None) -> None:
        """Note what was used; told with the release."""
        if not self._settled:
            self._settled = True
            self._used = total_tokens

    def refund(self) -> None:
        """Note that nothing reached the server; told with the release."""
        if not self._settled:
            self._settled = True
            self._refunded = True

    def release(self, latency: float | None = None, outcome: Outcome = "ok") -> None:
        """Give it back; idempotent."""
        if self._open:
            self._open = False
            if latency is None:
                latency = asyncio.get_running_loop().time() - self._granted_at
            self._remote.tell("end", self._number, self._used, self._refunded, latency, outcome)


class RemoteLane(Lane):
    """Asks another process for each admission; see :class:`Lane`."""

    __slots__ = ("_counts", "_limiter")

    def __init__(self, model: str | None, key: str, limiter: RemoteLimiter) -> None:
        self.model = model
        self.key = key
        self._limiter = limiter
        limit = limiter.rate_limit
        self._counts = limit.learn or limit.tokens_per_minute is not None

    @property
    def counts_tokens(self) -> bool:
        """Whether tokens may be limited."""
        return self._counts

    def tell(self, *message: Any) -> None:
        """Send something to the other side."""
        self._limiter.send(message)

    def try_admit(
        self,
        tokens: int = 0,  # noqa: ARG002 - it is not decided here
        priority: Priority = "interactive",  # noqa: ARG002 - likewise
    ) -> Permit | None:
        """Return None: the other side has to be asked."""
        return None

    async def admit(
        self,
        tokens: int = 0,
        priority: Priority = "interactive",
        deadline: float | None = None,
    ) -> Permit:
        """Ask for a permit, and wait for it.

        Raises:
            KonkoError: as :meth:`Lane.admit`.
        """
        limiter, loop = self._limiter, asyncio.get_running_loop()
        began = loop.time()
        patience = None if deadline is None else deadline - began
        number, future = limiter.ask()
        self.tell("ask", number, self.model, self.key, tokens, priority, patience)
        try:
            await future
        except asyncio.CancelledError:
            if not limiter.forget(number):  # it was granted meanwhile
                permit = RemotePermit(self, number, tokens, 0.0)
                permit.refund()
                permit.release(outcome="cancelled")
            else:
                self.tell("drop", number)
            raise
        return RemotePermit(self, number, tokens, loop.time() - began)

    def observe_headers(self, headers: Mapping[str, str]) -> None:
        """Tell of the headers that speak of limits."""
        if not self._limiter.rate_limit.learn:
            return
        found = {
            name.lower(): value for name, value in headers.items() if name[:12].lower() == _REPORTED
        }
        if found:
            self.tell("headers", self.model, self.key, found)

    def observe_rejection(self, retry_after: float | None = None) -> None:
        """Tell of a rejection: the lane pauses for all processes."""
        self.tell("rejected", self.model, self.key, retry_after)

    def idle(self) -> bool:
        """Whether it may be forgotten: it holds nothing that cannot be made again."""
        return True


class RemoteLimiter(Limiter):
    """Asks another process, which keeps the limits, for every attempt.

    Args:
        send: sends a message there.
        rate_limit: of the client there.

    Attributes:
        send: as above.
    """

    __slots__ = ("_asked", "_number", "send")

    def __init__(self, send: Send, rate_limit: RateLimit) -> None:
        super().__init__(rate_limit)
        self.send = send
        self._asked: dict[int, asyncio.Future[None]] = {}
        self._number = 0

    def _make(self, model: str | None, key: str) -> Lane:
        return RemoteLane(model, key, self)

    def snapshot(self) -> Limits:
        """Return nothing: what is used is known on the other side."""
        return Limits(())

    def ask(self) -> tuple[int, asyncio.Future[None]]:
        """Return a number for a permit, and what will tell of it."""
        self._number += 1
        future = asyncio.get_running_loop().create_future()
        self._asked[self._number] = future
        return self._number, future

    def forget(self, number: int) -> bool:
        """Forget what was asked for; False if it was answered already."""
        return self._asked.pop(number, None) is not None

    def granted(self, number: int) -> None:
        """Let an attempt go."""
        future = self._asked.pop(number, None)
        if future is not None and not future.done():
            future.set_result(None)

    def refused(self, number: int, error: BaseException) -> None:
        """Fail an attempt."""
        future = self._asked.pop(number, None)
        if future is not None and not future.done():
            future.set_exception(error)
