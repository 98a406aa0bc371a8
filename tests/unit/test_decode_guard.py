"""What the hot paths cost, by counting: a change that makes one of them dearer fails here.

Counted are the calls that our code makes (Python and C functions), the bytecode instructions that
it executes, and the memory blocks that are held; each per chunk, call or permit, from the
difference of a long run and a short one, so that opening and learning do not count. The client
and aiohttp run as they are, on pipes in memory: the same number comes out twice, on any machine.

After an improvement, or where more is meant to be paid, print the table anew with each Python:

    python tests/unit/test_decode_guard.py --measure           # prints it
    python tests/unit/test_decode_guard.py --measure --write   # puts it into this file
"""

import asyncio
import collections
import gc
import json
import os
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
from pipe_loop import run_on_pipes

import konko_async
from konko_async import AsyncKonko, RateLimit, Timeout
from konko_async._streaming.stream import Stream, _TextIterator
from konko_async.limits import Limiter
from konko_async.middleware._retry import _keys

VERSION = "{}.{}".format(*sys.version_info)
OURS = str(Path(konko_async.__file__).parent) + os.sep
TESTING = OURS + "testing" + os.sep  # the loop on which all this runs is not what is measured
MODEL = "codellama/codellama-13b-instruct"
ASK = {"model": MODEL, "messages": [{"role": "user", "content": "Say hello."}]}
BURST = 20  # events in one read
SHORT, LONG = 10, 30  # reads (or calls) of the two runs

# Calls, instructions and blocks held, measured; per chunk unless the name says otherwise. Of the
# paced chunks the higher count: it is ten instructions less where nothing ran before.
MEASURED = {
    "3.11": {
        "burst, typed chunks": (5.20, 89.60, 7.95),
        "burst, chunks dropped": (5.20, 89.60, 0.00),
        "burst, text()": (3.80, 53.05, 0.95),
        "burst, read()": (2.35, 34.80, 0.95),
        "burst, completion()": (1.95, 30.35, 0.00),
        "burst, chunks that differ": (17.55, 447.40, 14.95),
        "paced, typed chunks": (32.00, 434.00, 7.03),
        "paced, text()": (30.00, 366.00, 0.04),
        "slow: CRLF": (16.85, 261.95, 11.95),
        "slow: no space after data:": (16.55, 257.65, 11.95),
        "whole answer, per call": (166.00, 2797.00, 0.00),
        "stream opened and read, per call": (311.00, 5276.00, 0.00),
        "limits, per free permit": (17.00, 476.00, 0.00),
    },
    "3.12": {
        "burst, typed chunks": (5.15, 79.85, 7.95),
        "burst, chunks dropped": (5.15, 79.85, 0.00),
        "burst, text()": (3.75, 47.75, 0.95),
        "burst, read()": (2.30, 31.25, 0.95),
        "burst, completion()": (1.90, 27.10, 0.00),
        "burst, chunks that differ": (17.50, 444.10, 14.95),
        "paced, typed chunks": (32.00, 395.00, 7.07),
        "paced, text()": (30.00, 332.00, 0.04),
        "slow: CRLF": (16.85, 246.80, 11.95),
        "slow: no space after data:": (16.54, 242.85, 11.95),
        "whole answer, per call": (166.00, 2612.00, 0.00),
        "stream opened and read, per call": (307.00, 4979.00, 0.00),
        "limits, per free permit": (17.00, 454.00, 0.00),
    },
    "3.13": {
        "burst, typed chunks": (5.15, 76.35, 7.95),
        "burst, chunks dropped": (5.15, 76.35, 0.00),
        "burst, text()": (3.75, 48.50, 0.95),
        "burst, read()": (2.30, 29.95, 0.95),
        "burst, completion()": (1.90, 25.90, 0.00),
        "burst, chunks that differ": (17.50, 456.75, 14.95),
        "paced, typed chunks": (32.00, 406.00, 6.99),
        "paced, text()": (30.00, 350.00, 0.00),
        "slow: CRLF": (16.85, 259.05, 11.95),
        "slow: no space after data:": (16.54, 255.10, 11.95),
        "whole answer, per call": (166.00, 2555.00, 0.00),
        "stream opened and read, per call": (306.00, 4993.00, 0.00),
        "limits, per free permit": (17.00, 430.00, 0.00),
    },
}  # fmt: skip
# A share of the number, and at least so much; well below the cost of one more call per chunk.
ALLOWED_SHARE = 0.02
ALLOWED = {"calls": 0.04, "instructions": 0.5, "blocks": 0.2}
KINDS = tuple(ALLOWED)


