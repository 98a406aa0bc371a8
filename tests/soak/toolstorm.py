"""Conversations with tools, drawn from a seed, by models and tools that do everything wrong.

    python tests/soak/toolstorm.py --runs 100000

The models cut their calls, repeat ids, invent tools, encode arguments twice, call in parallel; the
tools raise, exit, hang, yield without end, return anything. The runs go through run_tools(), the
real decoders and encoders and a transport in this process, and each request is checked as the
strictest servers check it. The exit code is 1 if a call was made that was not meant, one that was
meant was not made, a request would have been refused, or anything is left behind.
"""

# ruff: noqa: T201 - it prints its figures

import argparse
import asyncio
import dataclasses
import itertools
import json
import random
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import msgspec

from konko_async import AsyncKonko, Tool, ToolFailedError
from konko_async._http.session import OpenResponse
from konko_async.testing._emulator.errors import ApiError
from konko_async.testing._emulator.strict_history import check_history

MODEL = "m"
MAX_OUTPUT = 2000
# Finish reasons of answers that are whole, and of those that are not. None: the server sends none.
WHOLE = ["tool_calls", "tool_calls", "stop", "STOP", "function_call", "tool_use", "eos"]
CUT = ["length", "content_filter", "max_tokens", "model_length", "SAFETY", "recitation"]


# -- tools -----------------------------------------------------------------------------------------


class Point(msgspec.Struct):
    x: int
    label: str = "a"


@dataclasses.dataclass
class Size:
    width: int


class OddError(Exception):
    """An exception whose text cannot be had."""

    def __str__(self):
        raise SystemExit(3)


class Exits:
    """A value whose own code ends the process when it is written as JSON."""

    def model_dump(self, mode):
        sys.exit(mode)


def cycle():
    values = []
    values.append(values)
    return values


RAISED = [
    lambda: SystemExit(1), KeyboardInterrupt, StopIteration, StopAsyncIteration, GeneratorExit,
    asyncio.CancelledError, lambda: ValueError("x" * 5000), lambda: KeyError("\ud800"), OddError,
    MemoryError, RecursionError, lambda: TimeoutError("own"), BaseException,
    lambda: ExceptionGroup("g", [ValueError()]),
]  # fmt: skip


def raised(kind):
    return RAISED[kind % len(RAISED)]()


RETURNED = [
    lambda: None, lambda: "text", lambda: "caf\udce9", lambda: ["\ud83d", {"\ud83d": 1}],
    lambda: "x" * 10_000, lambda: ["x" * 100] * 1000, lambda: float("nan"), lambda: b"\xff",
    lambda: Path("a\udce9"), lambda: Point(1), lambda: Size(2), lambda: {1: 2, "a": {3}},
    lambda: iter([1, 2]), lambda: (str(n) for n in range(3)), itertools.count,
    lambda: itertools.repeat("y" * 1500), lambda: range(10**12), object, cycle,
    lambda: ValueError("returned"), lambda: {"a": iter("ab")}, Exits, lambda: int, lambda: 2**80,
    lambda: {(1, 2): 3}, lambda: msgspec.Raw(b"\nnot json"),
]  # fmt: skip


