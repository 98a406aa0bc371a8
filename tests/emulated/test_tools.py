"""run_tools(): the loop, its events, its limits, its end; and nothing left behind."""

import asyncio
import concurrent.futures
import contextlib
import contextvars
import functools
import gc
import itertools
import json
import threading
from pathlib import Path

import msgspec
import pytest
from client_kit import KEY, MODEL, in_flight, make_client, others, serving

from konko_async import (
    BadRequestError,
    ConfigurationError,
    KonkoError,
    ParsedChatCompletion,
    StreamTruncatedError,
    StructuredOutputError,
    Tool,
    ToolArgumentsError,
    ToolFailedError,
    ToolLimitError,
)
from konko_async.testing import Answer, Emulator, FaultServer, faults
from konko_async.tools import (
    ReasoningDelta,
    RoundFinished,
    TextDelta,
    ToolFinished,
    ToolStarted,
)
from konko_async.tools._tool import allowed_names, later_choice

HELLO = [{"role": "user", "content": "How warm is it?"}]
ASK = {"model": MODEL, "messages": HELLO}


class Report(msgspec.Struct):
    warm: bool


def add(a: int, b: int = 1) -> int:
    """Add two numbers."""
    return a + b


async def shout(text: str) -> str:
    return text.upper()


def call(name, arguments=None, id="c1"):
    return {"id": id, "name": name, "arguments": {} if arguments is None else arguments}


def calls(*wanted, **more):
    return {"role": "assistant", "content": None, "tool_calls": list(wanted), **more}


class Model:
    """An emulator's model that says one thing after the other, the last one again and again."""

    def __init__(self, *says):
        self.says = list(says)
        self.bodies = []

    def __call__(self, body):
        self.bodies.append(body)
        says = self.says.pop(0) if len(self.says) > 1 else self.says[0]
        return says(body) if callable(says) else says

    @property
    def told(self):
        """What the model was told by tools in the end."""
        return [m["content"] for m in self.bodies[-1]["messages"] if m["role"] == "tool"]


@pytest.fixture
async def emulator():
    async with Emulator(api_keys=[KEY], chunk_tokens=2) as running:
        yield running


@pytest.fixture
async def run(emulator):
    """Return a function that makes a run of a model that says these things."""
    async with make_client(emulator) as client:

        def start(says, tools, **options):
            emulator.answer = says if isinstance(says, Model) else Model(*says)
            return client.chat.completions.run_tools(**{**ASK, **options}, tools=tools)

        start.client = client
        yield start
        assert in_flight(client) == 0
    assert not ours()


def ours():
    """Tasks beside the one that asks and those of the emulator's connections."""
    return {task for task in others() if "RequestHandler" not in repr(task.get_coro())}


async def events_of(run):
    return [event async for event in run]


async def outcomes(run, *, streaming):
    """Run it, one way or the other."""
    if streaming:
        await events_of(run)
        return run.result
    return await run


both_ways = pytest.mark.parametrize("streaming", [False, True])


# -- the loop --------------------------------------------------------------------------------------


@both_ways
async def test_it_goes_on_until_the_model_is_done(run, streaming):
    model = Model(
        calls(call("add", {"a": 1}, "x"), call("shout", {"text": "hi"}, "y")),
        calls(call("add", {"a": 5, "b": 5}, "z"), content="Once more."),
        "It is 10.",
    )
    made = run(model, [add, shout], temperature=0.5)
    result = await outcomes(made, streaming=streaming)
    assert result.completion.choices[0].message.content == "It is 10."
    assert (result.rounds, made.rounds) == (3, 3)
    made_calls = sorted(result.calls, key=lambda c: c.call.id)
    assert [
        (c.call.name, c.call.arguments, c.value, c.status, c.call.round) for c in made_calls
    ] == [
        ("add", {"a": 1}, 2, "ok", 1),
        ("shout", {"text": "hi"}, "HI", "ok", 1),
        ("add", {"a": 5, "b": 5}, 10, "ok", 2),
    ]
    assert model.told == ["2", "HI", "10"]
    assert [body["temperature"] for body in model.bodies] == [0.5] * 3
    assert all(body.get("stream", False) is streaming for body in model.bodies)
    roles = [m["role"] if isinstance(m, dict) else m.role for m in result.messages]
    assert roles == ["user", "assistant", "tool", "tool", "assistant", "tool", "assistant"]
    assert [
        m["tool_call_id"] for m in result.messages if isinstance(m, dict) and m["role"] == "tool"
    ] == ["x", "y", "z"]
    assert HELLO == [{"role": "user", "content": "How warm is it?"}]
    assert result.usage.total_tokens > result.completion.usage.total_tokens > 0
    assert made.messages == result.messages
    assert await made == result


