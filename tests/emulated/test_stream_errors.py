"""Errors inside a 200: every shape of them, at every place of a stream and in whole answers."""

import json

import pytest
from client_kit import ASK, ask, in_flight, pooled, serving, text_of

from konko_async import (
    APIError,
    APIStatusError,
    AuthenticationError,
    BadRequestError,
    InternalServerError,
    NotFoundError,
    RateLimitError,
    ResponseDecodeError,
    RetryPolicy,
    StreamServerError,
    StreamTruncatedError,
)
from konko_async.testing import Answer, FaultServer

FAST = RetryPolicy(max_attempts=2, base_delay=0.0)
WORDS = "the backend is out of memory"


def chunk(content=None, reason=None, **more):
    delta = {} if content is None else {"content": content}
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": reason, **more}]}


def data(value):
    return f"data: {value if isinstance(value, str) else json.dumps(value)}\n\n".encode()


TEXT = data(chunk("Hel"))
MORE = data(chunk("lo"))
STOP = data(chunk(reason="stop"))
DONE = data("[DONE]")
# The bytes of an error, its class before the first delta, and whether it is worth another attempt.
SHAPES = {
    "object, retryable": (data({"error": {"message": WORDS, "code": 503}}), InternalServerError, True),
    "object, status as text": (data({"error": {"message": WORDS, "code": "429"}}), RateLimitError, True),
    "object, status by name": (data({"error": {"message": WORDS, "type": "invalid_request_error"}}), BadRequestError, False),
    "object, no status": (data({"error": {"message": WORDS}}), StreamServerError, True),
    "object beside choices": (data({"error": {"message": WORDS, "code": 500}, "choices": []}), InternalServerError, True),
    "text": (data({"error": WORDS}), StreamServerError, True),
    "text and status": (data({"error": WORDS, "status": 401}), AuthenticationError, False),
    "list": (data([{"error": {"message": WORDS, "code": 404}}]), NotFoundError, False),
    "object error": (data({"object": "error", "message": WORDS, "code": 400}), BadRequestError, False),
    "type error": (data({"type": "error", "error": {"type": "overloaded_error", "message": WORDS}}), InternalServerError, True),
    "detail": (data({"detail": WORDS}), StreamServerError, True),
    "detail list": (data({"detail": [{"loc": ["body", "n"], "msg": WORDS}]}), StreamServerError, True),
    "message": (data({"message": WORDS, "code": 500}), InternalServerError, True),
    "error_code": (data({"error_code": 17, "error_msg": WORDS}), StreamServerError, True),
    "base_resp": (data({"choices": None, "base_resp": {"status_code": 1004, "status_msg": WORDS}}), AuthenticationError, False),
    "base_resp, limit": (data({"base_resp": {"status_code": 1002, "status_msg": WORDS}}), RateLimitError, True),
    "errors": (data({"success": False, "result": None, "errors": [{"code": 10000, "message": WORDS}]}), AuthenticationError, False),
    "success": (data({"success": False, "message": WORDS}), StreamServerError, True),
    "in the choice": (data(chunk(reason="error", error={"code": 502, "message": WORDS})), InternalServerError, True),
    "in the choice, stop": (data(chunk(reason="stop", error={"code": 400, "message": WORDS})), BadRequestError, False),
    "in the delta": (data({"choices": [{"index": 0, "delta": {"error": {"message": WORDS}}}]}), StreamServerError, True),
    "named event": (f"event: error\ndata: {json.dumps({'message': WORDS})}\n\n".encode(), StreamServerError, True),
    "named event, text": (f"event: error\ndata: {WORDS}\n\n".encode(), StreamServerError, True),
    "named event, other name": (f"event: stream_error\ndata: {WORDS}\n\n".encode(), StreamServerError, True),
    "named chunk": (f"event: chunk\ndata: {json.dumps({'error': {'message': WORDS, 'code': 500}})}\n\n".encode(), InternalServerError, True),
    "field": (f"error: {json.dumps({'code': 400, 'message': WORDS})}\n\n".encode(), BadRequestError, False),
    "field, text": (f"error: {WORDS}\n\n".encode(), StreamServerError, True),
    "bare line": (json.dumps({"error": {"code": 500, "message": WORDS}}).encode() + b"\n\n", InternalServerError, True),
    "bare lines": (json.dumps({"error": {"code": 500, "message": WORDS}}, indent=1).encode() + b"\n\n", InternalServerError, True),
    "words as data": (data(WORDS), StreamServerError, True),
    "words with a status": (data(f"502 Bad Gateway: {WORDS}"), InternalServerError, True),
    "bare words": (f"upstream failed: {WORDS}\n\n".encode(), StreamServerError, True),
}  # fmt: skip
# A chunk before the error, and what follows it.
POSITIONS = {
    "first": (b"", b""),
    "first, then the end": (b"", STOP + DONE),
    "after the head": (data({"choices": [], "id": "x"}) + data(chunk("")), DONE),
    "after a delta": (TEXT, b""),
    "after a delta, then the end": (TEXT, STOP + DONE),
    "after chunks alike": (TEXT + MORE * 40, DONE),
    "after the finish_reason": (TEXT + STOP, DONE),
    "behind the end": (TEXT + STOP + DONE, b""),
}
# Behind the end only what calls itself an error is looked for: the answer was whole.
UNNAMED = {"detail", "detail list", "message", "success", "words as data", "words with a status", "bare words"}  # fmt: skip


