"""What the proofs share: an emulator in another process, load, and the figures of it.

Each proof is a script (`python tests/proof/proof_limits.py --help`) and has a short run among the
tests. All of them use the whole client over real sockets, on real time.
"""

import argparse
import asyncio
import json
import math
import os
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))
from pipe_loop import PipeLoop
from proof_server import Control, keep_place

from konko_async import AsyncKonko, KonkoError
from konko_async.testing import Emulator

MODEL = "codellama/codellama-13b-instruct"
_SERVER = Path(__file__).with_name("proof_server.py")
_TICK = 0.005


class Remote:
    """An emulator in another process."""

    def __init__(self, base_url, reader, writer):
        self.base_url = base_url
        self._reader, self._writer = reader, writer
        self._turn = asyncio.Lock()

    async def __call__(self, do, **more):
        async with self._turn:
            self._writer.write(json.dumps({"do": do, **more}).encode() + b"\n")
            answer = await self._reader.readline()
        if not answer:
            raise RuntimeError("the emulator's process has ended; see its messages above")
        return json.loads(answer)


class Here:
    """An emulator on the loop of the proof, told what to do in the same way."""

    def __init__(self, control):
        self.base_url = control.emulator.base_url
        self._control = control

    async def __call__(self, do, **more):
        answer = await getattr(self._control, f"do_{do}")(**json.loads(json.dumps(more)))
        return json.loads(json.dumps(answer))


@asynccontextmanager
async def serving(**settings):
    """Start an emulator with these settings; yields a `Remote`, or where time is simulated, a `Here`."""
    settings = {"log_limit": None, **settings}
    if isinstance(asyncio.get_running_loop(), PipeLoop):
        async with Emulator(**settings) as emulator:
            keep_place(emulator)
            yield Here(Control(emulator))
    else:
        async with _in_another_process(settings) as remote:
            yield remote


@asynccontextmanager
async def _in_another_process(settings):
    environment = {**os.environ, "PYTHONWARNINGS": "error"}
    process = subprocess.Popen(
        [sys.executable, str(_SERVER), json.dumps(settings)],
        stdout=subprocess.PIPE,
        env=environment,
    )
    try:
        hello = json.loads(await asyncio.to_thread(process.stdout.readline))
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", hello["control"], limit=256 * 2**20
        )
        try:
            yield Remote(hello["base_url"], reader, writer)
        finally:
            writer.close()
            await writer.wait_closed()
    finally:
        process.stdout.close()
        try:
            await asyncio.to_thread(process.wait, 10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def client_of(remote, **options):
    """A client with everything on, as it is by default."""
    return AsyncKonko(api_key="emulator-key", base_url=remote.base_url, **options)


def ask_for(number, **more):
    """Arguments of a call; the text and so the length of the answer depends on the number."""
    text = f"Question {number}: what is written on page {number * 7919 % 1000}?"
    return {"model": MODEL, "messages": [{"role": "user", "content": text}], **more}


class Load:
    """Workers that call as fast as they are let, and what became of their calls."""

    def __init__(self, call):
        self.call = call
        self.number = 0
        self.done = 0
        self.failed = {}
        self.ended = []  # when each good call ended

    async def _work(self):
        clock = asyncio.get_running_loop().time
        while True:
            self.number += 1
            try:
                await self.call(self.number)
            except KonkoError as error:
                name = type(error).__name__
                self.failed[name] = self.failed.get(name, 0) + 1
                # Whoever fails at once comes back a little later: this is no test of spinning.
                await asyncio.sleep(0.01)
            else:
                self.done += 1
                self.ended.append(clock())

    @asynccontextmanager
    async def running(self, workers):
        """Work while the block runs; what is under way at its end is cancelled."""
        tasks = [asyncio.create_task(self._work()) for _ in range(workers)]
        try:
            yield self
        finally:
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
        for result in results:
            if not isinstance(result, asyncio.CancelledError):
                raise result


class Lag:
    """The longest time that this process's loop stood still."""

    def __init__(self):
        self.worst = 0.0

    @asynccontextmanager
    async def watched(self):
        async def watch():
            clock = asyncio.get_running_loop().time
            while True:
                before = clock()
                await asyncio.sleep(_TICK)
                self.worst = max(self.worst, clock() - before - _TICK)

        task = asyncio.create_task(watch())
        try:
            yield self
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def quantile(values, share):
    """The value below which that share of them is; nan without values."""
    if not values:
        return math.nan
    ranked = sorted(values)
    return ranked[min(max(math.ceil(share * len(ranked)) - 1, 0), len(ranked) - 1)]


def median(values):
    return quantile(values, 0.5)


def permits(client):
    """What the limits still hold: (calls in flight, calls that wait)."""
    lanes = client.limits.lanes
    waiting = sum(lane.waiting.interactive + lane.waiting.batch for lane in lanes)
    return sum(lane.in_flight for lane in lanes), waiting


def others():
    """Tasks beside the one that asks, and those of an emulator's connections."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    return {task for task in tasks if "RequestHandler.start" not in repr(task.get_coro())}


def say(text=""):
    print(text, flush=True)  # noqa: T201


def row(*cells, widths):
    say("  ".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True)))


def arguments(description, **numbers):
    """Read numbers from the command line; each keyword is an option with its default."""
    parser = argparse.ArgumentParser(description=description)
    for name, default in numbers.items():
        parser.add_argument(
            f"--{name.replace('_', '-')}", type=type(default), default=default, help=f"({default})"
        )
    return parser.parse_args()
