"""Scripted faults: each of them, as a client that knows nothing sees it."""

import asyncio
import json
import zlib
from dataclasses import dataclass

import aiohttp
import pytest

from konko_async.testing import Emulator, faults

CHAT = "codellama/codellama-13b-instruct"
HELLO = {"model": CHAT, "messages": [{"role": "user", "content": "Hello there"}], "max_tokens": 9}
STREAM = {**HELLO, "stream": True}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"required": ["a"]}}}
DONE = b"data: [DONE]\n\n"


@pytest.fixture
async def emulator():
    async with Emulator() as running:
        yield running


@pytest.fixture
async def http():
    headers = {"Authorization": "Bearer k"}
    async with aiohttp.ClientSession(headers=headers, auto_decompress=False) as session:
        yield session


async def send(http, emulator, body=STREAM):
    """Status, headers and body of an answer; what went wrong while reading, if something did."""
    data = b""
    async with http.post(f"{emulator.base_url}/chat/completions", json=body) as response:
        try:
            async for piece in response.content.iter_any():
                data += piece
        except (aiohttp.ClientError, ConnectionError) as error:
            return response.status, response.headers, data, error
        return response.status, response.headers, data, None


def events(data):
    return [json.loads(part[6:]) for part in data.split(b"\n\n") if part.startswith(b"data: {")]


def text(data):
    deltas = (choice["delta"] for event in events(data) for choice in event.get("choices", ()))
    return "".join(delta.get("content") or "" for delta in deltas)


async def plain(http, emulator, body=STREAM):
    _, _, data, error = await send(http, emulator, body)
    assert error is None
    return data


# -- statuses


@pytest.mark.parametrize("body", [HELLO, STREAM])
@pytest.mark.parametrize(
    "status", [400, 401, 403, 404, 408, 409, 418, 422, 429, 500, 503, 529, 599]
)
async def test_status(emulator, http, status, body):
    emulator.script(faults.Status(status))
    got, headers, data, _ = await send(http, emulator, body)
    assert got == status
    assert headers["content-type"] == "application/json"
    error = json.loads(data)["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["message"]
    assert error["type"]
    assert headers["x-request-id"]
    assert (await send(http, emulator, body))[0] == 200


@pytest.mark.parametrize(
    ("body", "content_type", "expected"),
    [
        ({"detail": "no"}, "application/json", b'{"detail":"no"}'),
        ([1], "application/json", b"[1]"),
        ("<html>Bad</html>", "text/html; charset=utf-8", b"<html>Bad</html>"),
        ("Bad", "text/plain; charset=utf-8", b"Bad"),
        (b"\x00\xff", "application/octet-stream", b"\x00\xff"),
        (b"", None, b""),
    ],
)
async def test_bodies_of_a_status(emulator, http, body, content_type, expected):
    emulator.script(faults.Status(502, body))
    status, headers, data, _ = await send(http, emulator)
    assert (status, data) == (502, expected)
    if content_type:
        assert headers["content-type"] == content_type


async def test_retry_headers_and_error_fields(emulator, http):
    emulator.script(
        faults.Status(
            429,
            message="Pay first.",
            type="billing",
            param="plan",
            code="insufficient_quota",
            retry_after="Fri, 31 Dec 2100 23:59:59 GMT",
            retry_after_ms=17.5,
            should_retry=False,
            headers={"X-More": "yes", "Content-Type": "application/problem+json"},
        ),
        faults.Status(503, retry_after=1.5, should_retry=True),
    )
    _, headers, data, _ = await send(http, emulator)
    assert json.loads(data)["error"] == {
        "message": "Pay first.",
        "type": "billing",
        "param": "plan",
        "code": "insufficient_quota",
    }
    assert headers["retry-after"] == "Fri, 31 Dec 2100 23:59:59 GMT"
    assert headers["retry-after-ms"] == "17.5"
    assert headers["x-should-retry"] == "false"
    assert headers["x-more"] == "yes"
    assert headers.getall("content-type") == ["application/problem+json"]
    _, headers, _, _ = await send(http, emulator)
    assert (headers["retry-after"], headers["x-should-retry"]) == ("1.5", "true")


async def test_a_json_error_with_status_200(emulator, http):
    emulator.script(faults.Status(200, {"error": "no"}))
    status, headers, data, _ = await send(http, emulator)
    assert (status, headers["content-type"]) == (200, "application/json")
    assert json.loads(data) == {"error": "no"}


async def test_redirect(emulator, http):
    emulator.script(faults.Redirect("http://127.0.0.2/v1", status=308))
    url = f"{emulator.base_url}/chat/completions"
    async with http.post(url, json=HELLO, allow_redirects=False) as response:
        assert response.status == 308
        assert response.headers["location"] == "http://127.0.0.2/v1"
        assert await response.read() == b""


# -- silence and cuts


@pytest.mark.parametrize("body", [HELLO, STREAM])
async def test_delay(emulator, http, body):
    emulator.script(faults.Delay(0.03))
    assert (await send(http, emulator, body))[0] == 200
    record = emulator.requests[-1]
    assert record.first_byte - record.started >= 0.03
    assert record.faults == ("Delay",)


async def test_stall_before_the_headers(emulator, http):
    emulator.script(faults.Stall())
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.03):
            await send(http, emulator)
    await emulator.wait_until(lambda: not emulator.in_flight)
    record = emulator.requests[-1]
    assert (record.status, record.disconnected) == (None, True)