pytestmark = pytest.mark.skipif(VERSION not in MEASURED, reason=f"not measured on {VERSION}")


# -- the server: bytes as given, each write read by itself -----------------------------------------


class Script(asyncio.Protocol):
    """Answers each request with the same writes, one at a time."""

    def __init__(self, writes):
        self._writes = writes
        self._request = b""
        self._task = None

    def connection_made(self, transport):
        self._transport = transport

    def data_received(self, data):
        self._request += data
        head, found, body = self._request.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0] or 0)
        if found and len(body) >= length:
            self._request = b""
            self._task = asyncio.get_running_loop().create_task(self._answer())

    async def _answer(self):
        for data in self._writes:
            # Time passes only when nobody has anything to do: the last write has been dealt with.
            await asyncio.sleep(0.001)
            self._transport.write(data)


def event(text, **more):
    choice = {"index": 0, "delta": {"content": text}, "logprobs": None, "finish_reason": None}
    chunk = {
        "id": "chatcmpl-9dJ2kQ", "object": "chat.completion.chunk", "created": 1726000000,
        "model": MODEL, "system_fingerprint": "fp_1a2b3c", "choices": [choice], **more,
    }  # fmt: skip
    return b"data: %b\n\n" % json.dumps(chunk, separators=(",", ":")).encode()


END = event("", choices=[{"index": 0, "delta": {}, "finish_reason": "stop"}]) + b"data: [DONE]\n\n"
STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def framed(*bodies):
    return [b"%x\r\n%b\r\n" % (len(body), body) for body in bodies]


def reads(number, each, edit=lambda data: data, **more):
    """The writes of a stream: one read for the first chunk, then so many of ``each`` events."""
    texts = [f" word{place}" for place in range(number * each)]
    groups = [texts[place * each :][:each] for place in range(number)]
    bodies = [b"".join(event(text, **more) for text in group) for group in groups]
    first = event("Hello", **more)
    return [STREAM, *framed(*map(edit, (first, first, *bodies, END))), b"0\r\n\r\n"]


# -- the paths: each does `number` times what is counted, and returns what is kept ------------------


async def stream(writes, consume):
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Script(writes))
    base_url = f"http://127.0.0.1:{server.getsockname()[1]}/v1"
    async with (
        AsyncKonko("sk-test-0123456789", base_url) as client,
        client.chat.completions.stream(**ASK) as opened,
    ):
        kept = await consume(opened)
    server.close()
    return kept


async def keep_chunks(opened):
    return [chunk async for chunk in opened]


async def drop_chunks(opened):
    async for _ in opened:
        pass


async def keep_texts(opened):
    return [text async for text in opened.text()]


async def keep_batches(opened):
    kept = []
    while (batch := await opened.read()) is not None:
        kept += batch.chunks() if batch.shape is None else batch.strings
    return kept


async def whole(opened):
    return await opened.completion()


def streamed(consume, each=BURST, edit=lambda data: data, **more):
    def run(number):
        return stream(reads(number, each, edit, **more), consume), number * each

    return run


def crlf(data):
    return data.replace(b"\n", b"\r\n")


def no_space(data):
    return data.replace(b"data: ", b"data:")


def answers(number):
    """Whole answers with everything on: retry, breaker, deadlines, both limits, an observer."""
    message = {"role": "assistant", "content": "Hello there."}
    body = json.dumps(
        {
            "id": "chatcmpl-9dJ2kQ", "object": "chat.completion", "created": 1726000000,
            "model": MODEL, "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12},
        }
    ).encode()  # fmt: skip
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    return ask([head % len(body) + body], number, stream=False), number


def opened(number):
    """Streams of one read, from the call to the end of the answer."""
    writes = [STREAM + framed(event("Hello") + END)[0] + b"0\r\n\r\n"]
    return ask(writes, number, stream=True), number


async def ask(writes, number, *, stream):
    _keys.forget()  # many are drawn at once: the first call of each run does it
    server = await asyncio.get_running_loop().create_server(lambda: Script(writes))
    base_url = f"http://127.0.0.1:{server.getsockname()[1]}/v1"
    limit = RateLimit(requests_per_minute=10**6, tokens_per_minute=10**9, max_concurrency=100)
    options = {"rate_limit": limit, "timeout": Timeout(total=60), "observers": [lambda _: None]}
    async with AsyncKonko("sk-test-0123456789", base_url, **options) as client:
        for _ in range(number):
            answer = await client.chat.completions.create(**ASK, stream=stream)
            if stream:
                await answer.completion()
    server.close()


