"""The emulator in a process of its own, told what to do over a socket; see `proof_kit.serving`."""

import asyncio
import json
import random
import sys
from collections import Counter

from konko_async.testing import Emulator, faults

_TICK = 0.005


class Control:
    """Carries out the commands of one test: a line of JSON each, and a line in answer."""

    def __init__(self, emulator):
        self.emulator = emulator
        self.done = asyncio.Event()
        self.lag = 0.0
        self.marked = 0
        self.random = random.Random(1)

    async def watch_lag(self):
        """Note the longest time that this process stood still."""
        clock = asyncio.get_running_loop().time
        while True:
            before = clock()
            await asyncio.sleep(_TICK)
            self.lag = max(self.lag, clock() - before - _TICK)

    async def serve(self, reader, writer):
        while line := await reader.readline():
            command = json.loads(line)
            answer = await getattr(self, f"do_{command.pop('do')}")(**command)
            writer.write(json.dumps(answer).encode() + b"\n")
            await writer.drain()
        # Also when the other process was killed: nothing is to be left over.
        writer.close()
        self.done.set()

    async def do_set(self, **settings):
        for name, value in settings.items():
            setattr(self.emulator, name, value)

    async def do_mark(self):
        """Begin to count anew."""
        self.marked = self.emulator.received
        self.emulator.rejected = 0
        self.emulator.peak_in_flight = self.emulator.in_flight
        self.lag = 0.0

    async def do_stats(self):
        emulator = self.emulator
        return {
            "received": emulator.received - self.marked,
            "rejected": emulator.rejected,
            "in_flight": emulator.in_flight,
            "peak": emulator.peak_in_flight,
            "connections": emulator.connections,
            "lag": self.lag,
            "now": asyncio.get_running_loop().time(),
        }

    async def do_statuses(self):
        return Counter(str(record.status) for record in self._records())

    async def do_log(self):
        return [
            (record.started, record.status, record.request_id, record.disconnected)
            for record in self._records()
        ]

    def _records(self):
        return [r for r in self.emulator.requests if r.index >= self.marked]

    async def do_always(self, fault, share=1.0, **args):
        made = getattr(faults, fault)(**args)
        self.emulator.always(made, when=lambda _: self.random.random() < share)

    async def do_script(self, fault, count=1, **args):
        self.emulator.script(*[getattr(faults, fault)(**args)] * count)

    async def do_outage(self, status):
        self.emulator.outage = status

    async def do_clear(self):
        self.emulator.clear()

    async def do_idle(self, timeout):
        """Wait until nothing is being answered."""
        try:
            await self.emulator.wait_until(lambda: not self.emulator.in_flight, timeout=timeout)
        except TimeoutError:
            return False
        return True

    async def do_down(self):
        """Refuse connections."""
        await self.emulator.close()

    async def do_up(self):
        await self.emulator.start()


def keep_place(emulator):
    """Let it come back at the same place after `down`."""
    emulator._port = int(emulator.base_url.rpartition(":")[2].partition("/")[0])


async def main():
    async with Emulator(**json.loads(sys.argv[1])) as emulator:
        keep_place(emulator)
        control = Control(emulator)
        listener = await asyncio.start_server(control.serve, "127.0.0.1", 0)
        place = listener.sockets[0].getsockname()[1]
        print(json.dumps({"base_url": emulator.base_url, "control": place}), flush=True)  # noqa: T201
        watch = asyncio.create_task(control.watch_lag())
        await control.done.wait()
        watch.cancel()
        listener.close()


if __name__ == "__main__":
    asyncio.run(main())
