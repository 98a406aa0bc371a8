"""Frames, the OpenAI format, and what is told of errors: pure."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from konko_async import ChatCompletionChunk, ChunkBatch, KonkoError, errors
from konko_async.errors import ConfigurationError
from konko_async.relay import OpenAIFormat, RefusalError, StreamStats, public_error
from konko_async.relay._errors import described
from konko_async.relay._formats.openai import completion_json
from konko_async.relay._formats.sse_frames import PING, comment, data, frames, numbered
from konko_async.sse import SSEDecoder
from konko_async.wire import ChatCompletion

AWKWARD = st.text(alphabet="ab:\r\n\0 id\u2028\x85data", max_size=20).map(str.encode) | st.binary(
    max_size=20
)


def seen(payload):
    """What a reader gets of a payload."""
    return payload.decode("utf-8", "replace").replace("\r\n", "\n").replace("\r", "\n")


@given(st.lists(AWKWARD, max_size=5))
def test_no_payload_makes_a_field(payloads):
    events = SSEDecoder().feed(frames(payloads))
    assert [(e.data, e.event, e.id, e.retry) for e in events] == [
        (seen(p), "message", None, None) for p in payloads
    ]


@given(st.lists(AWKWARD, max_size=5), st.integers(1, 10**6))
def test_numbered_frames_carry_their_ids(payloads, first):
    events = SSEDecoder().feed(numbered(payloads, "s-_1", first))
    assert [(e.data, e.event, e.id) for e in events] == [
        (seen(p), "message", f"s-_1.{first + place}") for place, p in enumerate(payloads)
    ]


@pytest.mark.parametrize("bad", [b"a\nb", b"a\rb", b"a\0b", b"\n"])
def test_ids_events_and_comments_that_could_make_a_field_are_refused(bad):
    for call in (
        lambda: data(b"x", id=bad),
        lambda: data(b"x", event=bad),
        lambda: comment(bad),
    ):
        with pytest.raises(ConfigurationError):
            call()


def test_a_frame_with_all():
    assert data(b"x", id=b"1", event=b"e") == b"event: e\nid: 1\ndata: x\n\n"
    assert PING == b": ping\n\n"
    assert SSEDecoder().feed(PING) == []
    assert frames([]) == b""


# -- the OpenAI format -----------------------------------------------------------------------------


def raw_chunk(text, **more):
    choice = {"index": 0, "delta": {"content": text}, "logprobs": None, "finish_reason": None}
    return json.dumps(
        {
            "id": "c",
            "object": "chat.completion.chunk",
            "created": 1,
            "model": "m",
            "choices": [choice],
            **more,
        }
    ).encode()


def decoded(raw):
    return msgspec.json.decode(raw, type=ChatCompletionChunk)


class Alike:
    """Chunks alike, with the face of a ChunkBatch."""

    def __init__(self, texts, **more):
        self._texts, self._more = texts, more
        self.shape = decoded(raw_chunk("", **more))
        self.strings = [json.dumps(text, ensure_ascii=False).encode() for text in texts]

    def __len__(self):
        return len(self._texts)

    def chunks(self):
        return [decoded(raw_chunk(text, **self._more)) for text in self._texts]


NICE = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


@given(st.lists(NICE, min_size=1, max_size=6), st.booleans())
def test_the_short_way_says_what_the_long_way_says(texts, odd):
    more = {"timings": {"secret": 1}, "system_fingerprint": "fp"} if odd else {}
    batch = Alike(texts, **more)
    short = [json.loads(p) for p in OpenAIFormat().take(batch)]
    long = [json.loads(p) for p in OpenAIFormat().take(ChunkBatch(batch.chunks(), None))]
    assert short == long
    assert [c["choices"][0]["delta"]["content"] for c in short] == texts
    for chunk in short:
        assert set(chunk) == {"id", "object", "created", "model", "choices"}
    (merged,) = OpenAIFormat(merge=True).take(batch)
    assert json.loads(merged)["choices"][0]["delta"]["content"] == "".join(texts)
    assert b"\n" not in merged
    assert b"\r" not in merged


def test_the_envelope_is_made_once_per_shape():
    written = OpenAIFormat(model="fast")
    one, other = Alike(["a"]), Alike(["b"], model="n")
    payloads = [p for batch in (one, other, one) for p in written.take(batch)]
    assert [json.loads(p)["model"] for p in payloads] == ["fast"] * 3
    assert [json.loads(p)["choices"][0]["delta"]["content"] for p in payloads] == ["a", "b", "a"]


def test_fields_are_kept_by_a_list_in_every_place():
    hidden = OpenAIFormat(fields={"choices", "delta", "role"})
    assert [json.loads(p) for p in hidden.take(Alike(["a", "b"]))] == [
        {"choices": [{"delta": {}}]}
    ] * 2
    delta = {
        "content": "x",
        "reasoning_content": "hm",
        "tool_calls": [{"index": 0, "id": "t", "evil": 1}],
    }
    chunk = msgspec.convert(
        {"id": "c", "choices": [{"index": 0, "delta": delta, "evil": 2}], "evil": 3},
        ChatCompletionChunk,
    )
    (payload,) = OpenAIFormat().take(ChunkBatch([chunk], None))
    assert b"evil" not in payload
    assert json.loads(payload)["choices"][0]["delta"] == {
        "content": "x", "reasoning_content": "hm", "tool_calls": [{"index": 0, "id": "t"}],
    }  # fmt: skip
    whole = msgspec.convert({"choices": [{"message": {"content": "x"}}], "evil": 1}, ChatCompletion)
    whole.request_id = "req-7"
    assert json.loads(completion_json(whole, fields={"choices", "message", "content"})) == {
        "choices": [{"message": {"content": "x"}}]
    }


def test_ends():
    stats = StreamStats(time_to_first_token=0.1, duration=0.5)
    assert OpenAIFormat().end(None, stats) == [b"[DONE]"]
    told, done = OpenAIFormat(stats=True).end(None, stats)
    assert json.loads(told)["choices"] == []
    assert json.loads(told)["relay"] == {"time_to_first_token": 0.1, "duration": 0.5, "usage": None}
    assert done == b"[DONE]"
    stopped, done = OpenAIFormat().stop("stopped")
    assert json.loads(stopped) == {
        "object": "relay.stopped",
        "choices": [],
        "relay": {"reason": "stopped"},
    }
    failed, done = OpenAIFormat().fail(
        errors.StreamTruncatedError("the stream from secret.host was cut")
    )
    assert json.loads(failed)["error"]["type"] == "stream_truncated"
    assert b"secret" not in failed
    assert done == b"[DONE]"


# -- errors ----------------------------------------------------------------------------------------

SECRET = "sk-secret at host.internal, prompt"
STATUS = {"headers": {"authorization": SECRET}, "body": SECRET, "param": SECRET, "type": SECRET}


@pytest.mark.parametrize(
    ("error", "status", "type"),
    [
        (errors.RateLimitError(SECRET, status_code=429, retry_after=3, **STATUS), 429, "rate_limited"),
        (errors.RateLimitError(SECRET, status_code=429, code="insufficient_quota"), 502, "upstream_error"),
        (errors.AuthenticationError(SECRET, status_code=401, **STATUS), 502, "upstream_error"),
        (errors.BadRequestError(SECRET, status_code=400, code="context_length_exceeded"), 400, "invalid_request_error"),
        (errors.UnprocessableEntityError(SECRET, status_code=422), 400, "invalid_request_error"),
        (errors.NotFoundError(SECRET, status_code=404), 502, "upstream_error"),
        (errors.NotFoundError(SECRET, status_code=404, param="model"), 502, "model_unavailable"),
        (errors.BadRequestError(SECRET, status_code=400, code="model_not_found"), 502, "model_unavailable"),
        (errors.InternalServerError(SECRET, status_code=500), 502, "upstream_error"),
        (errors.InternalServerError(SECRET, status_code=529), 503, "overloaded"),
        (errors.APITimeoutError(SECRET, phase="first_token"), 504, "timeout"),
        (errors.APIConnectionError(SECRET), 502, "upstream_error"),
        (errors.StreamStalledError(SECRET), 504, "timeout"),
        (errors.StreamTruncatedError(SECRET, partial=SECRET), 502, "stream_truncated"),
        (errors.StreamServerError(SECRET, code=SECRET, body=SECRET), 502, "upstream_error"),
        (errors.ResponseDecodeError(SECRET, body=SECRET.encode()), 502, "upstream_error"),
        (errors.RateLimitTimeoutError(SECRET, would_have_waited=float("inf")), 503, "overloaded"),
        (errors.CircuitOpenError(SECRET, retry_after=2.5), 503, "overloaded"),
        (errors.ConfigurationError(SECRET), 500, "internal_error"),
        (KonkoError(SECRET), 500, "internal_error"),
    ],
)  # fmt: skip
def test_what_a_browser_is_told(error, status, type):
    found, public = described(error)
    assert (found, public.type) == (status, type)
    told = msgspec.json.encode(public)
    assert b"secret" not in told
    assert b"prompt" not in told
    assert b"host" not in told
    expected = getattr(error, "retry_after", None)
    assert public.retry_after == expected


def test_codes_are_words_only():
    assert public_error(
        errors.BadRequestError("", status_code=400, code="context_length_exceeded")
    ).code
    assert public_error(errors.BadRequestError("", status_code=400, code="sk-1234")).code is None
    refused = RefusalError(
        413, "too large", type="request_too_large", param="body", retry_after=1.5
    )
    status, public = described(refused)
    assert (status, public.message, public.param, public.retry_after) == (
        413,
        "too large",
        "body",
        1.5,
    )