async def test_a_model_that_calls_nothing_is_done_at_once(run):
    result = await run(["Hello."], [add])
    assert (result.rounds, result.calls) == (1, ())
    assert len(result.messages) == 2


async def test_events_tell_what_happens(run, emulator):
    says = [
        calls(
            call("shout", {"text": "hi"}), content="Let me shout.", reasoning_content="He wants it."
        ),
        "HI there",
    ]
    made = run(says, [shout])
    assert repr(made) == "<ToolRun 0 rounds so far, 0 calls>"
    events = await events_of(made)
    kinds = [type(event) for event in events]
    assert kinds.index(ToolStarted) < kinds.index(ToolFinished) < kinds.index(RoundFinished)
    assert (
        "".join(e.text for e in events if type(e) is TextDelta and e.round == 1) == "Let me shout."
    )
    assert "".join(e.text for e in events if type(e) is TextDelta and e.round == 2) == "HI there"
    assert "".join(e.text for e in events if type(e) is ReasoningDelta) == "He wants it."
    started = next(e for e in events if type(e) is ToolStarted)
    finished = next(e for e in events if type(e) is ToolFinished)
    assert started.call.arguments == {"text": "hi"}
    assert started.call.text == '{"text":"hi"}'
    assert (finished.outcome.call, finished.outcome.output) == (started.call, "HI")
    rounds = [e for e in events if type(e) is RoundFinished]
    assert [e.round for e in rounds] == [1, 2]
    assert all(e.usage.total_tokens for e in rounds)
    assert repr(made) == "<ToolRun done, 1 calls>"
    assert msgspec.to_builtins(started)["type"] == "tool_started"
    failed = ToolFinished(msgspec.structs.replace(finished.outcome, error=ValueError("a")))
    shown = json.loads(msgspec.json.encode([*events, failed], enc_hook=str))
    assert {"text", "reasoning", "tool_started", "tool_finished", "round_finished"} == {
        e["type"] for e in shown
    }
    assert shown[-1]["outcome"]["error"] == "a"


async def test_text_comes_as_it_comes_and_not_in_the_end(run, emulator):
    emulator.script(faults.Stall(after_chunks=3, seconds=None))
    made = run(["one two three four five six"], [add])
    async with made:
        assert (await made.__anext__()).text
    assert in_flight(run.client) == 0


@both_ways
async def test_with_a_format_the_last_answer_is_parsed(run, streaming):
    made = run(
        [calls(call("add", {"a": 1}), content="hm"), '{"warm": true}'],
        [add],
        response_format=Report,
    )
    result = await outcomes(made, streaming=streaming)
    assert type(result.completion) is ParsedChatCompletion
    assert result.completion.parsed == Report(True)
    made = run([calls(call("add", {"a": 1})), "warm"], [add], response_format=Report)
    with pytest.raises(StructuredOutputError):
        await outcomes(made, streaming=streaming)
    assert len(made.messages) == 3  # the round that was whole
    assert len(made.calls) == 1


async def test_a_choice_that_forces_a_call_does_so_once(run):
    for choice in ("required", add, {"type": "function", "function": {"name": "add"}}):
        model = Model(calls(call("add", {"a": 1})), "2")
        await run(model, [add], tool_choice=choice)
        assert [body["tool_choice"] for body in model.bodies][1] == "auto"
        assert model.bodies[0]["tool_choice"] != "auto"
    for choice in ("auto", "none", None):
        model = Model(calls(call("add", {"a": 1})), "2")
        await run(model, [add], tool_choice=choice)
        assert [body.get("tool_choice") for body in model.bodies] == [choice] * 2


async def test_calls_without_ids_or_with_the_same_get_ids(run):
    model = Model(
        calls(*(call("add", {"a": n}, i) for n, i in enumerate(["", "same", "same", ""]))), "done"
    )
    result = await run(model, [add])
    ids = [c["id"] for c in model.bodies[-1]["messages"][1]["tool_calls"]]
    told = [m["tool_call_id"] for m in model.bodies[-1]["messages"] if m["role"] == "tool"]
    assert ids == told
    assert len(set(ids)) == 4
    assert "" not in ids
    assert model.told == ["1", "2", "3", "4"]
    assert len(result.calls) == 4


