"""Simulated nights: batches against a server that fails in every way, killed and resumed.

    python tests/soak/nights.py --seeds 10000 --jobs 2

Each seed is one input of up to a few hundred rows and a server drawn at random, in simulated time:
it goes away, restarts, is overloaded, limits by second, minute or day, hangs, sends half answers,
resets and closes idle connections, puts errors into 200 answers, runs out of credit. The run is
killed at random moments (nothing is written after that; the last line may be torn) and resumed,
until all rows are done. The client, its limits, aiohttp and the batch are the real ones; only the
transport below aiohttp is a buffer, and the clock jumps. Checked for every seed:

- every row is in the output exactly once: answered, or failed if the server refuses that very row;
- no row failed for a cause that passes;
- a call was paid twice at most for what was in flight at the kills;
- each run ended by itself, and an early end names a cause that this server had.

Prints the figures as JSON; exits with 1 if anything is wrong.
"""

import argparse
import asyncio
import errno
import json
import logging
import math
import multiprocessing
import random
import sys
import tempfile
import time
from collections import Counter, deque
from contextlib import suppress
from functools import partial
from pathlib import Path

import aiohttp
from aiohttp.client_proto import ResponseHandler

from konko_async import AsyncKonko
from konko_async.batch import BatchStoppedError, Filesystem, run_batch
from konko_async.testing import run_with_jumping_time

DAY = 86400.0
MOST_RUNS = 60