@pytest.mark.parametrize("after", [0, 1, 4])
async def test_stall_after_chunks(emulator, http, after):
    emulator.script(faults.Stall(after))
    async with http.post(f"{emulator.base_url}/chat/completions", json=STREAM) as response:
        assert response.status == 200
        await emulator.wait_until(lambda: emulator.requests[-1].chunks_sent == after)
        data = await response.content.readany() if after else b""
        assert len(events(data)) == after
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await response.content.readany()


@pytest.mark.parametrize("body", [HELLO, STREAM])
@pytest.mark.parametrize("after", [0, 2, 1000])
async def test_a_stall_that_ends_loses_nothing(emulator, http, after, body):
    usual = await plain(http, emulator, body)
    emulator.script(faults.Stall(after, seconds=0.02))
    data = await plain(http, emulator, body)
    assert len(data) == len(usual)
    assert text(data) == text(usual)
    record = emulator.requests[-1]
    assert record.finished - record.first_byte >= 0.02


async def test_heartbeats(emulator, http):
    emulator.script(faults.Stall(2, seconds=0.05, heartbeat=0.01, comment=": still here"))
    data = await plain(http, emulator)
    parts = data.split(b"\n\n")
    assert 1 <= parts.count(b": still here") <= 6
    assert parts.index(b": still here") == 2
    assert data.endswith(DONE)


@pytest.mark.parametrize("reset", [True, False])
@pytest.mark.parametrize("body", [HELLO, STREAM])
async def test_cut_before_the_headers(emulator, http, body, reset, caplog):
    emulator.script(faults.Cut(reset=reset))
    kind = aiohttp.ClientOSError if reset else aiohttp.ServerDisconnectedError
    with pytest.raises(kind):
        await send(http, emulator, body)
    await emulator.wait_until(lambda: not emulator.in_flight)
    record = emulator.requests[-1]
    assert (record.status, record.disconnected) == (None, False)
    assert not caplog.records


@pytest.mark.parametrize("reset", [True, False])
@pytest.mark.parametrize("after", [0, 1, 5, 1000])
async def test_cut_in_a_stream(emulator, http, after, reset):
    usual = await plain(http, emulator)
    emulator.script(faults.Cut(after, reset=reset))
    status, _, data, error = await send(http, emulator)
    assert status == 200
    assert isinstance(error, aiohttp.ClientPayloadError)
    assert ("reset" in str(error)) == reset
    sent = min(after, len(events(usual)))
    assert len(events(data)) == sent
    assert DONE not in data
    assert emulator.requests[-1].chunks_sent == sent