async def test_results_are_told_as_text_or_json(run):
    def give(kind: str) -> object:
        return {
            "text": 'a "b"',
            "struct": Report(True),
            "none": None,
            "list": [1, "é"],
            "set": object(),
        }[kind]

    kinds = ["text", "struct", "none", "list", "set"]
    model = Model(calls(*(call("give", {"kind": kind}, kind) for kind in kinds)), "done")
    result = await run(model, [give])
    assert model.told[:4] == ['a "b"', '{"warm":true}', "null", '[1,"é"]']
    assert "no form in JSON" in model.told[4]
    assert [c.status for c in sorted(result.calls, key=lambda c: kinds.index(c.call.id))] == [
        "ok"
    ] * 4 + ["failed"]


# -- what goes wrong is told to the model ----------------------------------------------------------


@both_ways
async def test_what_goes_wrong_is_told_to_the_model(run, streaming):
    def fail(why: str) -> str:
        raise ValueError(why)

    async def stop() -> str:
        raise StopIteration

    def end() -> str:
        raise StopIteration("the end")

    async def cancel() -> str:
        raise asyncio.CancelledError

    model = Model(
        calls(
            call("fail", {"why": "too warm"}, "1"), call("nosuch", {}, "2"), call("add", {"a": "x"}, "3"),
            call("add", '{"a": ', "4"), call("end", {}, "5"), call("cancel", {}, "6"), call("stop", {}, "7"),
        ),
        "Sorry.",
    )  # fmt: skip
    made = run(model, [fail, add, end, cancel, stop])
    result = await outcomes(made, streaming=streaming)
    assert model.told[0] == "ValueError: too warm"
    assert model.told[1] == "There is no tool 'nosuch'. There are: fail, add, end, cancel, stop."
    assert model.told[2].startswith(
        "The arguments for add do not fit: Expected `int`, got `str` at $.a."
    )
    assert "it is no JSON: it ends too early" in model.told[3]
    assert model.told[4] == "StopIteration: the end"
    assert model.told[5] == "CancelledError"
    assert "StopIteration" in model.told[6]
    status = {c.call.id: c.status for c in result.calls}
    assert status == {
        "1": "failed",
        "2": "unknown",
        "3": "invalid",
        "4": "invalid",
        "5": "failed",
        "6": "failed",
        "7": "failed",
    }
    assert {c.call.id: c.call.arguments for c in result.calls}["3"] == {"a": "x"}
    assert isinstance(next(c for c in result.calls if c.call.id == "1").error, ValueError)
    assert all("Traceback" not in text and ".py" not in text for text in model.told)


async def test_a_tool_may_end_the_run_by_raising(run):
    begun = asyncio.Event()
    ended = []

    async def slow() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("slow")

    async def fail() -> None:
        await begun.wait()
        raise ValueError("no")

    model = Model(
        calls(call("add", {"a": 1}, "0")), calls(call("slow", {}, "1"), call("fail", {}, "2"))
    )
    made = run(model, [add, slow, fail], on_error="raise")
    with pytest.raises(ToolFailedError, match="the tool fail raised ValueError") as caught:
        await made
    error = caught.value
    assert isinstance(error.__cause__, ValueError)
    assert error.call.name == "fail"
    assert ended == ["slow"]
    assert [m["role"] if isinstance(m, dict) else m.role for m in error.messages] == [
        "user",
        "assistant",
        "tool",
    ]
    assert [
        c["name"] if isinstance(c, dict) else c.function.name
        for c in error.completion.choices[0].message.tool_calls
    ] == ["slow", "fail"]
    assert (error.rounds, len(error.calls)) == (2, 1)
    assert error.usage.total_tokens > 0
    with pytest.raises(KonkoError, match="has not come to its end"):
        await made


# -- limits ----------------------------------------------------------------------------------------


@both_ways
async def test_rounds_are_limited_and_nothing_is_lost(run, streaming):
    model = Model(calls(call("add", {"a": 1})))
    made = run(model, [add], max_rounds=3)
    with pytest.raises(ToolLimitError, match="max_rounds=3") as caught:
        await outcomes(made, streaming=streaming)
    error = caught.value
    assert (error.limit, error.rounds, len(error.calls), len(model.bodies)) == (
        "max_rounds",
        3,
        2,
        3,
    )
    assert error.completion.choices[0].message.tool_calls
    again = Model("Done.")
    result = await run(again, [add], messages=error.messages)  # it can be sent again
    assert result.completion.choices[0].message.content == "Done."
    assert len(again.bodies[0]["messages"]) == 5


async def test_calls_are_limited(run):
    made = []

    def note(n: int) -> None:
        made.append(n)

    model = Model(calls(*(call("note", {"n": n}, str(n)) for n in range(2))))
    with pytest.raises(ToolLimitError) as caught:
        await run(model, [note], max_tool_calls=5)
    assert (caught.value.limit, len(made), caught.value.rounds) == ("max_tool_calls", 4, 3)


