"""Lines of the defences that `make mutants` could change without any other test noticing."""

import asyncio
import hashlib
import socket

import msgspec
import pytest

from konko_async import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    ConfigurationError,
    KeepAlive,
    Timeout,
)
from konko_async._core.config import (
    check_query,
    clean_base_url,
    parse_base_url,
    read_keepalive,
    resolve,
)
from konko_async._core.key_source import KeySource
from konko_async._core.redaction import Redactor
from konko_async._core.secret import Secret
from konko_async._http.connector import socket_options
from konko_async.limits import RequestBucket, TokenBucket
from konko_async.middleware._fallback import may_fail_over
from konko_async.relay import ChatCall, RelayOptions, RelayReply, StreamStats
from konko_async.relay._content import refuse_remote_references
from konko_async.relay._errors import RefusalError
from konko_async.relay._policy import OPENAI, chat_key, checked_call
from konko_async.relay._request_headers import as_asked, call_keywords
from konko_async.relay._security import (
    _allowed_headers,
    _depth_exceeds,
    _read,
    check_host,
    cross_origin_headers,
    preflight,
    read_json,
)

KEY = "sk-canary-0123456789abcdef"


@pytest.mark.parametrize("wrap", [lambda inner: [inner], lambda inner: {"a": inner}])
def test_depth_counts_lists_and_objects_alike(wrap):
    value = 1
    for depth in range(12):
        assert _depth_exceeds(value, 10) is (depth >= 10), depth
        value = wrap(value)
    assert not _depth_exceeds([[[]], {"a": {}}], 4)


class Body:
    def __init__(self, *pieces, **headers):
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}
        self._pieces = pieces
        self.read = 0

    async def body(self):
        for piece in self._pieces:
            self.read += 1
            yield piece


@pytest.mark.parametrize(
    ("declared", "refused"),
    [
        ("11", True),
        ("9" * 400, True),
        ("10", False),
        ("0010", False),
        ("", False),
        ("-5", False),
        ("\u0661\u0661", False),
        ("x", False),
    ],
)
async def test_a_body_that_declares_too_much_is_refused_unread(declared, refused):
    request = Body(b"12345", b"67890", content_length=declared)
    if not refused:
        assert await _read(request, 10) == b"1234567890"
        return
    with pytest.raises(RefusalError, match="larger than 10 bytes"):
        await _read(request, 10)
    assert request.read == 0


async def test_a_body_is_counted_whatever_it_declares():
    request = Body(b"12345", b"678901", b"2", content_length="3")
    with pytest.raises(RefusalError, match="larger than 10 bytes"):
        await _read(request, 10)
    assert request.read == 2


def test_headers_that_a_page_may_send_are_listed_or_match_a_star():
    options = RelayOptions(models=["m"], cors_headers=("X-One", "X-Stainless-*"))
    assert _allowed_headers(options, "x-stainless-os, x-other, X-Stainless-Arch, x-stainless-a b") == [
        "X-One", "x-stainless-os", "x-stainless-arch",
    ]  # fmt: skip


def test_so_many_headers_of_a_preflight_are_looked_at_and_no_more():
    options = RelayOptions(models=["m"], cors_headers=("X-A-*",))
    asked = ",".join(f"x-a-{number}" for number in range(150))
    assert _allowed_headers(options, asked) == [f"x-a-{number}" for number in range(100)]
    assert _allowed_headers(options, asked + "," * 10**6) == _allowed_headers(options, asked)


@pytest.mark.parametrize("credentials", [True, False])
def test_what_a_page_of_an_allowed_origin_is_told(credentials):
    origin = "https://chat.example"
    options = RelayOptions(
        models=["m"], origins=[origin], credentials=credentials, cors_headers=["X-One"]
    )
    always = RelayReply(204).headers
    read = always | {
        "Vary": "Origin",
        "Access-Control-Allow-Origin": origin,
        "Access-Control-Expose-Headers": "X-Stream-Id, Retry-After, X-Request-Id",
    }
    if credentials:
        read["Access-Control-Allow-Credentials"] = "true"
    assert always | cross_origin_headers(origin, options) == read
    reply = preflight(origin, options)
    assert reply.status == 204
    assert reply.headers == read | {
        "Access-Control-Allow-Methods": "GET, POST, DELETE, OPTIONS",
        "Access-Control-Allow-Headers": "X-One",
        "Access-Control-Max-Age": "600",
    }
    assert preflight(None, options).headers == always | {"Vary": "Origin"}
    assert preflight(None, RelayOptions(models=["m"])).headers == always