def stream_of(*pieces, together):
    body = [b"".join(pieces)] if together else [piece for piece in pieces if piece]
    return Answer.body(body, content_type="text/event-stream", framing="chunked")


@pytest.mark.parametrize("together", [True, False], ids=["one read", "reads"])
@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("shape", SHAPES)
async def test_an_error_beats_everything_else(shape, position, together):
    event, kind, retryable = SHAPES[shape]
    before, after = POSITIONS[position]
    if position == "behind the end" and shape in UNNAMED:
        pytest.skip("the answer was whole")
    if shape.startswith("bare") and not before:
        pytest.skip("no event stream: see the test of other bodies")
    server = FaultServer(default=lambda _: stream_of(before, event, after, together=together))
    early = position in {"first", "first, then the end", "after the head"}
    async with serving(server, retry=FAST) as client:
        with pytest.raises(APIError) as caught:
            await ask(client, stream=True)
        error = caught.value
        assert WORDS in error.message
        assert error.__context__ is None
        assert error.__cause__ is None
        if early:
            assert type(error) is kind
            assert error.partial is None
            assert len(server.requests) == len(error.attempts) == (2 if retryable else 1)
        else:
            assert type(error) is StreamServerError
            assert text_of(error.partial).startswith("Hel")
            assert len(server.requests) == 1
        assert in_flight(client) == 0
        assert pooled(client)[1] == 0


@pytest.mark.parametrize("shape", SHAPES)
async def test_a_stream_call_answered_by_an_error_that_is_no_stream(shape):
    event, kind, _ = SHAPES[shape]
    if not event.startswith((b"data: {", b"data: [", b"{")):
        pytest.skip("not JSON")
    body = event.removeprefix(b"data: ").strip()
    for content, end in (("application/json", b""), ("text/event-stream", b"\n\ndata: [DONE]\n\n")):
        if b"\n" in body and end:
            continue  # JSON over several lines, and events: nobody does both
        server = FaultServer(default=Answer.body(body + end, content_type=content))
        async with serving(server) as client:
            with pytest.raises(kind, match=WORDS):
                await ask(client, stream=True)


@pytest.mark.parametrize("shape", SHAPES)
async def test_a_whole_answer_that_is_an_error(shape):
    event, kind, retryable = SHAPES[shape]
    if not event.startswith((b"data: {", b"data: [", b"{")):
        pytest.skip("not JSON")
    server = FaultServer(default=Answer.body(event.removeprefix(b"data: ").strip()))
    async with serving(server, retry=FAST) as client:
        with pytest.raises(kind, match=WORDS):
            await ask(client, stream=False)
        assert len(server.requests) == (2 if retryable else 1)


