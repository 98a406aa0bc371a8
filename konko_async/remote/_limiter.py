"""Requests permits from another process: the side that makes the calls."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from konko_async._core.policies import Priority, RateLimit
from konko_async.limits import Lane, Limiter, Limits, Outcome, Permit

__all__ = ["RemoteLane", "RemoteLimiter", "RemotePermit", "Send"]

Send = Callable[[tuple[Any, ...]], object]
"""Sends a message (a tuple of builtins that begins with its kind) to the other side, in order."""

_REPORTED = "x-ratelimit-"
_COUNTED_ELSEWHERE: tuple[list[float], None] = ([0.0, 0.0], None)


class RemotePermit(Permit):
    """A permit of another process's lane.

    Attributes:
        number: the other side knows it by.
    """

    number: int = 0
    _used: int | None = None
    _refunded: bool = False

    def settle(self, total_tokens: int | None) -> None:
        """Note what was used; reported with the release."""
        if not self._settled:
            self._settled = True
            self._used = total_tokens

    def refund(self) -> None:
        """Note that nothing reached the server; reported with the release."""
        if not self._settled:
            self._settled = True
            self._refunded = True

    def release(self, latency: float | None = None, outcome: Outcome = "ok") -> None:
        """Give it back; idempotent."""
        if self._open:
            self._open = False
            if latency is None:
                latency = asyncio.get_running_loop().time() - self.admitted_at
            remote: Any = self._owner
            remote.tell("end", self.number, self._used, self._refunded, latency, outcome)


class RemoteLane(Lane):
    """Requests each admission from another process; see :class:`Lane`."""

    __slots__ = ("_counts", "_limiter")

    immediate = False

    def __init__(self, model: str | None, key: str, limiter: RemoteLimiter) -> None:
        self.model = model
        self.key = key
        self._limiter = limiter
        limit = limiter.rate_limit
        # With learn, headers may set a limit on tokens at any time, and only the other side hears
        # of it.
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
        priority: Priority = "interactive",  # noqa: ARG002 - the other process decides
        loop: asyncio.AbstractEventLoop | None = None,  # noqa: ARG002 - the same
    ) -> Permit | None:
        """Return None, as only the other side can admit."""
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
        # The future first: the grant may arrive before send() has returned.
        number, future = limiter.ask()
        self.tell("ask", number, self.model, self.key, tokens, priority, patience)
        try:
            await future
        except asyncio.CancelledError:
            if not limiter.forget(number):  # it was granted meanwhile
                permit = self._permit(number, tokens, 0.0)
                permit.refund()
                permit.release(outcome="cancelled")
            else:
                self.tell("drop", number)
            raise
        return self._permit(number, tokens, loop.time() - began)

    def _permit(self, number: int, tokens: int, waited: float) -> RemotePermit:
        # Latency is measured here, where the call is made: the way to the other process is not part
        # of it.
        now = asyncio.get_running_loop().time()
        return RemotePermit(self, 0, now, 0, tokens, _COUNTED_ELSEWHERE, waited, number=number)

    def observe_headers(self, headers: Mapping[str, str]) -> None:
        """Report the headers that describe limits."""
        # Not sent at all: a message for each answer would be read and thrown away.
        if not self._limiter.rate_limit.learn:
            return
        found = {
            name.lower(): value for name, value in headers.items() if name[:12].lower() == _REPORTED
        }
        if found:
            self.tell("headers", self.model, self.key, found)

    def observe_answer(self, permit: Permit) -> None:
        """Do nothing: the other side hears of it when the call ends."""

    def observe_rejection(
        self, retry_after: float | None = None, permit: Permit | None = None
    ) -> None:
        """Report a rejection: the lane cools down for all processes."""
        # Numbers begin with 1, so 0 is nobody's: a limit was certainly reached.
        number = permit.number if isinstance(permit, RemotePermit) else 0
        self.tell("rejected", self.model, self.key, retry_after, number)

    def idle(self) -> bool:
        """Whether it may be forgotten: it holds nothing that cannot be made again."""
        return True


class RemoteLimiter(Limiter):
    """Asks another process, which keeps the limits, for every attempt.

    Args:
        send: sends a message there.
        rate_limit: of the client there.

    Attributes:
        send: sends a message to that process.
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
        """Return a number for a permit, and the future of its grant."""
        self._number += 1
        future = asyncio.get_running_loop().create_future()
        self._asked[self._number] = future
        return self._number, future

    def forget(self, number: int) -> bool:
        """Forget what was asked for; False if it was answered already."""
        return self._asked.pop(number, None) is not None

    def granted(self, number: int) -> None:
        """Wake an attempt whose permit was granted."""
        future = self._asked.pop(number, None)
        if future is not None and not future.done():
            future.set_result(None)

    def refused(self, number: int, error: BaseException) -> None:
        """Fail an attempt whose permit was refused."""
        future = self._asked.pop(number, None)
        if future is not None and not future.done():
            future.set_exception(error)
