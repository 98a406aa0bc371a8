"""What the tests of the resilience middleware share: requests, fake attempts, stepwise cancellation."""

import asyncio
import functools

from konko_async._core.pipeline import Call, Request, Response
from konko_async._core.policies import Timeout
from konko_async.errors import APIStatusError
from konko_async.testing import TimeJumpingLoop


class Operation:
    """The least that a request needs."""

    name = "chat"

    def __init__(self, method="POST"):
        self.method = method

    def encode(self, params):
        return repr(params).encode()


def make_request(*, total=None, method="POST", model="m", stream=False, headers=None, params=None):
    return Request(
        Operation(method),
        "/chat/completions",
        {"model": model} if params is None else params,
        model=model,
        stream=stream,
        headers=headers or {},
        query=None,
        timeout=Timeout(total=total),
        priority="interactive",
        call=Call(now(), None if total is None else now() + total, asyncio.get_running_loop()),
    )


def now():
    return asyncio.get_running_loop().time()


def status_error(status, **details):
    return APIStatusError.for_status(status, f"HTTP {status}", **details)


class SlowlyClosed(Response):
    """An answer whose closing takes time, as that of a connection may."""

    async def aclose(self):
        try:
            await asyncio.sleep(0.01)
        finally:
            self.finish("closed")


class Attempts:
    """A ``call_next`` that plays a script, one step per attempt (the last one again and again).

    A step is an exception to raise, ``"ok"``, or a pair (seconds, step) to wait first.
    ``held`` counts connections: an attempt holds one until it fails, has cleaned up after a
    cancellation (which takes time), or its response is closed.
    """

    def __init__(self, *script):
        self.script = script
        self.requests = []
        self.times = []
        self.held = 0
        self.cancelled = 0

    async def __call__(self, request):
        step = self.script[min(len(self.requests), len(self.script) - 1)]
        self.requests.append(request)
        self.times.append(now())
        self.held += 1
        try:
            while isinstance(step, tuple):
                await asyncio.sleep(step[0])
                step = step[1]
            if isinstance(step, BaseException):
                raise step
        except asyncio.CancelledError:
            self.cancelled += 1
            try:
                await asyncio.sleep(0.01)
            finally:
                self._let_go()
            raise
        except BaseException:
            self._let_go()
            raise
        response = SlowlyClosed(200, {})
        response.result = request
        response.on_close(self._let_go)
        return response

    def _let_go(self, _response=None):
        self.held -= 1


class _SteppingLoop(TimeJumpingLoop):
    """Calls ``at_step[n]()`` before its n-th turn."""

    def __init__(self):
        super().__init__()
        self.at_step = {}
        self.step = 0

    def _run_once(self):
        self.at_step.pop(self.step, lambda: None)()
        self.step += 1
        super()._run_once()


def cancel_everywhere(make_scenario, *, again_after=None):
    """Run a scenario again and again, cancelled at step 0, 1, 2 … until it ends before that.

    ``make_scenario()`` returns ``(attempts, coroutine function)``, whose result is a Response.
    After each run no connection is held and no task is left. With ``again_after``, a second
    cancellation follows so many steps later, into the cleanup. Returns the number of points.
    """
    step = 0
    while True:
        done = _run_cancelled(make_scenario, step, again_after)
        if done:
            assert step > 3, "the scenario was over before it could be cancelled"
            return step
        step += 1


def _run_cancelled(make_scenario, step, again_after):
    async def main():
        loop = asyncio.get_running_loop()
        attempts, scenario = make_scenario()
        task = asyncio.create_task(scenario())
        base = loop.step
        loop.at_step[base + step] = task.cancel
        if again_after is not None:
            loop.at_step[base + step + again_after] = task.cancel
        try:
            response = await task
        except asyncio.CancelledError:
            finished = False
        else:
            finished = True
            await response.aclose()
        loop.at_step.clear()
        assert asyncio.all_tasks() == {asyncio.current_task()}, f"tasks left at step {step}"
        assert attempts.held == 0, f"connections left at step {step}"
        return finished

    with asyncio.Runner(loop_factory=_SteppingLoop) as runner:
        return runner.run(main())


def no_tasks_left(test):
    """Check at the end of an async test that it left no task."""

    @functools.wraps(test)
    async def run(*args, **kwargs):
        await test(*args, **kwargs)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    return run