async def admit(number):
    limit = RateLimit(requests_per_minute=10**6, tokens_per_minute=10**9, max_concurrency=100)
    lane = Limiter(limit).lane("model", "key")
    for _ in range(number):
        permit = lane.try_admit(100)
        permit.settle(90)
        permit.release(latency=0.1)


def permits(number):
    return admit(number), number


PATHS = {
    "burst, typed chunks": streamed(keep_chunks),
    "burst, chunks dropped": streamed(drop_chunks),
    "burst, text()": streamed(keep_texts),
    "burst, read()": streamed(keep_batches),
    "burst, completion()": streamed(whole),
    "burst, chunks that differ": streamed(keep_chunks, usage=None, choices=[
        {"index": 0, "delta": {"content": "a"}}, {"index": 1, "delta": {"content": "b"}}]),
    "paced, typed chunks": streamed(keep_chunks, each=1),
    "paced, text()": streamed(keep_texts, each=1),
    "slow: CRLF": streamed(keep_chunks, edit=crlf),
    "slow: no space after data:": streamed(keep_chunks, edit=no_space),
    "whole answer, per call": answers,
    "stream opened and read, per call": opened,
    "limits, per free permit": permits,
}  # fmt: skip


# -- counting ----------------------------------------------------------------------------------------


@dataclass
class Cost:
    """What one unit of a path costs."""

    calls: float = 0.0
    instructions: float = 0.0
    blocks: float = 0.0
    by_function: dict = field(default_factory=dict)


class Ours(dict):
    """Which code is ours; looked up once for each."""

    def __missing__(self, code):
        place = code.co_filename
        self[code] = place.startswith(OURS) and not place.startswith(TESTING)
        return self[code]


def count_calls(coro):
    """Count the calls of our functions and those that they make, by our function."""
    found, ours = collections.Counter(), Ours()

    def profile(frame, kind, _):
        if kind == "call":
            if ours[frame.f_code]:
                found[frame.f_code.co_qualname] += 1
            elif frame.f_back is not None and ours[frame.f_back.f_code]:
                found[frame.f_back.f_code.co_qualname] += 1
        elif kind == "c_call" and ours[frame.f_code]:
            found[frame.f_code.co_qualname] += 1

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        run_on_pipes(coro)
    finally:
        sys.setprofile(before)
    return found


def count_instructions(coro):
    """Count the bytecode instructions that our functions execute, by function."""
    if sys.version_info >= (3, 12):
        return _monitored(coro)
    found, ours = collections.Counter(), Ours()

    def step(frame, kind, _):
        if kind == "opcode":
            found[frame.f_code.co_qualname] += 1
        return step

    def enter(frame, kind, _):
        if not ours[frame.f_code]:
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        return step

    before = sys.gettrace()
    sys.settrace(enter)
    try:
        run_on_pipes(coro)
    finally:
        sys.settrace(before)
    return found


def _monitored(coro):
    monitoring = sys.monitoring
    tool = next(number for number in (5, 4, 3) if monitoring.get_tool(number) is None)
    found, ours = collections.Counter(), Ours()
    every = monitoring.events.INSTRUCTION

    def step(code, _):
        if not ours[code]:
            return monitoring.DISABLE
        found[code.co_qualname] += 1
        return None

    monitoring.use_tool_id(tool, "decode guard")
    monitoring.register_callback(tool, every, step)
    monitoring.set_events(tool, every)
    try:
        run_on_pipes(coro)
    finally:
        monitoring.set_events(tool, 0)
        monitoring.register_callback(tool, every, None)
        monitoring.free_tool_id(tool)
    return found


def count_blocks(coro):
    """Count the memory blocks that exist more while what a path returns is held."""

    async def measure():
        gc.collect()
        before = sys.getallocatedblocks()
        kept = await coro
        gc.collect()
        after = sys.getallocatedblocks()
        del kept
        return after - before

    return run_on_pipes(measure())


def per_unit(path, count, longer=1):
    """Return by function what one unit costs: the long run less the short one."""
    (short, few), (long, many) = (PATHS[path](number * longer) for number in (SHORT, LONG))
    # Idempotency keys are drawn for many calls at once: each run begins with a draw.
    _keys.forget()
    less = count(short)
    _keys.forget()
    more = count(long)
    return {name: (more[name] - less[name]) / (many - few) for name in more}


def cost_of(path):
    gc.collect()
    gc.disable()  # its finalisers would be counted wherever it happens to run
    try:
        # What is made once (caches, lazy imports, specialised code) is made before.
        run_on_pipes(PATHS[path](SHORT)[0])
        calls, instructions = per_unit(path, count_calls), per_unit(path, count_instructions)
        # The interpreter's own free lists come and go by a few blocks.
        held = per_unit(path, lambda coro: {"": count_blocks(coro)}, longer=5)
    finally:
        gc.enable()
    by_function = {name: (calls.get(name, 0), value) for name, value in instructions.items()}
    return Cost(sum(calls.values()), sum(instructions.values()), held[""], by_function)