class Wire(asyncio.Transport):
    """A connection that is a buffer: what is written reaches the server, which answers later."""

    def __init__(self, server, protocol):
        super().__init__()
        self._server, self._protocol = server, protocol
        self._loop = asyncio.get_running_loop()
        self._buffer = b""
        self._closing = False
        self.timers = []
        self.row = None  # whose answer is being made, and will have to be paid
        server.wires.add(self)

    def write(self, data):
        self._buffer += bytes(data)
        while b"\r\n\r\n" in self._buffer and not self._closing:
            head, _, rest = self._buffer.partition(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
            if len(rest) < length:
                return
            self._buffer = rest[length:]
            self._server.receive(self, json.loads(rest[:length]))

    def later(self, delay, function, *args):
        self.timers.append(self._loop.call_later(delay, function, *args))

    def deliver(self, data):
        if not self._closing:
            self._protocol.data_received(data)

    def close(self):
        self.lose(None)

    abort = close

    def lose(self, error):
        """End the connection, from either side."""
        if self._closing:
            return
        self._closing = True
        for timer in self.timers:
            timer.cancel()
        self._server.wires.discard(self)
        self._loop.call_soon(self._protocol.connection_lost, error)

    def is_closing(self):
        return self._closing

    def get_extra_info(self, _name, default=None):
        return default

    def get_write_buffer_size(self):
        return 0

    def set_write_buffer_limits(self, high=None, low=None):
        pass

    def pause_reading(self):
        pass

    def resume_reading(self):
        pass

    def is_reading(self):
        return True


class Connector(aiohttp.BaseConnector):
    """Connects to the simulated server."""

    def __init__(self, server):
        super().__init__(limit=0, keepalive_timeout=3600)
        self._server = server

    async def _create_connection(self, request, _traces, _timeout):
        server = self._server
        await asyncio.sleep(0.001)
        if server.phase == "away":
            refused = OSError(errno.ECONNREFUSED, "Connection refused")
            raise aiohttp.ClientConnectorError(request.connection_key, refused)
        if server.phase == "files":
            raise aiohttp.ClientConnectorError(
                request.connection_key, OSError(errno.EMFILE, "Too many open files")
            )
        if server.phase == "dark":
            await asyncio.sleep(3600)
        protocol = ResponseHandler(asyncio.get_running_loop())
        protocol.connection_made(Wire(server, protocol))
        return protocol


CREDIT = (
    (402, {"message": "Insufficient credits"}),
    (403, {"message": "billing", "code": "billing_not_active"}),
    (429, {"message": "You exceeded your current quota", "code": "insufficient_quota"}),
    (429, {"message": "billing", "type": "billing_hard_limit_reached"}),
)
TROUBLES = (
    "away", "overload", "busy", "reset", "hang", "half", "error200", "throttled", "mute", "dark",
    "files", "credit", "daily", "idle",
)  # fmt: skip


class Server:
    """A server drawn at random, and the phases of its night."""

    def __init__(self, rng, rows, width):
        self.rng = rng
        self.wires = set()
        self.paid = Counter()
        self.phase = "well"
        self.seen = set()  # troubles that the present run has met
        self.latency = rng.choice([0.05, 0.5, 3.0, 20.0])
        self.capacity = rng.choice([3, 8, 20])
        self.rate = rng.choice([0.1, 0.3, 0.5])
        window = rng.choice([1.0, 10.0, 60.0])
        self.window, self.allowed = window, rng.choice([5, 20, 60])
        self.headers = rng.random() < 0.6
        self.credit = rng.choice(CREDIT)
        self.taken = deque()
        self.phases = self._draw(rows * self.latency / width)

    def _draw(self, well):
        """Draw troubles for a run that takes ``well`` seconds without them."""
        phases, at = [], 0.0
        for _ in range(self.rng.randint(1, 5)):
            at += self.rng.uniform(0, max(well / 2, 0.1))
            kind = self.rng.choice(TROUBLES)
            long = kind in {"credit", "daily"} or self.rng.random() < 0.1
            length = self.rng.uniform(700, 7200) if long else self.rng.uniform(1, 200)
            phases.append((at, at + length, kind))
            at += length
        return phases

    async def live(self):
        """Go through the night."""
        now = asyncio.get_running_loop().time
        for begin, end, kind in self.phases:
            await asyncio.sleep(begin - now())
            self.enter(kind)
            await asyncio.sleep(end - now())
            self.enter("well")

    def enter(self, phase):
        self.phase = phase
        self.seen.add(phase)
        if phase in {"away", "idle"}:  # a restart cuts what is under way; "idle" only what is not
            for wire in list(self.wires):
                if phase == "away" or not wire.timers:
                    if wire.row is not None:
                        self.paid[wire.row] -= 1  # the server's own fault
                    wire.lose(ConnectionResetError(errno.ECONNRESET, "reset"))

    def receive(self, wire, body):
        text = body["messages"][-1]["content"]
        row = int(text.split()[1])
        wire.timers.clear()
        answer = getattr(self, f"_{self.phase}", self._well)
        answer(wire, row)

    def _send(self, wire, status, body, *, delay=None, headers="", row=None):
        data = json.dumps(body).encode()
        head = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\n{headers}"
        whole = f"{head}content-length: {len(data)}\r\n\r\n".encode() + data
        delay = self.rng.uniform(0.5, 1.5) * self.latency if delay is None else delay
        if row is not None:
            self.paid[row] += 1
            wire.row = row

        def deliver():
            wire.row = None
            wire.timers.clear()
            wire.deliver(whole)

        wire.later(delay, deliver)

    def _error(self, wire, status, error, headers=""):
        self._send(wire, status, {"error": error}, delay=0.01, headers=headers)

    def _well(self, wire, row):
        if row % 50 == 49:
            self._error(wire, 400, {"message": "this row is refused", "code": "bad_row"})
            return
        choice = {
            "index": 0, "message": {"role": "assistant", "content": f"answer {row}"},
            "finish_reason": "stop",
        }  # fmt: skip
        body = {"id": "c", "object": "chat.completion", "created": 1, "model": "m",
                "choices": [choice], "usage": {"prompt_tokens": 2, "completion_tokens": 1}}  # fmt: skip
        self._send(wire, 200, body, row=row)

    def _overload(self, wire, row):
        if len([w for w in self.wires if w.timers]) >= self.capacity:
            self._error(wire, 503, {"message": "overloaded"})
        else:
            self._well(wire, row)

    def _busy(self, wire, row):
        if self.rng.random() < self.rate:
            self._error(wire, self.rng.choice([500, 502, 503, 529]), {"message": "try again"})
        else:
            self._well(wire, row)

    def _reset(self, wire, row):
        if self.rng.random() < self.rate:
            wire.later(0.02, wire.lose, ConnectionResetError(errno.ECONNRESET, "reset"))
        else:
            self._well(wire, row)

    def _hang(self, wire, row):
        if self.rng.random() < 0.7:  # no answer will ever come
            wire.later(DAY, wire.close)
        else:
            self._well(wire, row)

    _dark = _hang

    def _half(self, wire, row):
        if self.rng.random() < self.rate:
            wire.later(0.05, wire.deliver, b'HTTP/1.1 200 X\r\ncontent-length: 500\r\n\r\n{"id"')
            wire.later(0.1, wire.lose, None)
        else:
            self._well(wire, row)

    def _error200(self, wire, row):
        if self.rng.random() < self.rate:
            self._send(wire, 200, {"error": {"message": "upstream", "code": 502}}, delay=0.05)
        else:
            self._well(wire, row)

    def _throttled(self, wire, row):
        now = asyncio.get_running_loop().time()
        while self.taken and self.taken[0] <= now - self.window:
            self.taken.popleft()
        if len(self.taken) < self.allowed:
            self.taken.append(now)
            self._well(wire, row)
            return
        wait = self.taken[0] + self.window - now
        header = f"retry-after: {math.ceil(wait)}\r\n" if self.headers else ""
        self._error(wire, 429, {"message": "too many requests", "code": "rate_limited"}, header)

    def _mute(self, wire, _row):
        self._error(wire, 429, {"message": "slow down"}, "retry-after: 0\r\n")

    def _credit(self, wire, _row):
        self._error(wire, *self.credit)

    def _daily(self, wire, _row):
        header = "retry-after: 30000\r\n" if self.headers else ""
        message = "Rate limit reached: requests per day (RPD)"
        self._error(wire, 429, {"message": message, "type": "requests"}, header)


class Killable(Filesystem):
    """Writes until the process is killed; the disk is memory as far as tests go."""

    def __init__(self):
        self.dead = False

    def write(self, descriptor, data):
        if self.dead:
            raise OSError(errno.EIO, "killed")
        return super().write(descriptor, data)

    def fsync(self, descriptor):  # noqa: ARG002 - what is in memory is on the disk here
        if self.dead:
            raise OSError(errno.EIO, "killed")

    def truncate(self, descriptor, size):
        if not self.dead:
            super().truncate(descriptor, size)

    def replace(self, source, target):
        if not self.dead:
            Path(source).replace(target)

    def sync_directory(self, path):
        pass


# What the troubles of a server may truly be called by a run that ends early.
CAUSES = {
    "out_of_credit": {"credit"},
    "daily_limit": {"daily"},
    "outage": set(TROUBLES) - {"idle"},
}


class Night:
    """One seed."""

    def __init__(self, seed, folder, most):
        self.rng = random.Random(seed)
        random.seed(seed)
        self.rows = self.rng.choice([rows for rows in (20, 50, 120, 300) if rows <= most])
        self.width = self.rng.choice([1, 4, 16, 64])
        self.server = Server(self.rng, self.rows, self.width)
        self.kills = self.rng.choice([0, 0, 1, 3])
        self.source, self.output = Path(folder, "in.jsonl"), Path(folder, "out.jsonl")
        self.problems = []
        self.figures = Counter()

    def write_input(self):
        with self.source.open("w") as file:
            for row in range(self.rows):
                body = {"model": "m", "messages": [{"role": "user", "content": f"row {row}"}]}
                line = {"custom_id": f"id-{row}", "method": "POST",
                        "url": "/v1/chat/completions", "body": body}  # fmt: skip
                file.write(json.dumps(line) + "\n")

    async def run(self):
        self.write_input()
        living = asyncio.create_task(self.server.live())
        try:
            for _ in range(MOST_RUNS):
                self.figures["runs"] += 1
                if await self.one_run():
                    break
            else:
                self.problems.append(f"not done after {MOST_RUNS} runs")
        finally:
            living.cancel()
            await asyncio.wait([living])
        self.figures["simulated_seconds"] += int(asyncio.get_running_loop().time())
        self.check()

    async def one_run(self):
        """Run once; whether all rows are done."""
        files = Killable()
        self.server.seen = {self.server.phase}
        async with aiohttp.ClientSession(connector=Connector(self.server)) as session:
            client = AsyncKonko("key", "http://127.0.0.1/v1", session=session)
            work = asyncio.ensure_future(
                run_batch(
                    client, self.source, self.output, max_concurrency=self.width, prices={},
                    files=files, checkpoint_rows=self.rng.choice([7, 40, 1000]),
                    shuffle=self.rng.random() < 0.2, progress_interval=600,
                    on_notice=lambda _text: None, max_failures_in_a_row=None,
                )
            )  # fmt: skip
            kill = self.kills > 0
            moment = self.rng.expovariate(1 / 10) if kill else 7 * DAY
            done, _ = await asyncio.wait([work], timeout=moment)
            if not done:
                files.dead = True
                work.cancel()
                await asyncio.wait([work])
                await asyncio.sleep(0.01)
                if not kill:
                    self.problems.append("a run did not end by itself")
                    return True
                self.kills -= 1
                self.figures["kills"] += 1
                self.tear()
                return False
            return self.ended(work)

    def tear(self):
        """Leave half a line behind, as a kill in the middle of a write does."""
        if self.output.exists() and self.rng.random() < 0.3:
            with self.output.open("ab") as file:
                file.write(b'{"id":"batch_req_0123')
            self.figures["torn_lines"] += 1

    def ended(self, work):
        error = work.exception()
        if error is None:
            return work.result().left == 0
        if not isinstance(error, BatchStoppedError):
            self.problems.append(f"{type(error).__name__}: {error}")
            return True
        self.figures[f"ended_{error.reason}"] += 1
        if not self.server.seen & CAUSES.get(error.reason, set()):
            self.problems.append(f"ended by {error.reason}, which did not happen: {error.message}")
        if error.report.done + error.report.left != self.rows:
            self.problems.append("the report does not account for every row")
        # The user mends the cause, or waits for it to pass.
        if self.server.phase in {"credit", "daily"}:
            self.server.enter("well")
        return False

    def check(self):
        seen, failed = Counter(), Counter()
        for line in self.output.read_bytes().splitlines():
            entry = json.loads(line)
            row = int(entry["custom_id"].removeprefix("id-"))
            seen[row] += 1
            if entry["error"] is not None:
                failed[entry["error"]["code"]] += 1
                if row % 50 != 49:
                    self.problems.append(f"row {row} failed: {entry['error']}")
            elif entry["response"]["body"]["choices"][0]["message"]["content"] != f"answer {row}":
                self.problems.append(f"row {row} has the answer of another")
        if len(seen) != self.rows or set(seen.values()) != {1}:
            self.problems.append(
                f"{len(seen)} of {self.rows} rows, some {max(seen.values())} times"
            )
        again = sum(count - 1 for count in self.server.paid.values())
        if again > self.figures["kills"] * self.width:
            self.problems.append(f"{again} calls paid twice, {self.figures['kills']} kills")
        self.figures["rows"] += self.rows
        self.figures["failed"] += sum(failed.values())
        self.figures["paid_twice"] += again


def one(seed, most=300):
    """Run one seed of at most so many rows; returns its figures and problems."""
    logging.disable(logging.CRITICAL)
    base = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108 - a folder of its own in it
    with tempfile.TemporaryDirectory(dir=base) as folder:
        night = Night(seed, folder, most)
        try:
            run_with_jumping_time(night.run())
        except Exception as error:
            night.problems.append(f"{type(error).__name__}: {error}")
        return seed, night.figures, night.problems


def main(arguments):
    began = time.monotonic()
    seeds = range(arguments.first, arguments.first + arguments.seeds)
    total, problems = Counter(), []
    with multiprocessing.get_context("fork").Pool(arguments.jobs) as pool:
        for seed, figures, found in pool.imap_unordered(
            partial(one, most=arguments.rows), seeds, chunksize=4
        ):
            total.update(figures)
            problems += [f"seed {seed}: {problem}" for problem in found]
    found = {
        "seeds": arguments.seeds, **dict(sorted(total.items())),
        "seconds": round(time.monotonic() - began, 1), "problems": problems[:50],
        "problem_count": len(problems),
    }  # fmt: skip
    print(json.dumps(found))  # noqa: T201 - the result
    return 1 if problems else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--seeds", type=int, default=300)
    parser.add_argument("--rows", type=int, default=300, help="at most, in one seed")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    with suppress(KeyboardInterrupt):
        sys.exit(main(parser.parse_args()))
