"""The state that a fault server's connections share: queued answers, and what was received."""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Iterable
from typing import Literal, Protocol, TypeAlias

from konko_async.testing._fault_server.answer import Answer
from konko_async.testing._fault_server.request import ReceivedRequest
from konko_async.testing._fault_server.steps import How

Script: TypeAlias = Answer | Callable[[ReceivedRequest], Answer]
"""An answer, or a function of the request that gives one."""


class LiveConnection(Protocol):
    """What a server can do to one of its connections."""

    def close(self, how: How) -> None:
        """Close the connection now."""

    def release(self) -> None:
        """Resume a stalled answer."""


class Stage:
    """The queue of answers, the log of requests, and the state of every connection."""

    def __init__(self, answers: Iterable[Script], default: Script | None, keep_alive: bool) -> None:
        self.queue = deque(answers)
        self.default = default
        self.keep_alive = keep_alive
        self.requests: list[ReceivedRequest] = []
        self.open = True
        self.opened = 0
        self.stalls = 0
        """How many answers have stalled."""
        self.closed_by: dict[Literal["peer", "server"], int] = {"peer": 0, "server": 0}
        self.live: set[LiveConnection] = set()
        self.stalled: set[LiveConnection] = set()
        self.idle: set[LiveConnection] = set()
        """Those waiting for a request, after at least one, with nothing of it come yet."""
        # For a server that was given nothing: a good answer, so that a test can be about something
        # else.
        self._last: Script = Answer.whole()
        self._change = asyncio.Event()

    def made(self, line: LiveConnection) -> None:
        """Record a new connection."""
        self.opened += 1
        self.live.add(line)
        self.changed()

    def lost(self, line: LiveConnection, by: Literal["peer", "server"]) -> None:
        """Record that a connection was closed, and by whom."""
        self.closed_by[by] += 1
        for lines in (self.live, self.stalled, self.idle):
            lines.discard(line)
        self.changed()

    def greeting(self) -> Answer | None:
        """Take the next answer if it is one that hangs up before any request."""
        script = self._next()
        # A function cannot be called yet, as there is no request to give it.
        if isinstance(script, Answer) and script.hangs_up_first:
            self._take()
            return script
        return None

    def answer_to(self, request: ReceivedRequest) -> Answer:
        """Log a request, and return the answer for it."""
        self.requests.append(request)
        self.changed()
        script = self._take()
        return script if isinstance(script, Answer) else script(request)

    def changed(self) -> None:
        """Wake all waiters, so that they test their conditions again."""
        self._change.set()

    async def until(self, ready: Callable[[], bool], seconds: float) -> bool:
        """Wait until `ready()` is true; returns whether it was in time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not ready():
                    # Cleared before the wait, with no await since `ready()` was tested: no change
                    # can be missed.
                    self._change.clear()
                    await self._change.wait()
        return ready()

    def _next(self) -> Script:
        if self.queue:
            return self.queue[0]
        return self._last if self.default is None else self.default

    def _take(self) -> Script:
        script = self._next()
        if self.queue:
            self._last = self.queue.popleft()
        return script