def _weight(item):
    _, (calls, instructions) = item
    return 20 * calls + instructions


def growth(path, cost, measured):
    """Say what has grown beyond its allowance; None if nothing has."""
    grown = []
    for kind, known in zip(KINDS, measured, strict=True):
        now, limit = getattr(cost, kind), known + max(known * ALLOWED_SHARE, ALLOWED[kind])
        if now > limit:
            grown.append(f"{kind} {now:.2f}, were {known:.2f} (up to {limit:.2f} is let pass)")
    if not grown:
        return None
    functions = sorted(cost.by_function.items(), key=_weight, reverse=True)[:16]
    lines = [f"{calls:8.2f} {steps:9.2f}  {name}" for name, (calls, steps) in functions if steps]
    return "\n".join(
        [f"{path} costs more, per unit: {'; '.join(grown)}", "   calls  instruct.  now in", *lines]
    )


# -- the tests -------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PATHS)
def test_a_path_costs_no_more_than_it_did(path):
    # What grew shows each time; the blocks that the interpreter holds for other tests of this
    # process do not.
    for _ in range(3):
        problem = growth(path, cost_of(path), MEASURED[VERSION][path])
        if problem is None:
            break
    assert problem is None, problem


def test_the_same_number_comes_out_twice():
    for path in ("burst, typed chunks", "whole answer, per call"):
        first, second = cost_of(path), cost_of(path)
        assert (first.calls, first.by_function) == (second.calls, second.by_function)
        assert first.instructions == second.instructions


# Written into our package's folder, as far as the counting sees.
SLOWED = """
def pause(): pass
async def iterate(self):
    pause()
    return await original(self)
async def read(self):
    for _ in range(20): pause()
    return await original(self)
async def wrap(self):
    return [await original(self), object()]
"""


def slow_down(monkeypatch, owner, method, slowed):
    space = {"original": getattr(owner, method)}
    exec(compile(SLOWED, OURS + "slowed.py", "exec"), space)  # noqa: S102 - the text above
    monkeypatch.setattr(owner, method, space[slowed])


@pytest.mark.parametrize(
    ("path", "owner", "method", "slowed"),
    [
        ("burst, typed chunks", Stream, "__anext__", "iterate"),
        ("paced, typed chunks", Stream, "__anext__", "iterate"),
        ("burst, text()", _TextIterator, "__anext__", "iterate"),
        ("burst, read()", Stream, "read", "read"),
        ("slow: CRLF", Stream, "__anext__", "iterate"),
    ],
)
def test_one_more_call_per_chunk_is_caught(monkeypatch, path, owner, method, slowed):
    before = cost_of(path)  # not MEASURED: what aiohttp itself costs differs between its releases
    slow_down(monkeypatch, owner, method, slowed)
    problem = growth(path, cost_of(path), [getattr(before, kind) for kind in KINDS])
    assert problem.startswith(f"{path} costs more, per unit: calls ")
    assert "instructions" in problem
    assert "pause" in problem


def test_more_memory_per_chunk_is_caught(monkeypatch):
    slow_down(monkeypatch, Stream, "__anext__", "wrap")
    path = "burst, typed chunks"
    assert "blocks" in growth(path, cost_of(path), MEASURED[VERSION][path])


def test_what_got_cheaper_passes():
    path = "burst, typed chunks"
    assert growth(path, Cost(), MEASURED[VERSION][path]) is None


def table():
    """Measure all paths; the part of the table that is this Python's."""
    lines = [f'    "{VERSION}": {{']
    for path in PATHS:
        cost = cost_of(path)
        numbers = ", ".join(f"{max(getattr(cost, kind), 0):.2f}" for kind in KINDS)
        lines.append(f'        "{path}": ({numbers}),')
    return "\n".join([*lines, "    },\n"])


def main():
    if sys.argv[1:] not in (["--measure"], ["--measure", "--write"]):
        sys.exit("usage: test_decode_guard.py --measure [--write]")
    found = table()
    sys.stdout.write(found)
    if "--write" in sys.argv:
        text = Path(__file__).read_text()
        part = re.compile(
            rf'    "{re.escape(VERSION)}": {{\n.*?^    }},\n', re.DOTALL | re.MULTILINE
        )
        assert part.search(text), f"MEASURED has no part for Python {VERSION}"
        Path(__file__).write_text(part.sub(lambda _: found, text, count=1))


if __name__ == "__main__":
    main()