@pytest.mark.parametrize("chat", ["a", "chat-1_2.3~4:5@6=7+8", "x" * 128])
def test_usual_ids_of_chats_are_kept_as_they_are(chat):
    assert chat_key(chat) == chat


@pytest.mark.parametrize(
    "chat", ["", "x" * 129, "x" * 10**6, "a b", "a/b", "\xfc", "a\n", "\ud83d"]
)
def test_other_ids_of_chats_are_kept_as_digests(chat):
    digest = hashlib.sha256(chat.encode("utf-8", "surrogatepass")).hexdigest()
    assert chat_key(chat) == f"sha256:{digest}"
    call = ChatCall(model="m", messages=[{"role": "user", "content": "x"}], key=chat)
    options = RelayOptions(models=["m"])
    assert checked_call(call, options).key == f"sha256:{digest}"
    for size in (128, 129):
        long = msgspec.structs.replace(call, message_id="i" * size)
        if size == 128:
            assert checked_call(long, options).message_id == "i" * size
        else:
            with pytest.raises(RefusalError, match="more than 128 characters"):
                checked_call(long, options)


def test_models_by_names_of_the_relays_own():
    options = RelayOptions(models={"small": "vendor/model-7b"}, stats=True, store_away="refuse")
    assert options.shown_model("small") == "small", "its own name is nobody's business"
    assert options.upstream_model("small") == "vendor/model-7b"
    call = OPENAI.parse({"messages": [{"role": "user", "content": "x"}]}, options)
    written = OPENAI.format(call, options)
    assert written.model == "small"
    stats = StreamStats(time_to_first_token=0.1, duration=0.5)
    assert len(written.end(None, stats)) == 2
    plain = RelayOptions(models=["vendor/model-7b"])
    assert plain.shown_model("vendor/model-7b") is None
    assert OPENAI.format(call, plain).end(None, stats) == [b"[DONE]"]
    for name in ("vendor/model-7b", "SMALL", ""):
        with pytest.raises(RefusalError) as caught:
            options.upstream_model(name)
        assert (caught.value.status, caught.value.param) == (404, "model")


@pytest.mark.parametrize(
    ("text", "read"),
    [
        (rb'"a \ud83d b"', "a \ufffd b"),
        (rb'"\uDE00"', "\ufffd"),
        (rb'"\ud83d\ude00 \ud83d"', "\U0001f600 \ufffd"),
        (rb'"\\ud83d \ud83d"', "\\ud83d \ufffd"),
    ],
)
async def test_half_a_character_does_not_end_a_chat(text, read):
    request = Body(text, content_type="application/json")
    assert await read_json(request, RelayOptions(models=["m"])) == read


@pytest.mark.parametrize("host", [None, "", " ", "localhost ", "a,b", "\u212aonko.example", "[::1"])
def test_a_request_that_names_no_host_or_an_odd_one_is_refused(host):
    request = Body() if host is None else Body(host=host)
    options = RelayOptions(models=["m"], hosts=["localhost", "[::1]", "konko.example", "a,b"])
    with pytest.raises(RefusalError) as caught:
        check_host(request, options)
    assert (caught.value.status, caught.value.type) == (421, "wrong_host")
    check_host(Body(host="Konko.example.:80"), options)


def test_what_a_caller_may_ask_for_in_headers():
    assert call_keywords({}, max_timeout=120) == {"timeout": 120, "priority": "interactive"}
    assert call_keywords({}, max_timeout=120, timeout=30)["timeout"] == 30
    assert call_keywords({}, max_timeout=20, timeout=30)["timeout"] == 20
    asked = {"x-request-timeout": "7.5", "x-request-priority": " BATCH "}
    assert call_keywords(asked, max_timeout=120) == {"timeout": 7.5, "priority": "batch"}
    assert call_keywords({"x-request-timeout": "999"}, max_timeout=120)["timeout"] == 120
    assert call_keywords({"x-request-timeout": "0.25"}, max_timeout=120)["timeout"] == 0.25
    ahead = {"x-request-priority": "interactive"}
    assert call_keywords(ahead, max_timeout=9, priority="batch")["priority"] == "batch"
    for text in ("0", "-1", "nan", "inf", "1e999", "x", "", "1" * 32, "\u0661"):
        with pytest.raises(RefusalError, match="X-Request-Timeout"):
            call_keywords({"x-request-timeout": text}, max_timeout=120)
    with pytest.raises(RefusalError, match="X-Request-Priority"):
        call_keywords({"x-request-priority": "first"}, max_timeout=120)


