"""What real servers send, streamed and whole: all of it decodes, none of it loses text."""

import json

import pytest
from client_kit import ASK, MODEL, ask, serving, text_of

from konko_async import ResponseDecodeError
from konko_async.testing import Answer, FaultServer


def chunk(delta=None, *, reason=None, index=0, **more):
    choice = {"index": index, "delta": {} if delta is None else delta, "finish_reason": reason}
    return {
        "id": "c1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": MODEL,
        "choices": [choice],
        **more,
    }


def text(content, **more):
    return chunk({"content": content}, **more)


END = chunk(reason="stop")
STREAMS = {
    "role only first": [chunk({"role": "assistant"}), text("Hel"), text("lo"), END],
    "role in each": [chunk({"role": "assistant", "content": t}) for t in ("", "Hel", "lo")] + [END],
    "no role": [text("Hel"), text("lo"), END],
    "null content": [
        chunk({"role": "assistant", "content": None}),
        text("Hel"),
        chunk({"content": None}),
        text("lo"),
        END,
    ],
    "missing content": [chunk({}), text("Hel"), chunk({}), text("lo"), END],
    "null delta": [
        text("Hel"),
        {**chunk(), "choices": [{"index": 0, "delta": None, "finish_reason": None}]},
        text("lo"),
        END,
    ],
    "no delta": [text("Hel"), {**chunk(), "choices": [{"index": 0}]}, text("lo"), END],
    "empty choices first": [
        {"id": "c1", "choices": [], "prompt_filter_results": []},
        text("Hel"),
        text("lo"),
        END,
    ],
    "empty choices between": [text("Hel"), {"id": "c1", "choices": []}, text("lo"), END],
    "no choices": [text("Hel"), {"id": "c1", "usage": {"total_tokens": 3}}, text("lo"), END],
    "null choices": [text("Hel"), {"id": "c1", "choices": None}, text("lo"), END],
    "usage empty": [text("Hel", usage={}), text("lo", usage={}), END],
    "usage null": [text("Hel", usage=None), text("lo", usage=None), END],
    "usage on each": [
        text("Hel", usage={"total_tokens": 1}),
        text("lo", usage={"total_tokens": 2}),
        END,
    ],
    "extra fields": [
        text("Hel", timings={"a": 1.5}, x_groq={"id": "y"}),
        text("lo", provider="z"),
        END,
    ],
    "system_fingerprint": [
        text("Hel", system_fingerprint="fp"),
        text("lo", system_fingerprint=None),
        END,
    ],
    "created as float": [
        text("Hel", created=1702453635.25),
        text("lo", created=1702453635.75),
        END,
    ],
    "created as text": [text("Hel", created="1702453635"), text("lo", created="soon"), END],
    "created null": [text("Hel", created=None), text("lo", created=None), END],
    "id null": [text("Hel", id=None), text("lo", id=None, model=None), END],
    "index missing": [{**chunk(), "choices": [{"delta": {"content": t}}]} for t in ("Hel", "lo")]
    + [END],
    "content in parts": [
        text([{"type": "text", "text": "Hel"}]),
        text([{"type": "text", "text": "lo"}]),
        END,
    ],
    "reason with text": [text("Hel"), text("lo", reason="stop")],
    "odd reason": [text("Hel"), text("lo"), chunk(reason="eos_token")],
    "null error": [text("Hel", error=None), text("lo", error=None), END],
}
OPENROUTER = ": OPENROUTER PROCESSING\n\n"


def frames(events, *, done=True):
    return [f"data: {json.dumps(event)}\n\n" for event in events] + ["data: [DONE]\n\n"] * done


def sse(pieces):
    return Answer.body(
        [p.encode() for p in pieces], content_type="text/event-stream", framing="chunked"
    )


async def check(answer, *, said="Hello"):
    for sent in (answer, answer.split_every(7)):
        async with serving(FaultServer(sent)) as client:
            completion = await ask(client, stream=True)
            assert text_of(completion) == said
            async with client.chat.completions.stream(**ASK) as stream:
                assert "".join([piece async for piece in stream.text()]) == said
    return completion


@pytest.mark.parametrize("done", [True, False], ids=["done", "no done"])
@pytest.mark.parametrize("name", STREAMS)
async def test_streams(name, done):
    completion = await check(sse(frames(STREAMS[name], done=done)))
    choice = completion.choices[0]
    assert choice.message.role == "assistant"
    assert choice.finish_reason in {"stop", "eos_token"}
    if name == "usage on each":
        assert completion.usage.total == 2
    elif name.startswith("usage"):
        assert completion.usage is None


