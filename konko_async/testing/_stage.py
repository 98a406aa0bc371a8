"""What a fault server is to say, and what it has heard: shared by its connections."""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Iterable
from typing import TypeAlias

from konko_async.testing._answer import Answer
from konko_async.testing._raw_request import ReceivedRequest

Script: TypeAlias = Answer | Callable[[ReceivedRequest], Answer]
"""An answer, or a function of the request that gives one."""


class Stage:
    """The queue of answers, the log of requests, and the news of any change."""

    def __init__(self, answers: Iterable[Script], default: Script | None, keep_alive: bool) -> None:
        self.queue = deque(answers)
        self.default = default
        self.keep_alive = keep_alive
        self.requests: list[ReceivedRequest] = []
        self.open = True
        self._last: Script = Answer.whole()
        self._change = asyncio.Event()

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
