"""Where attempts wait for the first endpoint that has room: one line for all endpoints.

A line per endpoint would keep calls waiting behind one endpoint's rejection while another has
room. So each endpoint's limits see only one that waits, in the name of all: whatever they grant it
goes to the head of this line.
"""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Any

from konko_async.limits._queue import Line, Waiter, Waiting
from konko_async.limits._rejection import Cause, refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from konko_async._balance.node import Node
    from konko_async._core.pipeline import Request
    from konko_async.limits import Lane, Permit

__all__ = ["EndpointLine", "Grant"]

Grant = tuple["Node", "Lane", "Permit"]


class _Caller(Waiter):
    """A waiting attempt, and where it should not go again."""

    __slots__ = ("avoids",)

    def __init__(self, line: Line, tokens: int, since: float, request: Request) -> None:
        future: Any = asyncio.get_running_loop().create_future()
        super().__init__(future, line, tokens, since, request.call.deadline)
        self.avoids = request.call.tried


class EndpointLine:
    """The attempts of one model that wait for an endpoint.

    Args:
        model: its name here.
        nodes: returns the endpoints that may be waited for now.
    """

    __slots__ = ("_model", "_nodes", "_scouts", "waiting")

    def __init__(self, model: str, nodes: Callable[[], Iterable[Node]]) -> None:
        self._model = model
        self._nodes = nodes
        self._scouts: dict[Node, asyncio.Task[None]] = {}
        self.waiting = Waiting()

    async def wait(self, request: Request, tokens: int) -> Grant:
        """Return the first endpoint that grants a permit, after those who came before.

        Raises:
            RateLimitTimeoutError: none does before the call's deadline.
        """
        loop = asyncio.get_running_loop()
        now, deadline = loop.time(), request.call.deadline
        line = self.waiting.line(request.priority)
        if deadline is not None:
            self._refuse_hopeless(tokens, line, now, deadline)
        caller = _Caller(line, tokens, now, request)
        self.waiting.join(caller)
        timer = None if deadline is None else loop.call_at(deadline, self._expire, caller)
        try:
            self.seek()
            return await caller.future  # type: ignore[return-value]  # a Waiter's is a permit alone
        except asyncio.CancelledError:
            self._give_up(caller)
            raise
        finally:
            if timer is not None:
                timer.cancel()
            self._rest()

    def seek(self) -> None:
        """Let each endpoint's limits know that somebody waits."""
        if not self.waiting.total:
            return
        for node in self._nodes():
            if node not in self._scouts:
                task = asyncio.get_running_loop().create_task(self._scout(node))
                self._scouts[node] = task

    def forget(self, node: Node) -> None:
        """Wait for an endpoint no more: it was put out, or removed."""
        task = self._scouts.pop(node, None)
        if task is not None:
            task.cancel()

    def fail(self, error: BaseException) -> None:
        """Fail all who wait: there is nothing to wait for any more."""
        while self.waiting.total:
            self._fail(error)

    def _rest(self) -> None:
        """Let go of the endpoints' limits when nobody waits."""
        if not self.waiting.total:
            for node in list(self._scouts):
                self.forget(node)

    async def _scout(self, node: Node) -> None:
        lane = node.lane(self._model)
        assert lane is not None  # noqa: S101 - nodes() are those that serve the model
        line = self.waiting.next()
        failure: BaseException | None = None
        try:
            permit = await lane.admit(line.head().tokens, priority=_priority(line))
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, the one who waits has to know
            failure = error
        self._scouts.pop(node, None)
        if failure is not None:
            self._fail(failure)
            return
        self._hand_on(node, lane, permit)
        self.seek()

    def _hand_on(self, node: Node, lane: Lane, permit: Permit | None) -> None:
        """Give what an endpoint has granted, and can grant now, to those who wait."""
        waiting = self.waiting
        while permit is not None:
            caller = self._next(node, permit.tokens)
            if caller is None:
                permit.refund()
                permit.release(outcome="cancelled")
                return
            if caller.tokens > permit.tokens:
                # It was asked for in the name of a smaller one.
                permit.refund()
                permit.release(outcome="cancelled")
                permit = lane.try_admit(caller.tokens, _priority(caller.line))
                if permit is None:
                    return
            if caller is caller.line.head():
                waiting.serve(caller.line, caller)
            else:
                waiting.leave(caller)
            caller.future.set_result((node, lane, permit))  # type: ignore[arg-type]  # see wait()
            permit = None
            if waiting.total:
                line = waiting.next()
                permit = lane.try_admit(line.head().tokens, _priority(line))

    def _next(self, node: Node, _tokens: int) -> _Caller | None:
        """Return who is next for an endpoint: the first that has not failed there."""
        waiting = self.waiting
        while waiting.total:
            line = waiting.next()
            head: Any = line.head()
            if head.future.done():  # cancelled, and its task has not run yet
                waiting.leave(head)
                continue
            if node not in head.avoids:
                return head  # type: ignore[no-any-return]  # only such stand here
            others: Any = (one for one in line if not one.future.done())
            found: _Caller = next((one for one in others if node not in one.avoids), head)
            return found
        return None

    def _fail(self, error: BaseException) -> None:
        if not self.waiting.total:
            return
        head = self.waiting.next().head()
        self.waiting.leave(head)
        if not head.future.done():
            head.future.set_exception(error)

    def _give_up(self, caller: _Caller) -> None:
        if caller.alive:
            self.waiting.leave(caller)
        elif not caller.future.cancelled() and caller.future.exception() is None:
            granted: Any = caller.future.result()
            permit: Permit = granted[2]
            permit.refund()
            permit.release(outcome="cancelled")

    def _expire(self, caller: _Caller) -> None:
        if not caller.alive or caller.future.done():
            return
        self.waiting.leave(caller)
        wait, cause = self._outlook(caller.tokens)
        if not wait:  # nothing but slots keeps it, and nobody knows when one will be free
            wait, cause = math.inf, Cause.CONCURRENCY
        waited = asyncio.get_running_loop().time() - caller.since
        caller.future.set_exception(self._refusal(cause, waited + wait, waited))

    def _refuse_hopeless(self, tokens: int, line: Line, now: float, deadline: float) -> None:
        wait, cause = self._outlook(tokens)
        if now + wait > deadline and not line.count:
            raise self._refusal(cause, wait, deadline - now)

    def _outlook(self, tokens: int) -> tuple[float, Cause]:
        lanes = [lane for node in self._nodes() if (lane := node.lane(self._model)) is not None]
        looks = [lane.outlook(tokens) for lane in lanes]
        return min(looks, key=lambda look: look[0], default=(0.0, Cause.CONCURRENCY))

    def _refusal(self, cause: Cause, wait: float, patience: float) -> Exception:
        waiting = self.waiting.total
        return refusal(self._model, cause, wait=wait, patience=patience, waiting=waiting)


def _priority(line: Line) -> Any:
    return line.priority