async def test_a_call_may_take_its_time_and_no_more(run):
    async def wait() -> None:
        await asyncio.Event().wait()

    async def own() -> None:
        raise TimeoutError("its own")

    model = Model(
        calls(call("wait", {}, "1"), call("longer", {}, "2"), call("own", {}, "3")), "done"
    )
    tools = [wait, Tool(wait, name="longer", timeout=0.02), own]
    result = await run(model, tools, tool_timeout=0.01)
    assert model.told == [
        "It took longer than 0.01 s.",
        "It took longer than 0.02 s.",
        "TimeoutError: its own",
    ]
    assert sorted(c.status for c in result.calls) == ["failed", "timeout", "timeout"]


@pytest.mark.parametrize("place", ["tool", "model", "approval"])
@both_ways
async def test_the_whole_may_take_its_time_and_no_more(run, emulator, place, streaming):
    async def wait() -> None:
        await asyncio.Event().wait()

    async def think(call):
        await asyncio.Event().wait()

    if place == "model":
        emulator.always(faults.Stall(after_chunks=1, seconds=None))
    made = run(
        [calls(call("wait"))],
        [wait],
        total_timeout=0.1,
        before_tool=think if place == "approval" else None,
        tool_timeout=None,
    )
    with pytest.raises(ToolLimitError, match="the time is over") as caught:
        await outcomes(made, streaming=streaming)
    assert caught.value.limit == "total_timeout"
    assert made.messages == HELLO


async def test_so_many_run_at_once(run):
    running, most = 0, 0

    async def count() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        for _ in range(5):
            await asyncio.sleep(0)
        running -= 1

    model = Model(calls(*(call("count", {}, str(n)) for n in range(7))), "done")
    result = await run(model, [count], max_concurrency=3)
    assert (most, len(result.calls)) == (3, 7)


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ({"max_rounds": 0}, "max_rounds"), ({"max_tool_calls": True}, "max_tool_calls"),
        ({"max_concurrency": 1.5}, "max_concurrency"), ({"tool_timeout": 0}, "tool_timeout"),
        ({"total_timeout": "5"}, "total_timeout"), ({"on_error": "ignore"}, "on_error"),
        ({"before_tool": 5}, "before_tool"), ({"n": 2}, "n must be 1"), ({"model": ""}, "model"),
        ({"messages": []}, "messages"), ({"temperature": 9}, "temperature"), ({"response_format": "json"}, "response_format"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "cannot call 'f'"), ({"tools": [5]}, "a tool must be"),
    ],
)  # fmt: skip
async def test_what_is_wrong_is_said_before_anything_is_sent(run, emulator, option, words):
    tools = option.pop("tools", [add])
    with pytest.raises(ConfigurationError, match=words):
        run(["x"], tools, **option)
    with pytest.raises(TypeError, match="no_such"):
        run(["x"], [add], no_such=1)
    assert emulator.received == 0


# -- approval, threads, context --------------------------------------------------------------------


@both_ways
async def test_calls_may_be_allowed_or_not(run, streaming):
    asked = []

    async def allow(call):
        asked.append(call.name)
        return call.arguments["a"] < 2 or (
            "Ask the user first." if call.arguments["a"] == 2 else False
        )

    wanted = [call("add", {"a": n}, str(n)) for n in (1, 2, 3)]
    model = Model(calls(*wanted, call("nosuch"), call("add", {"a": "x"}, "4")), "done")
    result = await outcomes(run(model, [add], before_tool=allow), streaming=streaming)
    assert model.told[:3] == ["2", "Ask the user first.", "The call was not allowed."]
    assert asked == ["add"] * 3
    assert sorted(c.status for c in result.calls) == [
        "denied",
        "denied",
        "invalid",
        "ok",
        "unknown",
    ]
    model = Model(calls(*wanted), "done")
    await run(model, [add], before_tool=lambda call: call.id == "3")
    assert model.told == ["The call was not allowed.", "The call was not allowed.", "4"]


async def test_what_the_approval_raises_ends_the_run(run):
    def allow(call):
        raise LookupError("who are you?")

    with pytest.raises(LookupError):
        await run([calls(call("add", {"a": 1}))], [add], before_tool=allow)


user = contextvars.ContextVar("user")