class Recorder:
    """The tools; what was called in this run, and with what."""

    def __init__(self):
        self.reset()
        functions = [
            self.add, self.clock, self.remove, self.place, self.fail, self.fail_later, self.give,
            self.give_later, self.stream,
        ]  # fmt: skip
        tools = [  # made once: their schemas are most of the work
            *map(Tool, functions), Tool(self.hang, timeout=0.003),
            Tool(self.block, timeout=0.003, run_in_thread=True), Tool(self.raw, parameters=RAW),
        ]  # fmt: skip
        self.tools = {tool.name: tool for tool in tools}

    def reset(self):
        self.calls = []
        self.release = threading.Event()

    def add(self, a: int, b: int = 1) -> int:
        self.calls.append(("add", {"a": a, "b": b}))
        return a + b

    def clock(self) -> str:
        self.calls.append(("clock", {}))
        return "12:00"

    async def remove(self, folder: str = "/", recursive: bool = True) -> str:
        self.calls.append(("remove", {"folder": folder, "recursive": recursive}))
        return "removed"

    def place(self, points: list[Point], size: Size | None = None) -> list[Point]:
        self.calls.append(("place", {"points": points, "size": size}))
        return points

    def fail(self, kind: int) -> None:
        self.calls.append(("fail", {"kind": kind}))
        raise raised(kind)

    async def fail_later(self, kind: int) -> None:
        self.calls.append(("fail_later", {"kind": kind}))
        await asyncio.sleep(0)
        raise raised(kind)

    def give(self, kind: int) -> object:
        self.calls.append(("give", {"kind": kind}))
        return RETURNED[kind % len(RETURNED)]()

    async def give_later(self, kind: int) -> object:
        self.calls.append(("give_later", {"kind": kind}))
        return RETURNED[kind % len(RETURNED)]()

    async def stream(self, kind: int):
        self.calls.append(("stream", {"kind": kind}))
        if kind % 3 == 0:
            raise raised(kind) if kind % 2 else ValueError("in a generator")
        for number in itertools.count() if kind % 3 == 1 else range(3):
            yield f"part {number} \ud83d"

    async def hang(self) -> None:
        self.calls.append(("hang", {}))
        await asyncio.Event().wait()

    def block(self) -> None:
        self.calls.append(("block", {}))
        self.release.wait(60)

    def raw(self, **arguments: object) -> str:
        self.calls.append(("raw", arguments))
        return "raw"


RAW = {"type": "object", "properties": {"q": {"type": "string"}}, "required": ["q"]}

# For each tool: arguments that may be meant, as JSON has them, and as the function gets them.
MEANT = {
    "add": [
        ({"a": 1}, {"a": 1, "b": 1}), ({"a": 2.0, "b": 3.0}, {"a": 2, "b": 3}),
        ({"a": 5, "b": None}, {"a": 5, "b": 1}),
    ],
    "clock": [({}, {})],
    "remove": [
        ({"folder": "maps/é"}, {"folder": "maps/é", "recursive": True}),
        ({"folder": "a\nb", "recursive": False}, {"folder": "a\nb", "recursive": False}),
        ({"recursive": None}, {"folder": "/", "recursive": True}),
    ],
    "place": [
        ({"points": [{"x": 1.0, "label": None}]}, {"points": [Point(1)], "size": None}),
        ({"points": [], "size": {"width": 2.0}}, {"points": [], "size": Size(2)}),
    ],
    "raw": [({"q": "x", "more": [1]}, {"q": "x", "more": [1]})],
    "hang": [({}, {})],
    "block": [({}, {})],
    **{
        name: [({"kind": kind}, {"kind": kind}) for kind in range(40)]
        for name in ("fail", "fail_later", "give", "give_later", "stream")
    },
}  # fmt: skip
NAMES = list(MEANT)
# Hanging takes real time: few do.
WEIGHTS = [0.04 if name in {"hang", "block"} else 1.0 for name in NAMES]
NEEDS_NOTHING = {"clock", "remove", "hang", "block"}
UNFIT = {
    "add": ['{"a": "x"}', '{"b": 1}', '{"a": 1.5}', '{"a": 1, "c": 2}', '{"a": null}'],
    "remove": ['{"folder": 1}', '{"path": "x"}'],
    "place": ['{"points": {}}', '{"points": [{"x": "1"}]}'],
}
NO_OBJECT = ["[1]", "5", "true", '"text"', "{'a': 1}", "{a: 1}", "nonsense", "{", "}", '{"a": 1} x']


# -- models ----------------------------------------------------------------------------------------