@pytest.mark.parametrize("after", [0, 1, 7])
async def test_cut_in_a_whole_answer(emulator, http, after):
    usual = await plain(http, emulator, HELLO)
    emulator.script(faults.Cut(after, reset=False))
    _, headers, data, error = await send(http, emulator, HELLO)
    assert isinstance(error, aiohttp.ClientPayloadError)
    assert int(headers["content-length"]) == len(usual)
    assert len(data) == (len(usual) // 2 if after else 0)


# -- broken streams


@pytest.mark.parametrize("after", [0, 1, 3])
@pytest.mark.parametrize("done", [True, False])
@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ("object", {"error": {"message": "m", "type": "t", "param": None, "code": 503}}),
        ("text", {"error": "m"}),
        ("event", {"message": "m", "type": "t", "param": None, "code": 503}),
        ("flat", {"object": "error", "message": "m", "type": "t", "param": None, "code": 503}),
    ],
)
async def test_error_in_stream(emulator, http, after, done, shape, expected):  # noqa: PLR0917
    emulator.script(faults.ErrorInStream(after, shape, "m", "t", 503, done=done))
    status, _, data, error = await send(http, emulator)
    assert (status, error) == (200, None)
    assert (b"event: error\ndata: " in data) == (shape == "event")
    assert data.endswith(DONE) == done
    parts = events(data.replace(b"event: error\n", b""))
    assert len(parts) == after + 1
    assert parts[-1] == expected
    emulator.script(faults.ErrorInStream(after, shape, "m", "t", 503, done=done))
    status, _, data, _ = await send(http, emulator, HELLO)
    assert (status, json.loads(data)) == (200, expected)


async def test_malformed_json(emulator, http):
    emulator.script(faults.MalformedJSON(2), faults.MalformedJSON(1000), faults.MalformedJSON())
    parts = (await plain(http, emulator)).split(b"\n\n")
    broken = [at for at, part in enumerate(parts[:-2]) if not part.endswith(b"}")]
    assert broken == [2]
    parts = (await plain(http, emulator)).split(b"\n\n")
    assert [at for at, p in enumerate(parts[:-2]) if not p.endswith(b"}")] == [len(parts) - 3]
    with pytest.raises(json.JSONDecodeError):
        json.loads(await plain(http, emulator, HELLO))


@pytest.mark.parametrize("body", [HELLO, STREAM])
async def test_invalid_utf8(emulator, http, body):
    usual = await plain(http, emulator, body)
    emulator.script(faults.InvalidUTF8(2))
    data = await plain(http, emulator, body)
    with pytest.raises(UnicodeDecodeError):
        data.decode()
    assert data.count(b"\xff\xc3\x28") == 1
    assert len(data) == len(usual) + 3


async def test_wrong_content_types(emulator, http):
    usual = await plain(http, emulator)
    emulator.script(faults.WrongContentType("text/html"), faults.WrongContentType(""))
    _, headers, data, _ = await send(http, emulator)
    assert headers["content-type"] == "text/html"
    assert text(data) == text(usual)
    _, headers, data, _ = await send(http, emulator)
    assert headers["content-type"] == "application/octet-stream"


@pytest.mark.parametrize("body", [HELLO, STREAM])
async def test_empty_body(emulator, http, body):
    emulator.script(faults.EmptyBody())
    status, headers, data, error = await send(http, emulator, body)
    assert (status, data, error) == (200, b"", None)
    expected = "text/event-stream" if body is STREAM else "application/json"
    assert headers["content-type"].startswith(expected)


async def test_gzip_bomb(emulator, http):
    emulator.script(
        faults.GzipBomb(size=8 * 2**20), faults.GzipBomb(size=1, content_type="text/event-stream")
    )
    _, headers, data, _ = await send(http, emulator, HELLO)
    assert headers["content-encoding"] == "gzip"
    assert len(data) < 8 * 2**20 / 500
    huge = zlib.decompressobj(wbits=31).decompress(data)
    assert huge == b'{"id":"' + b"x" * (8 * 2**20)
    _, _, data, _ = await send(http, emulator)
    assert zlib.decompressobj(wbits=31).decompress(data) == b"data: " + b"x" * 2**20


# -- quirks


async def quirky(http, emulator, body=STREAM, **options):
    usual = await plain(http, emulator, body)
    emulator.script(faults.Quirks(**options))
    data = await plain(http, emulator, body)
    assert text(data) == text(usual)
    return data, events(data)


async def test_no_done_and_no_finish_reason(emulator, http):
    data, _ = await quirky(http, emulator, done=False)
    assert DONE not in data
    _, parts = await quirky(http, emulator, finish_reason=False)
    assert not any(choice["finish_reason"] for part in parts for choice in part["choices"])
    emulator.script(faults.Quirks(finish_reason=False))
    answer = json.loads(await plain(http, emulator, HELLO))
    assert answer["choices"][0]["finish_reason"] is None