async def test_sync_tools_run_in_threads_with_the_context(run):
    seen = []

    def look() -> str:
        seen.append(threading.current_thread() is threading.main_thread())
        return user.get()

    async def later() -> str:
        return "later"

    user.set("Ada")
    model = Model(
        calls(
            call("look", {}, "1"),
            call("here", {}, "2"),
            call("part", {}, "3"),
            call("later", {}, "4"),
        ),
        "done",
    )
    tools = [
        look,
        Tool(look, name="here", run_in_thread=False),
        Tool(functools.partial(later), name="part"),
        later,
    ]
    await run(model, tools)
    assert model.told == ["Ada", "Ada", "later", "later"]
    assert sorted(seen) == [False, True]
    await run(Model(calls(call("look")), "done"), [look], run_in_thread=False)
    assert seen[-1] is True


async def test_a_function_may_return_something_to_await(run):
    def later() -> object:
        return shout("x")

    model = Model(calls(call("later")), "done")
    await run(model, [later])
    assert model.told == ["X"]


# -- leaving ---------------------------------------------------------------------------------------


class Slow:
    """A tool that says when it runs, and when it is cancelled."""

    def __init__(self):
        self.begun = asyncio.Event()
        self.cancelled = False

    async def wait(self) -> None:
        self.begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise


@both_ways
async def test_a_cancellation_cancels_the_tools_at_once(run, streaming):
    slow = Slow()
    made = run([calls(call("wait", {}, "1"), call("wait", {}, "2"))], [slow.wait])
    task = asyncio.ensure_future(outcomes(made, streaming=streaming))
    await slow.begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert slow.cancelled
    assert not ours()
    assert made.messages == HELLO


@both_ways
async def test_a_cancellation_cancels_the_models_answer(run, emulator, streaming):
    emulator.always(faults.Stall(after_chunks=2, seconds=None))
    made = run(["one two three four"], [add])
    task = asyncio.ensure_future(outcomes(made, streaming=streaming))
    while not emulator.in_flight:
        await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert in_flight(run.client) == 0


@pytest.mark.parametrize("how", ["break", "aclose", "raise", "drop"])
async def test_leaving_early_cancels_the_tools(run, how):
    slow = Slow()
    made = run([calls(call("wait"))], [slow.wait])

    async def until_it_runs(run):
        async for event in run:
            if isinstance(event, ToolStarted):
                break

    if how == "break":
        async with made:
            await until_it_runs(made)
            await slow.begun.wait()
    elif how == "raise":
        with pytest.raises(LookupError):
            async with made:
                await until_it_runs(made)
                raise LookupError
    else:
        await until_it_runs(made)
        if how == "aclose":
            await made.aclose()
            await made.aclose()
        else:
            del made
            gc.collect()
            while ours():
                await asyncio.sleep(0)
    assert slow.cancelled or not slow.begun.is_set()


async def test_what_was_never_begun_is_left_without_a_trace(run, emulator):
    made = run(["x"], [add])
    await made.aclose()
    with pytest.raises(KonkoError):
        made.result  # noqa: B018 - the access is the test
    run(["x"], [add])
    gc.collect()
    assert emulator.received == 0


async def test_a_thread_is_not_waited_for(run):
    begun, release = threading.Event(), threading.Event()

    def block() -> None:
        begun.set()
        release.wait(60)

    task = asyncio.ensure_future(outcomes(run([calls(call("block"))], [block]), streaming=False))
    while not begun.is_set():
        await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not release.is_set()
    release.set()


# -- failures of the server ------------------------------------------------------------------------


@both_ways
async def test_what_there_is_stays_when_the_server_fails(run, emulator, streaming):
    emulator.script(None, faults.Status(400))
    made = run([calls(call("add", {"a": 1})), "never"], [add])
    with pytest.raises(BadRequestError):
        await outcomes(made, streaming=streaming)
    assert (len(made.messages), made.rounds, len(made.calls)) == (3, 1, 1)


async def test_a_stream_that_breaks_raises_with_what_had_come(run, emulator):
    emulator.script(faults.Cut(after_chunks=3))
    made = run(["one two three four five six"], [add])
    texts = []
    with pytest.raises(StreamTruncatedError) as caught:
        async for event in made:
            texts.append(event.text)
    assert caught.value.partial.choices[0].message.content.startswith("".join(texts))


async def test_usage_is_unknown_where_the_server_tells_none(run, emulator):
    made = run([calls(call("add", {"a": 1})), "2"], [add], stream_options={"include_usage": False})
    await events_of(made)
    assert made.usage is None


# -- without the loop ------------------------------------------------------------------------------