@pytest.mark.parametrize(
    ("body", "kind", "content"),
    [
        (b"502 Bad Gateway", InternalServerError, "text/plain"),
        (b"HTTP 429: slow down", RateLimitError, "text/plain"),
        (b"Internal Server Error", InternalServerError, "text/event-stream"),
        (b"<html><head><title>503 Service Unavailable</title></head></html>", InternalServerError, "text/html"),
        (b"upstream went away", ResponseDecodeError, "text/plain"),
        (b"<p>sorry", ResponseDecodeError, "text/html"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_a_body_of_words(body, kind, content, stream):
    async with serving(FaultServer(Answer.body(body, content_type=content))) as client:
        with pytest.raises(kind) as caught:
            await ask(client, stream=stream)
        assert caught.value.partial is None
        if isinstance(caught.value, APIStatusError):
            assert caught.value.body == body.decode() or "503" in caught.value.message
        elif stream:
            assert body.decode().removeprefix("<p>") in caught.value.message


FAILED = ("error", "abort", "network_error", "insufficient_system_resource")


@pytest.mark.parametrize("reason", FAILED)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_a_finish_reason_that_is_a_failure(reason, stream):
    whole = {"choices": [{"index": 0, "message": {"content": "Hel"}, "finish_reason": reason}]}
    answer = (
        stream_of(TEXT, data(chunk("", reason)), DONE, together=False)
        if stream
        else Answer.body(json.dumps(whole).encode())
    )
    async with serving(FaultServer(answer)) as client:
        with pytest.raises(APIError, match=reason) as caught:
            await ask(client, stream=stream)
        if stream:
            assert text_of(caught.value.partial) == "Hel"


ALL_IS_WELL = (
    {"error": None}, {"error": {}}, {"error": ""}, {"error": {"code": 0, "message": ""}}, {"errors": []},
    {"success": True}, {"base_resp": {"status_code": 0, "status_msg": ""}}, {"error_code": 0, "message": "ok"},
)  # fmt: skip


@pytest.mark.parametrize("fields", ALL_IS_WELL, ids=str)
async def test_fields_that_say_that_all_is_well(fields):
    events = [
        data({**event, **fields}) for event in (chunk("Hel"), chunk("lo"), chunk(reason="stop"))
    ]
    whole = {"choices": [{"message": {"content": "Hello"}, "finish_reason": "stop"}], **fields}
    server = FaultServer(
        stream_of(*events, DONE, together=False), Answer.body(json.dumps(whole).encode())
    )
    async with serving(server) as client:
        assert text_of(await ask(client, stream=True)) == "Hello"
        assert text_of(await ask(client, stream=False)) == "Hello"


KEPT_ALIVE = (
    "event: ping\ndata:\n\n", "event: ping\ndata: 17\n\n", "event: heartbeat\ndata: still here\n\n",
    'event: ping\ndata: {"type": "ping"}\n\n', 'data: {"type": "ping"}\n\n', ": x\n\n", "data: : PROCESSING\n\n",
    "data: ping\n\n", "data: 17\n\n", "data: null\n\n", "retry: 10\n\n", "id: 3\n\n", "unknown: field\n\n",
    'event: agent.progress\ndata: {"message": "listing files", "status": "running"}\n\n',
    'data: {"type": "progress", "message": "loading"}\n\n',
)  # fmt: skip


@pytest.mark.parametrize("alive", KEPT_ALIVE)
async def test_what_only_keeps_a_stream_alive_is_passed_over(alive):
    sign = alive.encode()
    server = FaultServer(stream_of(sign, TEXT, sign, MORE, sign, STOP, sign, DONE, together=False))
    async with serving(server) as client, client.chat.completions.stream(**ASK) as stream:
        assert [text async for text in stream.text()] == ["Hel", "lo"]
        assert text_of(await stream.completion()) == "Hello"


# -- framing that bends the standard -------------------------------------------------------------

ENDS = {
    "no empty line": (TEXT, MORE, STOP, b"data: [DONE]"),
    "no space": (TEXT, MORE, STOP, b"data:[DONE]"),
    "CRLF": (*(part.replace(b"\n", b"\r\n") for part in (TEXT, MORE, STOP)), b"data: [DONE]\r\n"),
    "quotes": (TEXT, MORE, STOP, b'data: "[DONE]"\n\n'),
    "bare": (TEXT, MORE, STOP, b"[DONE]\n"),
    "no end but a whole chunk": (TEXT, data(chunk("lo", "stop"))[:-2]),
    "single line feeds": (TEXT[:-1], MORE[:-1], STOP[:-1], DONE),
    "some single line feeds": (TEXT, MORE[:-1] + STOP[:-1] + DONE),
    "end in one block": (TEXT, MORE, STOP[:-1] + DONE),
    "named": (b"event: chunk\n" + TEXT, b"event: chunk\n" + MORE, STOP, DONE),
    "bare chunks": (TEXT, MORE.removeprefix(b"data: "), STOP, DONE),
    "indented": (TEXT, b" " + MORE, STOP, DONE),
}


@pytest.mark.parametrize("name", ENDS)
async def test_framing_that_can_be_understood(name):
    pieces = ENDS[name]
    whole = stream_of(*pieces, together=True)
    for answer in (whole, stream_of(*pieces, together=False), whole.split_every(5)):
        async with serving(FaultServer(answer)) as client:
            completion = await ask(client, stream=True)
            assert text_of(completion) == "Hello"
            async with client.chat.completions.stream(**ASK) as stream:
                assert "".join([text async for text in stream.text()]) == "Hello"


@pytest.mark.parametrize("cut", range(1, 40))
async def test_a_last_block_that_is_cut_is_no_end(cut):
    last = data(chunk("lo", "stop"))
    answer = stream_of(TEXT, last[: -2 - cut], together=False)
    async with serving(FaultServer(answer)) as client:
        with pytest.raises(StreamTruncatedError) as caught:
            await ask(client, stream=True)
        assert text_of(caught.value.partial) == "Hel"


async def test_an_event_is_handed_on_before_its_empty_line():
    """A server that parts events by single line feeds does not hold its text up."""
    answer = stream_of(TEXT[:-1], MORE, STOP, DONE, together=False)
    server = FaultServer(answer.stall(answer.wire.rindex(b"data:", 0, answer.wire.index(b'"lo"'))))
    async with serving(server) as client, client.chat.completions.stream(**ASK) as stream:
        assert await anext(stream.text()) == "Hel"
        await server.wait_for_stall()
        server.release()
        assert text_of(await stream.completion()) == "Hello"


HALVES = {
    "pair": ([r"Hi \ud83d", r"\ude00!"], "Hi \U0001f600!"),
    "pair in one": ([r"Hi \ud83d\ude00!"], "Hi \U0001f600!"),
    "alone": ([r"Hi \ud83d", " there"], "Hi \ufffd there"),
    "alone at the end": (["Hi ", r"there\ud83d"], "Hi there\ufffd"),
    "second alone": (["Hi", r"\ude00 there"], "Hi\ufffd there"),
    "two in a row": ([r"\ud83d", r"\ude00\ud83d", r"\ude00"], "\U0001f600\U0001f600"),
    "empty between": ([r"\ud83d", "", r"\ude00"], "\U0001f600"),
    "escaped, no half": ([r"\\ud83d", r"\\ude00"], r"\ud83d\ude00"),
}


@pytest.mark.parametrize("field", ["content", "reasoning_content"])
@pytest.mark.parametrize("name", HALVES)
async def test_halves_of_a_character(name, field):
    parts, expected = HALVES[name]
    plain = data(chunk("x")).decode().replace('"content"', f'"{field}"')
    events = [plain.replace('"x"', f'"{part}"').encode() for part in parts]
    server = FaultServer(default=lambda _: stream_of(*events, STOP, DONE, together=False))
    async with serving(server) as client:
        message = (await ask(client, stream=True)).choices[0].message
        assert getattr(message, field) == expected
        async with client.chat.completions.stream(**ASK) as stream:
            pieces = [chunk.choices[0].delta async for chunk in stream]
            assert "".join(getattr(piece, field) or "" for piece in pieces) == expected


# -- events for a call that asked for none -------------------------------------------------------


@pytest.mark.parametrize(
    "pieces",
    [
        (TEXT, MORE, STOP, DONE),
        (b": hello\n\n", TEXT, MORE, STOP),
        (TEXT[:-1], MORE[:-1], STOP[:-1], DONE[:-2]),
        (json.dumps({"choices": [{"message": {"content": "Hello"}, "finish_reason": "stop"}]}).encode(), b"\n\n", DONE),
        (data({"object": "chat.completion", "choices": [{"message": {"content": "Hello"}, "finish_reason": "stop"}]}), DONE),
    ],
    ids=["events", "no end", "single line feeds", "JSON and the end", "one event"],
)  # fmt: skip
async def test_a_whole_answer_that_comes_as_events(pieces):
    async with serving(FaultServer(stream_of(*pieces, together=True))) as client:
        completion = await ask(client, stream=False)
        assert text_of(completion) == "Hello"
        assert completion.choices[0].finish_reason == "stop"
        assert completion.choices[0].message.role == "assistant"


async def test_events_that_are_cut_are_no_whole_answer():
    async with serving(FaultServer(stream_of(TEXT, MORE, together=True))) as client:
        with pytest.raises(StreamTruncatedError):
            await ask(client, stream=False)
    async with serving(
        FaultServer(stream_of(TEXT, SHAPES["text"][0], DONE, together=True))
    ) as client:
        with pytest.raises(StreamServerError, match=WORDS):
            await ask(client, stream=False)
