"""Grants permits to another process: the side that keeps the limits."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from konko_async.errors import KonkoError

if TYPE_CHECKING:
    from collections.abc import Callable

    from konko_async._client import AsyncKonko
    from konko_async.limits import Lane, Permit
    from konko_async.remote._limiter import Send

__all__ = ["Admission"]


class Admission:
    """Admits the attempts of one other process, out of this client's limits.

    Args:
        client: whose limits they are.
        send: sends a message to that process: ``("grant", number)`` or ``("refuse", number,
            error)``.
    """

    def __init__(self, client: AsyncKonko, send: Send) -> None:
        self._limiter = client._get_engine().limiter  # noqa: SLF001 - its face for others
        self._send = send
        self._held: dict[int, Permit] = {}
        self._waiting: dict[int, asyncio.Task[Permit]] = {}
        self.handlers: dict[str, Callable[..., object]] = {
            "ask": self._ask,
            "drop": self._drop,
            "end": self._end,
            "headers": self._headers,
            "rejected": self._rejected,
        }

    @property
    def held(self) -> int:
        """How many attempts were granted a permit and have not ended."""
        return len(self._held)

    def _ask(  # noqa: PLR0917 - a message is positional
        self,
        number: int,
        model: str | None,
        key: str,
        tokens: int,
        priority: Any,
        patience: float | None,
    ) -> None:
        lane = self._limiter.lane(model, key)
        # The other process cannot know whether a limit on tokens was learned here: it always
        # estimates.
        if not lane.counts_tokens:
            tokens = 0
        try:
            permit = lane.try_admit(tokens, priority)
        except KonkoError as error:  # limits in a store that is unavailable
            self._send(("refuse", number, error))
            return
        if permit is not None:
            # Before the message, as the end of the attempt may be reported while it is being sent.
            self._held[number] = permit
            self._send(("grant", number))
            return
        task = asyncio.create_task(_admit(lane, tokens, priority, patience))
        self._waiting[number] = task
        task.add_done_callback(lambda ended: self._answered(number, ended))

    def _answered(self, number: int, task: asyncio.Task[Permit]) -> None:
        # Not wanted any more: the other side dropped it while the permit was on its way to this
        # callback.
        wanted = self._waiting.pop(number, None) is not None
        if task.cancelled():
            return
        error = task.exception()
        if error is not None:
            if wanted:
                self._send(("refuse", number, error))
        elif wanted:
            self._held[number] = task.result()
            self._send(("grant", number))
        else:
            _unused(task.result())

    def _drop(self, number: int) -> None:
        task = self._waiting.pop(number, None)
        if task is not None:
            task.cancel()
        elif (permit := self._held.pop(number, None)) is not None:
            _unused(permit)

    def _end(
        self, number: int, used: int | None, refunded: bool, latency: float, outcome: Any
    ) -> None:
        permit = self._held.pop(number, None)
        # Of an attempt that close() has counted as made.
        if permit is None:
            return
        if refunded:
            permit.refund()
        else:
            permit.settle(used)
        permit.release(latency, outcome)

    def _headers(self, model: str | None, key: str, headers: dict[str, str]) -> None:
        self._limiter.lane(model, key).observe_headers(headers)

    def _rejected(
        self, model: str | None, key: str, retry_after: float | None, number: int
    ) -> None:
        lane = self._limiter.lane(model, key)
        # The permit says when the call was sent, which tells random rejections from those of a
        # limit.
        lane.observe_rejection(retry_after, self._held.get(number))

    async def close(self) -> None:
        """Take back what a process that is gone holds; its attempts count as made."""
        waiting = list(self._waiting.values())
        self._waiting.clear()
        for task in waiting:
            task.cancel()
        held, self._held = list(self._held.values()), {}
        for permit in held:
            # Whether its calls reached the server is unknown: each keeps its estimate, as the safe
            # side.
            permit.settle(None)
            permit.release(outcome="cancelled")
        if waiting:
            await asyncio.wait(waiting)


async def _admit(lane: Lane, tokens: int, priority: Any, patience: float | None) -> Permit:
    loop = asyncio.get_running_loop()
    # Sent as seconds that are left: clocks of two processes have no common zero.
    deadline = None if patience is None else loop.time() + patience
    return await lane.admit(tokens, priority=priority, deadline=deadline)


def _unused(permit: Permit) -> None:
    permit.refund()
    permit.release(outcome="cancelled")