async def test_functions_as_tools_of_a_plain_call(emulator):
    emulator.answer = Model(calls(call("add", {"a": 1})))
    described = {
        "type": "function",
        "function": {"name": "other", "parameters": {"type": "object"}},
    }

    def unknown(x): ...

    async with make_client(emulator) as client:
        whole = await client.chat.completions.create(
            **ASK, tools=[add, described, Tool(shout)], tool_choice=shout
        )
        body = emulator.answer.bodies[0]
        assert [tool["function"]["name"] for tool in body["tools"]] == ["add", "other", "shout"]
        assert body["tools"][1] == described
        assert body["tool_choice"] == {"type": "function", "function": {"name": "shout"}}
        wanted = whole.choices[0].message.tool_calls[0]
        assert Tool(add).parse(wanted) == {"a": 1}
        assert wanted.function.parse(dict[str, int]) == {"a": 1}
        async with client.chat.completions.stream(**ASK, tools=[add]) as stream:
            streamed = await stream.completion()
        assert streamed.choices[0].message.tool_calls[0].function == wanted.function
        with pytest.raises(ConfigurationError, match="without an annotation"):
            client.chat.completions.stream(**ASK, tools=[unknown])


async def test_the_emulators_own_answers_go_round(run, emulator):
    made = run(["x"], [add, shout], parallel_tool_calls=True)
    emulator.answer = None
    result = await made
    assert {c.call.name for c in result.calls} == {"add", "shout"}
    assert all(c.status == "ok" for c in result.calls)
    assert json.loads(result.calls[0].call.text)


# -- calls that were not meant, and what is sent back of them --------------------------------------


def answered(*wanted, finish="tool_calls"):
    """An answer with calls whose arguments are these texts, as servers of all kinds send it."""
    made = [
        {"id": f"c{n}", "type": "function", "function": {"name": name, "arguments": text}}
        for n, (name, text) in enumerate(wanted)
    ]
    message = {"role": "assistant", "content": None, "tool_calls": made}
    choice = {"index": 0, "message": message, "finish_reason": finish}
    return Answer.body(json.dumps({"choices": [choice]}).encode())


def told_of(server):
    """The calls' arguments and the results in the last request."""
    messages = json.loads(server.requests[-1].body)["messages"]
    sent = [c["function"]["arguments"] for m in messages for c in m.get("tool_calls") or ()]
    return sent, [m["content"] for m in messages if m["role"] == "tool"]


async def converse(answer, tools, **options):
    server = FaultServer(answer, Answer.whole("Done."))
    async with serving(server) as client:
        run = client.chat.completions.run_tools(**{**ASK, **options}, tools=tools)
        result = await run
    return server, result


@pytest.mark.parametrize("finish", ["length", "content_filter", "max_tokens", "model_length"])
@pytest.mark.parametrize("text", ["", '{"folder": "/tmp', '{"folder": "a"}', "null"])
async def test_of_an_answer_that_was_cut_no_call_is_made(finish, text):
    made = []

    def remove(folder: str = "/") -> None:
        made.append(folder)

    cut = answered(("remove", '{"folder": "b"}'), ("remove", text), finish=finish)
    server, result = await converse(cut, [remove])
    assert made == []
    assert [outcome.status for outcome in result.calls] == ["invalid"] * 2
    sent, told = told_of(server)
    assert all(isinstance(json.loads(arguments), dict) for arguments in sent)
    assert all("ended early" in text and finish in text for text in told)
    assert result.completion.choices[0].message.content == "Done."


@pytest.mark.parametrize(
    ("text", "sent", "words"),
    [
        ('{"text": "a long', "{}", "it ends too early"),
        (json.dumps('{"text": "a"}'), '{"text":"a"}', "JSON in a JSON string"),
        ('["a"]', "{}", "they are no JSON object, but a list"),
        ("5", "{}", "a number"),
        ("", "{}", "there are none"),
        ("null", "{}", "there are none"),
        ('{"text": "a"} and', "{}", "it is no JSON"),
        ('{"text": 1}', '{"text": 1}', "Expected `str`, got `int` at $.text"),
    ],
)
async def test_arguments_that_are_not_those_of_a_call(text, sent, words):
    made = []

    def note(text: str) -> None:
        made.append(text)

    server, result = await converse(answered(("note", text)), [note])
    assert made == []
    assert result.calls[0].call.text == text
    arguments, told = told_of(server)
    assert arguments == [sent]
    assert words in told[0]
    assert ("You wrote: " in told[0]) is (sent != text and bool(text.strip()))


@pytest.mark.parametrize(
    ("finish", "made"), [("tool_calls", True), ("stop", True), (None, False), ("length", False)]
)
@pytest.mark.parametrize("text", ["", " ", "\n", "null"])
async def test_no_arguments_are_meant_where_none_are_needed_and_the_answer_is_whole(
    text, finish, made
):
    called = []

    def clock() -> str:
        called.append("clock")
        return "12:00"

    def needy(**arguments) -> None:
        called.append("needy")

    needs = Tool(needy, parameters={"type": "object", "required": ["a"]})
    cut = answered(("clock", text), ("needy", text), finish=finish)
    await converse(cut, [clock, needs])
    assert called == (["clock"] if made else [])