class Round:
    """One answer of a model, and which calls of it were meant."""

    def __init__(self, rng, names, streaming):
        self.calls, self.meant, self.names, self.streaming = [], [], names, streaming
        self.cut = rng.random() < 0.15
        if self.cut:
            self.finish = rng.choice(CUT)
        else:
            self.finish = rng.choice([*WHOLE, None])
        ids = rng.choice([
            lambda n: f"call_{n}", lambda n: f"call_{n}", lambda n: f"é {n}" * 20, lambda _: "",
            # In a stream, pieces with one id are those of one call, whatever their index.
            (lambda n: f"call_{n}") if streaming else (lambda _: "same"),
        ])  # fmt: skip
        for number in range(rng.choice([1, 1, 1, 2, 3, 5])):
            name, text, meant = self.call(rng)
            self.calls.append({
                "id": ids(number), "type": "function",
                "function": {"name": name, "arguments": text}, "extra": {"signature": "s"},
            })  # fmt: skip
            if meant is not None and not self.cut:
                self.meant.append((name, meant))

    def call(self, rng):
        name = rng.choice(self.names)
        value, meant = rng.choice(MEANT[name])
        text = json.dumps(value, ensure_ascii=rng.random() < 0.5)
        kind = rng.random()
        if kind < 0.5:
            return name, text, meant
        if kind < 0.6:
            return name, text[: rng.randrange(1, len(text))], None
        if kind < 0.7:
            nothing = rng.choice(["", " ", "\n\t", "null", " null "])
            fits = name in NEEDS_NOTHING and self.finish is not None
            defaults = {"folder": "/", "recursive": True} if name == "remove" else {}
            return name, nothing, defaults if fits else None
        if kind < 0.93:
            unfit = UNFIT.get(name, ["[]"])
            return name, rng.choice([json.dumps(text), *NO_OBJECT, *unfit]), None
        # Nothing tells a call without id and name from more of the one before, in a stream.
        invented = ["nosuch", "functions.add", "größe", "a" * 100, "?" if self.streaming else ""]
        return rng.choice(invented), text, None


def whole(message, finish):
    choice = {"index": 0, "message": message, "finish_reason": finish}
    body = {"id": "c", "object": "chat.completion", "created": 1, "model": MODEL}
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    return [json.dumps({**body, "choices": [choice], "usage": usage}).encode()]