def test_only_the_total_of_the_relays_timeout_is_the_callers():
    given = Timeout(connect=3, first_token=20, idle=11, total=100)
    options = RelayOptions(models=["m"], max_timeout=60, timeout=given)
    found = as_asked({"a": 1}, {"x-request-timeout": "5"}, options)
    assert found == {
        "a": 1,
        "priority": "interactive",
        "timeout": msgspec.structs.replace(given, total=5),
    }
    assert as_asked({"a": 1}, {}, options)["timeout"].total == 60
    plain = RelayOptions(models=["m"], max_timeout=60, timeout=5.0, priority="batch")
    assert as_asked({}, {}, plain) == {"timeout": 5.0, "priority": "batch"}
    without = RelayOptions(models=["m"], timeout=given)
    assert as_asked({"a": 1}, {"x-request-timeout": "x"}, without) == {"a": 1}


def test_the_probes_of_silent_connections():
    assert read_keepalive(None) == read_keepalive(True) == KeepAlive()
    assert read_keepalive(False) is None
    assert read_keepalive(7) == KeepAlive(idle=7)
    assert read_keepalive((7, 8, 9)) == KeepAlive(idle=7, interval=8, count=9)
    for name, highest in (("idle", 32767), ("interval", 32767), ("count", 127)):
        for value in (1, highest):
            assert getattr(KeepAlive(**{name: value}), name) == value
        for value in (0, highest + 1, True, 1.5):
            with pytest.raises(ConfigurationError, match=name):
                KeepAlive(**{name: value})


def test_a_socket_that_refuses_the_probes_is_closed():
    make = socket_options(KeepAlive())["socket_factory"]
    with pytest.raises(OSError) as caught:  # no TCP, and so none of its options
        make((socket.AF_UNIX, socket.SOCK_STREAM, 0, "", "unused"))
    assert caught.traceback[-1].locals["made"].fileno() == -1


def test_query_parameters_are_texts_and_numbers():
    assert check_query("q", {"a": "x", "b": 1, "c": 1.5, "d": None}) == {"a": "x", "b": 1, "c": 1.5}
    for value in (True, [], b"x", object()):
        with pytest.raises(ConfigurationError, match="q: 'a' "):
            check_query("q", {"a": value})


def test_values_of_any_depth_are_masked():
    redactor = Redactor([KEY])
    value = deep = {}
    for _ in range(8):
        deep["a"] = [{"k": KEY}]
        deep = deep["a"][0]
    assert KEY not in repr(redactor.value(value))
    assert KEY not in repr(dict(redactor.headers({"x-a": KEY, "x-b": f"Bearer {KEY}"})))
    assert redactor.value(f"a {KEY}\udcff".encode("utf-8", "surrogateescape")).endswith(b"\xff")


async def test_a_key_function_is_called_once_and_again_for_a_refused_key():
    keys = iter(["sk-first-0123456789", "sk-second-0123456789"])
    source = KeySource(lambda: next(keys))
    first = await source.secret()
    assert await source.secret() is first
    second = await source.secret(refused=first)
    assert second is not first
    assert await source.secret(refused=first) is second, "another call has replaced it already"
    assert repr(source) == "<KeySource>"
    assert source.fingerprint != KeySource(len).fingerprint
    with pytest.raises(ConfigurationError, match=r"^the key that api_key\(\) returned is empty"):
        await KeySource(lambda: " ").secret()
    with pytest.raises(ConfigurationError, match=r"api_key\(\) raised StopIteration"):
        await source.secret(refused=second)


async def test_calls_at_once_obtain_one_key_of_an_async_function():
    asked = []

    async def key():
        asked.append(1)
        await asyncio.sleep(0)
        return "sk-async-0123456789"

    source = KeySource(key)
    found = await asyncio.gather(*(source.secret() for _ in range(9)))
    assert (len(set(map(id, found))), len(asked)) == (1, 1)
    assert found[0].header() == "sk-async-0123456789"
    await asyncio.gather(*(source.secret(found[0]) for _ in range(9)))
    assert len(asked) == 2