@pytest.mark.parametrize("name", STREAMS)
async def test_streams_without_a_reason(name):
    events = [event for event in STREAMS[name] if event is not END]
    if name in {"reason with text", "odd reason"}:
        pytest.skip("its reason is what it is about")
    completion = await check(sse(frames(events)))
    assert completion.choices[0].finish_reason is None


FRAMINGS = {
    "crlf": lambda pieces: [p.replace("\n", "\r\n") for p in pieces],
    "cr": lambda pieces: [p.replace("\n", "\r") for p in pieces],
    "no space": lambda pieces: [p.replace("data: ", "data:") for p in pieces],
    "bom": lambda pieces: ["\ufeff" + pieces[0], *pieces[1:]],
    "comments": lambda pieces: [OPENROUTER, *[p for each in pieces for p in (each, OPENROUTER)]],
    "comment lines inside": lambda pieces: [": x\n" + p for p in pieces],
    "ids and retries": lambda pieces: [f"id: {n}\nretry: 10\n{p}" for n, p in enumerate(pieces)],
    "event names": lambda pieces: ["event: message\n" + p for p in pieces],
    "other event names": lambda pieces: ["event: completion.chunk\n" + p for p in pieces],
    "empty events": lambda pieces: [p for each in pieces for p in ("\n", "data:\n\n", each)],
    "pings": lambda pieces: [p for each in pieces for p in ("event: ping\ndata:\n\n", each)],
    "two data lines": lambda pieces: [p.replace(", ", ",\ndata: ", 1) for p in pieces],
    "leading newlines": lambda pieces: ["\n\n", *pieces],
    "all at once": lambda pieces: ["".join(pieces)],
    "unfinished last block": lambda pieces: [*pieces[:-1], "data: [DONE]"],
    "single newline at the end": lambda pieces: [*pieces[:-1], "data: [DONE]\n"],
}


@pytest.mark.parametrize("name", FRAMINGS)
async def test_framings(name):
    await check(sse(FRAMINGS[name](frames(STREAMS["role only first"]))))


@pytest.mark.parametrize(
    "kind",
    [
        "text/event-stream; charset=utf-8",
        "text/plain",
        "application/x-ndjson",
        "application/json",
        "",
    ],
)
async def test_content_types(kind):
    answer = Answer.stream(["Hel", "lo"], content_type=kind or "text/event-stream")
    await check(answer)


async def test_reasoning_beside_text():
    for name in ("reasoning_content", "reasoning"):
        events = [
            chunk({name: "Thin", "content": ""}),
            chunk({name: "king"}),
            text("Hel"),
            text("lo"),
            END,
        ]
        completion = await check(sse(frames(events)))
        assert getattr(completion.choices[0].message, name) == "Thinking"