async def test_an_error_of_the_arguments_may_end_the_run_too(run):
    made = []

    def note(text: str) -> None:
        made.append(text)

    wanted = [call("note", {"text": "a"}, "1"), call("note", '{"text": ', "2")]
    with pytest.raises(ToolFailedError, match="a call of note was not made") as caught:
        await run([calls(*wanted)], [note], on_error="raise")
    assert isinstance(caught.value.__cause__, ToolArgumentsError)
    assert made == []  # none of that answer


async def test_names_that_no_tool_has_are_sent_back_as_names():
    server, result = await converse(answered(("functions.add", "{}"), ("", "{}")), [add])
    messages = json.loads(server.requests[-1].body)["messages"]
    names = [c["function"]["name"] for c in messages[1]["tool_calls"]]
    assert names == ["functions_add", "unknown"]
    assert [outcome.status for outcome in result.calls] == ["unknown"] * 2
    assert result.calls[0].call.name == "functions.add"


# -- tools cannot hurt -----------------------------------------------------------------------------


class SilentError(Exception):
    def __str__(self):
        raise KeyboardInterrupt


RAISED = [
    (lambda: SystemExit(2), "SystemExit: 2"), (KeyboardInterrupt, "KeyboardInterrupt"),
    (GeneratorExit, "GeneratorExit"), (StopIteration, "StopIteration"), (SilentError, "SilentError"),
    (lambda: ValueError("\ud83d" + "x" * 9000), "ValueError: \ufffdxxx"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "words"), RAISED)
@pytest.mark.parametrize("in_thread", [True, False])
async def test_whatever_a_tool_raises_stays_with_its_call(run, make, words, in_thread):
    def sync() -> None:
        raise make()

    async def later() -> None:
        await asyncio.sleep(0)
        raise make()

    async def yields():
        yield 1
        raise make()

    model = Model(calls(*(call(n, {}, n) for n in ("sync", "later", "yields"))), "done")
    result = await run(model, [sync, later, yields], run_in_thread=in_thread)
    assert {outcome.status for outcome in result.calls} == {"failed"}
    # An async generator makes a RuntimeError of what stands for its own end.
    assert all(t.startswith((words, "RuntimeError")) and len(t) < 1100 for t in model.told)


async def test_a_tool_may_cancel_its_own_task(run):
    async def cancel() -> None:
        asyncio.current_task().cancel()
        await asyncio.sleep(0)

    model = Model(calls(call("cancel")), "done")
    result = await run(model, [cancel])
    assert result.calls[0].status == "failed"


class Countdown:
    """Something to iterate over that msgspec does not know."""

    def __iter__(self):
        return iter([2, 1])


async def test_generators_and_other_values_are_told(run):
    def lines(n: int):
        yield from ("a\ud83d", "b")

    async def later(n: int):
        yield {"n": n}

    def give(n: int) -> object:
        values = [lambda: Path("a") / "b", lambda: range(3), Countdown, lambda: {1: iter("xy")},
                  lambda: (x for x in [1]), lambda: ValueError("as a value")]  # fmt: skip
        return values[n]()

    wanted = [call("lines", {"n": 0}, "l"), call("later", {"n": 7}, "a")]
    wanted += [call("give", {"n": n}, f"g{n}") for n in range(6)]
    model = Model(calls(*wanted), "done")
    result = await run(model, [lines, later, give])
    assert model.told == [
        '["a\ufffd","b"]', '[{"n":7}]', '"a/b"', "[0,1,2]", "[2,1]", '{"1":["x","y"]}', "[1]",
        '"ValueError: as a value"',
    ]  # fmt: skip
    assert {c.call.id: c.value for c in result.calls}["a"] == [{"n": 7}]


@both_ways
async def test_long_and_endless_results_are_cut_and_it_is_said(run, streaming):
    closed = []

    def forever():
        try:
            yield from itertools.count()
        finally:
            closed.append("sync")

    async def forever_later():
        try:
            while True:
                yield "x" * 50
        finally:
            closed.append("async")

    def long() -> str:
        return "é" * 5000

    def wide() -> list[str]:
        return ["x" * 50] * 100

    tools = [forever, forever_later, long, wide]
    model = Model(calls(*(call(tool.__name__, {}, str(n)) for n, tool in enumerate(tools))), "done")
    result = await outcomes(run(model, tools, max_output=200), streaming=streaming)
    assert {outcome.status for outcome in result.calls} == {"ok"}
    assert sorted(closed) == ["async", "sync"]
    for text in model.told:
        shown, _, remark = text.partition("\n")
        assert len(shown) == 200
        assert remark == "[The result was cut here: it is longer than 200 characters.]"
    assert len({c.call.name: c.value for c in result.calls}["long"]) == 5000