def test_a_key_function_serves_one_loop_after_another():
    async def key():
        await asyncio.sleep(0)
        return "sk-loop-0123456789"

    source = KeySource(key)
    last = None

    async def calls():
        found = await asyncio.gather(*(source.secret(last) for _ in range(5)))
        return found[0]

    for _ in range(3):
        before, last = last, asyncio.run(calls())
        assert last is not before


def test_a_secret_is_told_apart_by_a_short_print_and_a_long_one():
    secret = Secret("sk-0123456789abcdef")
    assert (len(secret.fingerprint), len(secret.digest)) == (8, 32)
    assert secret.digest == Secret("sk-0123456789abcdef ").digest != Secret("sk-other").digest


def test_which_errors_another_server_may_mend():
    certificate = APIConnectionError("bad certificate", retryable=False)
    late = APITimeoutError("no time is left", phase="total")
    assert not may_fail_over(late, other_server=True)
    assert may_fail_over(certificate, other_server=True)
    assert not may_fail_over(certificate, other_server=False)
    for status, helps in (
        (500, True),
        (501, True),
        (505, True),
        (499, False),
        (422, False),
        (404, True),
    ):
        assert may_fail_over(APIStatusError.for_status(status, "No.")) is helps, status


@pytest.mark.parametrize("make", [RequestBucket, TokenBucket])
def test_a_wait_grows_with_what_is_ahead_and_shrinks_with_time(make):
    bucket = make(600, 60.0)  # ten a second: a rate of 1 would hide what is divided by it
    while bucket.try_take(0.0, 1.0) is not None:
        pass
    alone = bucket.delay(0.0, 1.0)
    assert alone > 0
    behind = bucket.delay(0.0, 1.0, ahead=5.0)
    assert behind == pytest.approx(alone + 5 / bucket.rate, rel=0.05)
    assert bucket.delay(alone / 2, 1.0) == pytest.approx(alone / 2, rel=0.05)
    assert bucket.delay(alone + 0.01, 1.0) == 0.0
    assert make(60).spent.window == make(60, 60.0).spent.window
    assert bucket.try_take(alone + 0.01, 1.0) is not None
    bucket.hold(500.0)
    held = bucket.delay(400.0, 2.0)
    assert held > 90
    bucket.thaw(300.0)
    assert bucket.delay(400.0, 2.0) < held - 90


def test_an_address_is_https_and_without_a_login():
    with pytest.raises(ConfigurationError, match="http"):
        parse_base_url("http://a.example/v1")
    assert parse_base_url("http://a.example/v1", allow_http=True).netloc == "a.example"
    for text in ("https://@a.example", "https://u@a.example", "https://u:p@a.example"):
        with pytest.raises(ConfigurationError):
            parse_base_url(text)


def test_what_a_client_was_given_is_in_its_settings():
    usual = {"api_key": "sk-0123456789abcdef", "base_url": "https://a.example", "openai_api_key": None,
             "default_headers": None, "allow_http": False}  # fmt: skip
    given = resolve(**usual, default_query={"a": "b"}, trust_env=True)
    assert (dict(given.query), given.trust_env) == ({"a": "b"}, True)
    assert resolve(**usual).trust_env is False
    account = {"OpenAI-Organization": "o", "OpenAI-Project": "p"}
    assert resolve(**usual, organization="o", project="p").headers == account
    with pytest.raises(ConfigurationError, match=r"^default_query"):
        resolve(**usual, default_query=[1])
    with pytest.raises(ConfigurationError, match=r"^openai_api_key holds"):
        resolve(**{**usual, "openai_api_key": "a\nb"})


@pytest.mark.parametrize("end", ["", "/", "/chat/completions", "/completions/", "/embeddings"])
def test_an_address_copied_from_an_example_means_its_beginning(end):
    assert clean_base_url(f"https://a.example/v1{end}") == "https://a.example/v1"
    assert clean_base_url("https://a.example/models") == "https://a.example/models"


@pytest.mark.parametrize("name", ["$ref", "$dynamicRef", "$recursiveRef"])
def test_schemas_refer_to_themselves_only(name):
    refuse_remote_references({"a": [{name: "#/$defs/x"}]}, "tools")
    with pytest.raises(RefusalError, match="tools"):
        refuse_remote_references({"a": [{name: "https://a.example/x"}]}, "tools")
