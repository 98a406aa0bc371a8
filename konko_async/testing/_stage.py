"""What a fault server is to say, and what it has heard: shared by its connections."""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Iterable
from typing import Literal, Protocol, TypeAlias

from konko_async.testing._answer import Answer
from konko_async.testing._raw_request import ReceivedRequest
from konko_async.testing._steps import How

Script: TypeAlias = Answer | Callable[[ReceivedRequest], Answer]
"""An answer, or a function of the request that gives one."""


class Line(Protocol):
    """A connection, as far as its server has a say in it."""

    def close(self, how: How) -> None:
        """Close it now."""

    def release(self) -> None:
        """Let a stalled answer go on."""


class Stage:
    """The queue of answers, the log of requests, the state of every connection, and its news."""

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
        self.live: set[Line] = set()
        self.stalled: set[Line] = set()
        self.idle: set[Line] = set()
        """Those waiting for a request, after at least one, with nothing of it come yet."""
        self._last: Script = Answer.whole()
        self._change = asyncio.Event()

    def made(self, line: Line) -> None:
        """A connection has been opened."""
        self.opened += 1
        self.live.add(line)
        self.changed()

    def lost(self, line: Line, by: Literal["peer", "server"]) -> None:
        """A connection has been closed."""
        self.closed_by[by] += 1
        for lines in (self.live, self.stalled, self.idle):
            lines.discard(line)
        self.changed()

    def greeting(self) -> Answer | None:
        """The next answer, taken, if it is one that hangs up before any request."""
        script = self._next()
        if isinstance(script, Answer) and script.hangs_up_first:
            self._take()
            return script
        return None

    def answer_to(self, request: ReceivedRequest) -> Answer:
        """The answer for a request that has come."""
        self.requests.append(request)
        self.changed()
        script = self._take()
        return script if isinstance(script, Answer) else script(request)

    def changed(self) -> None:
        """Have whoever waits for something look again."""
        self._change.set()

    async def until(self, ready: Callable[[], bool], seconds: float) -> bool:
        """Wait for that; whether it came true in time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not ready():
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