async def test_a_call_does_not_wait_for_a_thread_of_the_loops(run):
    with concurrent.futures.ThreadPoolExecutor(1) as executor:
        asyncio.get_running_loop().set_default_executor(executor)
        barrier = threading.Barrier(8, timeout=60)
        model = Model(calls(*(call("meet", {}, str(n)) for n in range(8))), "done")

        def meet() -> int:
            return barrier.wait()

        result = await run(model, [meet], tool_timeout=60)
    assert {outcome.status for outcome in result.calls} == {"ok"}


async def test_a_tool_that_ignores_its_cancellation_is_left_alone(run, monkeypatch):
    from konko_async.tools import _calls

    monkeypatch.setattr(_calls, "_GRACE", 0.01)
    go_on = asyncio.Event()
    ended = []

    async def stubborn() -> None:
        while not go_on.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await go_on.wait()
        ended.append(1)

    model = Model(calls(call("stubborn")), "done")
    result = await run(model, [stubborn], tool_timeout=0.01)
    assert result.calls[0].status == "timeout"
    go_on.set()
    while not ended or ours():
        await asyncio.sleep(0)


@pytest.mark.parametrize("sync", [True, False])
async def test_an_error_names_what_it_left_unfinished(run, sync):
    begun, release = threading.Event(), threading.Event()
    later = asyncio.Event()

    def block() -> None:
        begun.set()
        release.wait(60)

    async def wait() -> None:
        later.set()
        await asyncio.Event().wait()

    async def fail() -> None:
        while not (begun.is_set() if sync else later.is_set()):
            await asyncio.sleep(0)
        raise ValueError("no")

    other = block if sync else wait
    model = Model(calls(call(other.__name__, {}, "1"), call("fail", {}, "2")))
    with pytest.raises(ToolFailedError, match=f"calls of {other.__name__} were left") as caught:
        await run(model, [other, fail], on_error="raise")
    assert [c.name for c in caught.value.unfinished] == [other.__name__]
    release.set()


async def test_a_call_that_was_over_is_in_the_calls_of_the_error(run):
    fine = asyncio.Event()

    async def work() -> str:
        fine.set()
        return "done"

    async def fail() -> None:
        await fine.wait()
        raise ValueError

    with pytest.raises(ToolFailedError) as caught:
        await run(
            [calls(call("fail", {}, "1"), call("work", {}, "2"))], [fail, work], on_error="raise"
        )
    assert [c.call.name for c in caught.value.calls] == ["work"]
    assert caught.value.unfinished == ()


# -- what tool_choice forbids ----------------------------------------------------------------------


def allowing(mode, *tools, flat=False):
    inner = {"mode": mode, "tools": list(tools)}
    return {"type": "allowed_tools", **(inner if flat else {"allowed_tools": inner})}


@pytest.mark.parametrize("mode", ["auto", "required"])
async def test_what_a_choice_leaves_out_stays_out(run, mode):
    named = {"type": "function", "function": {"name": "add"}}
    model = Model(
        calls(call("add", {"a": 1}, "1"), call("shout", {"text": "x"}, "2")),
        calls(call("shout", {"text": "y"}, "3")),
        "done",
    )
    result = await run(model, [add, shout], tool_choice=allowing(mode, add))
    choices = [body["tool_choice"] for body in model.bodies]
    assert choices == [allowing(mode, named), allowing("auto", named), allowing("auto", named)]
    assert [c.status for c in sorted(result.calls, key=lambda c: c.call.id)] == [
        "ok", "denied", "denied",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("choice", "later", "names"),
    [
        ("none", "none", frozenset()), ({"type": "none"}, {"type": "none"}, frozenset()),
        ("auto", "auto", None), (None, None, None), ("required", "auto", None), ("any", "auto", None),
        ({"type": "function", "function": {"name": "add"}}, "auto", None),
        (allowing("required", {"type": "function", "name": "add"}, flat=True),
         allowing("auto", {"type": "function", "name": "add"}, flat=True), frozenset({"add"})),
        (allowing("auto"), allowing("auto"), frozenset()),
    ],
)  # fmt: skip
def test_choices_of_later_rounds(choice, later, names):
    assert later_choice(choice) == later
    assert allowed_names(choice) == names
    assert allowed_names(later) == names