async def test_heartbeats_between_events(emulator, http):
    data, parts = await quirky(http, emulator, heartbeats=": OPENROUTER PROCESSING")
    assert data.count(b": OPENROUTER PROCESSING\n\n") == len(parts) + 1
    assert emulator.requests[-1].chunks_sent == len(parts)


async def test_usage_on_every_chunk(emulator, http):
    options = {"stream_options": {"include_usage": True}}
    real = events(await plain(http, emulator, {**STREAM, **options}))[-1]["usage"]
    _, parts = await quirky(http, emulator, usage="each")
    counts = [part["usage"]["completion_tokens"] for part in parts]
    assert counts == sorted(counts)
    assert parts[-1]["usage"] == real
    _, parts = await quirky(http, emulator, usage="empty")
    assert all(part["usage"] == {} for part in parts)
    for body in (HELLO, {**STREAM, **options}):
        _, parts = await quirky(http, emulator, body, usage="none")
        assert not any("usage" in part for part in parts)
    assert "usage" not in json.loads(await plain_quirk(http, emulator, usage="none"))
    assert json.loads(await plain_quirk(http, emulator, usage="empty"))["usage"] == {}


async def plain_quirk(http, emulator, **options):
    emulator.script(faults.Quirks(**options))
    return await plain(http, emulator, HELLO)


async def test_null_and_missing_content(emulator, http):
    _, parts = await quirky(http, emulator, null_content=True)
    assert [p["choices"][0]["delta"].get("content", 0) for p in parts].count(None) == 2
    _, parts = await quirky(http, emulator, missing_content=True)
    assert "content" not in parts[0]["choices"][0]["delta"]
    _, parts = await quirky(http, emulator, {**STREAM, "tools": [TOOL]}, missing_content=True)
    assert not any("content" in part["choices"][0]["delta"] for part in parts)


async def test_role_in_each_and_empty_choices(emulator, http):
    _, parts = await quirky(http, emulator, role_in_each=True)
    assert all(part["choices"][0]["delta"]["role"] == "assistant" for part in parts)
    _, parts = await quirky(http, emulator, empty_choices=True)
    assert [len(part["choices"]) for part in parts] == [0] + [1] * (len(parts) - 1)


async def test_tool_calls_without_index_or_id(emulator, http):
    body = {**STREAM, "tools": [TOOL]}
    _, parts = await quirky(http, emulator, body, tool_index=False, tool_id=False)
    calls = [c for p in parts for c in p["choices"][0]["delta"].get("tool_calls", ())]
    assert calls
    assert not any("index" in call or "id" in call for call in calls)
    emulator.script(faults.Quirks(tool_id=False))
    answer = json.loads(await plain(http, emulator, {**HELLO, "tools": [TOOL]}))
    assert "id" not in answer["choices"][0]["message"]["tool_calls"][0]


async def test_other_fields(emulator, http):
    extra = {"timings": {"ms": 1}}
    delta = {"reasoning_content": "Hm."}
    options = {"float_created": True, "extra": extra, "extra_delta": delta}
    _, parts = await quirky(http, emulator, **options)
    assert all(isinstance(part["created"], float) for part in parts)
    assert all(part["timings"] == {"ms": 1} for part in parts)
    assert all(p["choices"][0]["delta"]["reasoning_content"] == "Hm." for p in parts)
    answer = json.loads(await plain_quirk(http, emulator, **options))
    assert answer["choices"][0]["message"]["reasoning_content"] == "Hm."


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
async def test_how_events_are_written(emulator, http, newline):
    usual = await plain(http, emulator)
    emulator.script(faults.Quirks(newline=newline, space=False, bom=True, heartbeats=":"))
    data = await plain(http, emulator)
    assert data.startswith(b"\xef\xbb\xbf:" + newline.encode() * 2 + b"data:{")
    end = newline.encode()
    clean = data[3:].replace(b":" + end + end, b"").replace(end, b"\n")
    assert clean.count(b"\n\n") == usual.count(b"\n\n")
    assert text(clean.replace(b"data:", b"data: ")) == text(usual)
    assert emulator.requests[-1].chunks_sent == len(events(usual))