def streamed(rng, message, finish):
    """The same as events, its calls in pieces, in reads that end anywhere."""
    deltas = [{name: value for name, value in message.items() if name != "tool_calls"}]
    for index, call in enumerate(message.get("tool_calls", ())):
        function, text = call["function"], call["function"]["arguments"]
        cut = rng.randrange(len(text) + 1)
        head = {"index": index, **call, "function": {**function, "arguments": text[:cut]}}
        rest = {"index": index, "function": {"arguments": text[cut:]}}
        deltas += [{"tool_calls": [head]}, {"tool_calls": [rest]}]
    head = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": MODEL}
    events = [
        {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
        for delta in deltas
    ]
    events.append({**head, "choices": [{"index": 0, "delta": {}, "finish_reason": finish}]})
    data = b"".join(b"data: %b\n\n" % json.dumps(event).encode() for event in events)
    data += b"data: [DONE]\n\n"
    place, reads = 0, []
    while place < len(data):
        size = rng.randrange(1, 400)
        reads.append(data[place : place + size])
        place += size
    return reads


class Body:
    """A body that has arrived, in the parts in which it is read."""

    def __init__(self, parts):
        self.parts = list(parts)
        self.total_bytes = sum(map(len, parts))

    async def readany(self):
        return self.parts.pop(0) if self.parts else b""

    def read_nowait(self):
        data, self.parts = b"".join(self.parts), []
        return data

    def at_eof(self):
        return not self.parts

    def is_eof(self):
        return True

    def exception(self):
        return None

    def set_exception(self, _):
        self.parts = []


class Head:
    code, headers = 200, {"x-request-id": "r"}


class Held:
    """A connection that there is not."""

    def release(self):
        pass

    def close(self):
        pass

    transport = protocol = None


class InProcessAnswer(OpenResponse):
    __slots__ = ()

    def abort(self):
        self._held.close()


class Model:
    """A model of one conversation: some rounds of calls, then text."""

    def __init__(self, rng, streaming):
        self.rng = rng
        self.names = sorted(set(rng.choices(NAMES, WEIGHTS, k=4)))
        self.rounds = [Round(rng, self.names, streaming) for _ in range(rng.choice([1, 1, 2, 3]))]
        self.asked = 0
        self.refused = None

    def answer(self, body, *, stream):
        """Return the answer to one request, in the parts in which it is read."""
        try:
            check_history(json.loads(body)["messages"])
        except (ApiError, ValueError) as error:
            self.refused = f"{error}: {body[:2000]!r}"
        rng, number = self.rng, self.asked
        self.asked += 1
        if number < len(self.rounds):
            now = self.rounds[number]
            message = {"role": "assistant", "content": rng.choice([None, "", "Let me see."])}
            message |= {"tool_calls": now.calls, "reasoning_details": [{"text": "hm"}]}
            finish = now.finish
        else:
            message, finish = {"role": "assistant", "content": rng.choice(["Done.", None])}, "stop"
        return streamed(rng, message, finish) if stream else whole(message, finish)


class InProcess:
    """Takes the place of a client's pool: the model of the moment answers."""

    def __init__(self, client):
        self.model = None
        self.transport = client._engine.transport
        self.transport.open = self.open

    async def open(self, request):
        parts = self.model.answer(request.content, stream=request.stream)
        redactor = self.transport.redactor(request)
        return InProcessAnswer(Head, Body(parts), Held(), "in process", redactor)


# -- one run ---------------------------------------------------------------------------------------


def plain(calls):
    """Calls in an order that does not depend on which came first."""
    return sorted(repr(call) for call in calls)


async def converse(client, server, recorder, seed, count):
    """Run one conversation; raises AssertionError if anything is wrong with it.

    Args:
        client: the client.
        server: what answers it; asks its ``model``.
        recorder: the tools.
        seed: of the conversation.
        count: what is added to.
    """
    rng = random.Random(seed)
    streaming = rng.random() < 0.5
    model = Model(rng, streaming)
    recorder.reset()
    server.model = model
    raising = rng.random() < 0.1
    run = client.chat.completions.run_tools(
        model=MODEL,
        messages=[{"role": "user", "content": rng.choice(["Hi", "cut \ud83d"])}],
        tools=[recorder.tools[name] for name in model.names],
        max_rounds=20,
        max_output=MAX_OUTPUT,
        max_concurrency=rng.choice([1, 8]),
        run_in_thread=rng.random() < 0.3,
        on_error="raise" if raising else "message",
        tool_choice=rng.choice([None, "auto", "required"]),
    )
    failure = None
    try:
        if streaming:
            async for _ in run:
                pass
        else:
            await run
    except ToolFailedError as error:
        failure = error
    recorder.release.set()
    assert model.refused is None, model.refused
    made, meant = recorder.calls, [call for now in model.rounds for call in now.meant]
    if failure is None:
        assert plain(made) == plain(meant), f"meant {plain(meant)}, made {plain(made)}"
        assert model.asked == len(model.rounds) + 1
        assert len(run.calls) == sum(len(now.calls) for now in model.rounds)
    else:
        assert raising
        assert not Counter(plain(made)) - Counter(plain(meant)), f"{made}, meant {meant}"
    check_history(msgspec.json.decode(msgspec.json.encode(run.messages[1:])))
    for message in run.messages:
        if isinstance(message, dict) and message["role"] == "tool":
            assert len(message["content"]) < MAX_OUTPUT + 1500
        elif not isinstance(message, dict):
            assert message.unknown or not message.tool_calls
    # Those of a server in this process are its connections.
    others = {task for task in asyncio.all_tasks() if "RequestHandler" not in repr(task.get_coro())}
    others -= {asyncio.current_task()}
    assert not others, f"tasks are left: {others}"
    count["runs"] += 1
    count["calls asked for"] += sum(len(now.calls) for now in model.rounds[: model.asked])
    count["calls made"] += len(made)
    count["requests"] += model.asked
    count["runs ended by a tool"] += failure is not None
    for outcome in run.calls:
        count[outcome.status] += 1


async def storm(seeds):
    """Run a conversation for each seed; returns what was counted."""
    count, recorder = Counter(), Recorder()
    async with AsyncKonko(
        base_url="http://127.0.0.1:9/v1", api_key="k", retry=None, circuit_breaker=None
    ) as client:
        server = InProcess(client)
        for seed in seeds:
            try:
                await converse(client, server, recorder, seed, count)
            except BaseException as error:
                error.add_note(f"seed {seed}")
                raise
    deadline = time.monotonic() + 60
    while any(t.name == "konko_async_tool" for t in threading.enumerate()):
        assert time.monotonic() < deadline, "threads are left"
        await asyncio.sleep(0.001)
    return count


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0, help="the first one")
    options = parser.parse_args()
    started = time.monotonic()
    count = asyncio.run(storm(range(options.seed, options.seed + options.runs)))
    seconds = time.monotonic() - started
    print(", ".join(f"{number:,} {name}" for name, number in count.items()))
    print(f"no call that was not meant, no request refused, nothing left; {seconds:.0f} s")


if __name__ == "__main__":
    main()