TOOLS = {
    "indexed": [
        [{"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": ""}}],
        [{"index": 0, "function": {"arguments": '{"x":'}}],
        [{"index": 0, "function": {"arguments": "1}"}}],
        [{"index": 1, "id": "b", "type": "function", "function": {"name": "g", "arguments": "{}"}}],
    ],
    "no index": [
        [{"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x":'}}],
        [{"id": "a", "function": {"arguments": "1}"}}],
        [{"id": "b", "function": {"name": "g", "arguments": "{}"}}],
    ],
    "neither": [
        [{"function": {"name": "f", "arguments": '{"x":'}}],
        [{"function": {"arguments": "1}"}}],
        [{"function": {"name": "g", "arguments": "{}"}}],
    ],
    "index null": [
        [{"index": None, "id": "a", "function": {"name": "f", "arguments": '{"x":1}'}}],
        [{"index": None, "id": "b", "function": {"name": "g", "arguments": "{}"}}],
    ],
    "whole at once": [
        [{"index": 0, "id": "a", "function": {"name": "f", "arguments": '{"x":1}'}}, {"index": 1, "id": "b", "function": {"name": "g", "arguments": "{}"}}],
    ],
    "arguments as object": [
        [{"index": 0, "id": "a", "function": {"name": "f", "arguments": {"x": 1}}}],
        [{"index": 1, "id": "b", "function": {"name": "g", "arguments": {}}}],
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", TOOLS)
async def test_tool_calls(name):
    events = [
        chunk({"role": "assistant", "content": None}),
        *[chunk({"tool_calls": c}) for c in TOOLS[name]],
        chunk(reason="tool_calls"),
    ]
    completion = await check(sse(frames(events)), said="")
    calls = completion.choices[0].message.tool_calls
    assert [call.function.name for call in calls] == ["f", "g"]
    assert [json.loads(call.function.arguments) for call in calls] == [{"x": 1}, {}]


def whole(message=None, *, reason="stop", **more):
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": "Hello"} if message is None else message,
        "finish_reason": reason,
    }
    return {
        "id": "c1",
        "object": "chat.completion",
        "created": 1,
        "model": MODEL,
        "choices": [choice],
        **more,
    }


WHOLES = {
    "plain": whole(),
    "null reason": whole(reason=None),
    "no reason": {"choices": [{"message": {"content": "Hello"}}]},
    "no role": whole({"content": "Hello"}),
    "usage empty": whole(usage={}),
    "usage null": whole(usage=None),
    "extra fields": whole(timings={"a": 1}, prompt_logprobs=None, kv_transfer_params=None),
    "created float": whole(created=1702453635.5),
    "created text": whole(created="1702453635"),
    "id null": whole(id=None, model=None, object=None),
    "null error": whole(error=None),
    "parts": whole(
        {
            "role": "assistant",
            "content": [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}],
        }
    ),
    "reasoning": whole(
        {
            "role": "assistant",
            "content": "Hello",
            "reasoning_content": "Thinking",
            "reasoning": "so",
        }
    ),
    "logprobs null": {
        **whole(),
        "choices": [{**whole()["choices"][0], "logprobs": None, "stop_reason": 2}],
    },
    "index missing": {
        "choices": [{"message": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop"}]
    },
}


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
@pytest.mark.parametrize("name", WHOLES)
async def test_whole_answers(name, framing):
    answer = Answer.body(json.dumps(WHOLES[name]).encode(), framing=framing)
    async with serving(FaultServer(answer)) as client:
        completion = await ask(client, stream=False)
        assert text_of(completion) == "Hello"
        assert completion.choices[0].message.role == "assistant"
        if name.startswith("usage"):
            assert completion.usage is None
        assert completion.raw == WHOLES[name]


@pytest.mark.parametrize(
    "message",
    [
        {"role": "assistant", "content": None},
        {"role": "assistant"},
        {"role": "assistant", "content": ""},
    ],
)
async def test_an_answer_without_text_is_an_answer(message):
    async with serving(FaultServer(Answer.body(json.dumps(whole(message)).encode()))) as client:
        assert text_of(await ask(client, stream=False)) == ""


async def test_numbers_beyond_all_bounds():
    for number in ("1e400", "99999999999999999999999", "-0.0"):
        body = json.dumps(whole()).replace('"created": 1', f'"created": {number}').encode()
        async with serving(FaultServer(Answer.body(body))) as client:
            assert text_of(await ask(client, stream=False)) == "Hello"


async def test_nested_beyond_all_reason():
    body = (
        b'{"choices":[{"message":{"content":"Hello"}}],"x":'
        + b"[" * 100_000
        + b"]" * 100_000
        + b"}"
    )
    async with serving(FaultServer(Answer.body(body))) as client:
        with pytest.raises(ResponseDecodeError, match="nested too deeply"):
            await ask(client, stream=False)
    async with serving(FaultServer(sse([f"data: {body.decode()}\n\n"]))) as client:
        with pytest.raises(ResponseDecodeError, match="nested too deeply"):
            await ask(client, stream=True)


async def test_models_and_embeddings():
    models = Answer.body(b'{"data":[{"id":"a/b","created":1.5,"extra":{"x":1}},{"id":"c"}]}')
    model = Answer.body(b'{"id":"a/b","object":"model"}')
    vectors = Answer.body(
        b'{"data":[{"index":1,"embedding":"AACAPwAAAEA="},{"index":0,"embedding":[1,2.5]}],"model":"e","usage":{"prompt_tokens":2,"total_tokens":2}}'
    )
    server = FaultServer(models, model, vectors)
    async with serving(server) as client:
        assert [m.id for m in (await client.models.list()).data] == ["a/b", "c"]
        assert (await client.models.retrieve("a/b")).id == "a/b"
        result = await client.embeddings.create(model="e", input=["x", "y"])
        assert [item.embedding for item in result.data] == [[1.0, 2.0], [1.0, 2.5]]
        assert result.usage.total == 2
    assert [r.path for r in server.requests] == ["/v1/models", "/v1/models/a/b", "/v1/embeddings"]