async def test_quirks_leave_other_answers_alone(emulator, http):
    emulator.always(faults.Quirks(usage="empty", float_created=True))
    async with http.get(f"{emulator.base_url}/models") as response:
        assert "usage" not in await response.json()
    status, _, data, _ = await send(http, emulator, {**HELLO, "n": 0})
    assert (status, list(json.loads(data))) == (400, ["error"])
    emulator.script(faults.Status(200, "<html>"))
    assert (await send(http, emulator))[2] == b"<html>"


# -- which call they are meant for


async def test_the_order_of_a_script(emulator, http):
    emulator.script(faults.Status(500), None, faults.Status(503))
    emulator.script(faults.Status(502))
    assert emulator.scripted == 4
    statuses = [(await send(http, emulator))[0] for _ in range(5)]
    assert statuses == [500, 200, 503, 502, 200]
    assert emulator.scripted == 0


async def test_matching(emulator, http):
    emulator.script(faults.Status(500), path="/v1/embeddings")
    emulator.script(faults.Status(501), path="/models")
    emulator.script(faults.Status(502), model="other")
    emulator.script(faults.Status(503), when=lambda record: record.body.get("seed") == 5)
    assert (await send(http, emulator))[0] == 200
    assert (await send(http, emulator, {**HELLO, "seed": 5}))[0] == 503
    assert (await send(http, emulator, {**HELLO, "model": "other"}))[0] == 502
    async with http.get(f"{emulator.base_url}/models/{CHAT}") as response:
        assert response.status == 501
    async with http.post(f"{emulator.base_url}/embeddings", json={}) as response:
        assert response.status == 500
    assert emulator.scripted == 0


async def test_several_for_one_call_and_standing_ones(emulator, http):
    emulator.always(faults.Quirks(done=False), path="/chat/completions")
    emulator.script([faults.Delay(0.01), faults.Cut(2, reset=False)])
    _, _, data, error = await send(http, emulator)
    assert error is not None
    assert len(events(data)) == 2
    assert emulator.requests[-1].faults == ("Quirks", "Delay", "Cut")
    assert DONE not in await plain(http, emulator)
    emulator.clear()
    assert DONE in await plain(http, emulator)


async def test_an_early_fault_with_a_delay(emulator, http):
    emulator.script([faults.Delay(0.01), faults.Status(429)])
    assert (await send(http, emulator))[0] == 429
    assert emulator.requests[-1].first_byte - emulator.requests[-1].started >= 0.01


async def test_outage(emulator, http):
    emulator.outage = 503
    emulator.script(faults.Status(500))
    assert [(await send(http, emulator))[0] for _ in range(2)] == [503, 503]
    async with http.get(f"{emulator.base_url}/models") as response:
        assert response.status == 503
    emulator.outage = faults.Status(502, "<html>down</html>")
    assert (await send(http, emulator))[2] == b"<html>down</html>"
    emulator.outage = None
    assert (await send(http, emulator))[0] == 500
    emulator.outage = 500
    emulator.clear()
    assert emulator.outage is None
    assert (await send(http, emulator))[0] == 200


def test_what_is_no_fault_is_refused():
    emulator = Emulator()
    with pytest.raises(TypeError, match="not a fault"):
        emulator.script(500)
    with pytest.raises(TypeError, match="not a fault"):
        emulator.always([faults.Delay])


async def test_a_fault_of_ones_own(emulator, http):
    @dataclass(frozen=True)
    class Shout(faults.Fault):
        mark: str

        def edit(self, reply):
            reply.headers["x-shout"] = self.mark
            reply.steps[:] = [
                step.upper() if isinstance(step, bytes) else step for step in reply.steps
            ]
            reply.put(1, faults.Pause(0.001))

    emulator.script(Shout("loud"))
    _, headers, data, _ = await send(http, emulator)
    assert headers["x-shout"] == "loud"
    assert data == data.upper()
    assert faults.Fault().edit(None) is None


async def test_paced_streams_with_faults(emulator, http):
    emulator.tokens_per_second = 1000
    usual = await plain(http, emulator)
    emulator.script(faults.Stall(3, seconds=0.02), faults.Cut(3, reset=False))
    assert len(await plain(http, emulator)) == len(usual)
    _, _, data, error = await send(http, emulator)
    assert error is not None
    assert len(events(data)) == 3
