"""Who may call, what they may ask, what they get to see of us."""

# ruff: noqa: SIM117 - a line for each thing that is opened

import asyncio
import io
import json
import subprocess
import sys

import aiohttp
import pytest
from relay_kit import ASK, CHAT, KEY, MODEL, RESUMABLE, read_until, relaying

from konko_async import AsyncKonko
from konko_async._core.loopback import is_loopback
from konko_async.errors import ConfigurationError
from konko_async.relay import ChatCall, RefusalError, RelayOptions, RelayRequest, RelayService
from konko_async.relay._policy import OPENAI, checked_call
from konko_async.relay._security import check_host, check_origin
from konko_async.testing import Answer, Emulator, FaultServer

ORIGIN = "https://chat.example"
HELLO = Answer.stream(["Hel", "lo"])


def asked(**headers):
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    return RelayRequest(
        method="POST", path=CHAT, headers=headers, body=lambda: None, gone=lambda: False
    )


def options(**more):
    return RelayOptions(**{"models": [MODEL], **more})


def test_nothing_of_a_framework_is_loaded_unasked():
    code = "import konko_async.relay, sys; print({'aiohttp.web', 'starlette'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


# -- starting --------------------------------------------------------------------------------------


async def test_a_relay_says_who_may_call_or_does_not_start():
    async with AsyncKonko("k", "http://127.0.0.1:9/v1") as client:
        with pytest.raises(TypeError):
            RelayService(client, options())
        everywhere = "0.0.0.0"  # noqa: S104 - is refused
        for host in (None, everywhere, "::", "10.0.0.1", "example.com", ""):
            with pytest.raises(ConfigurationError, match="auth hook"):
                RelayService(client, options(), auth="open", host=host)
        for wrong in ("opn", None, True):
            with pytest.raises(ConfigurationError, match="auth"):
                RelayService(client, options(), auth=wrong)
        for host in ("127.0.0.1", "::1", "localhost", "127.8.8.8", "[::1]", "::ffff:127.0.0.1"):
            RelayService(client, options(), auth="open", host=host)


@pytest.mark.parametrize(
    "address",
    [
        "10.0.0.1",
        "::",
        "fe80::1%eth0",
        "localhost.evil.example",
        "127.0.0.1%evil.example",
        "::1%",
        "",
    ],
)
def test_what_is_no_loopback(address):
    assert not is_loopback(address)


@pytest.mark.parametrize(
    "address", ["localhost", "127.8.8.8", "[::1]", "::1%lo", "::ffff:127.0.0.1"]
)
def test_what_is_loopback(address):
    assert is_loopback(address)


@pytest.mark.parametrize("local", [None, "10.0.0.1", "/run/relay.sock"])
async def test_open_is_for_loopback_whatever_was_said_at_the_start(local):
    async with AsyncKonko("k", "http://127.0.0.1:9/v1") as client:
        service = RelayService(client, options(), auth="open", host="127.0.0.1")
        request = RelayRequest(
            method="GET", path="/v1/models", headers={"host": "localhost"}, body=lambda: None,
            gone=lambda: False, local=local,
        )  # fmt: skip
        assert (await service.handle(request)).status == 403


@pytest.mark.parametrize(
    "wrong",
    [
        {"models": []}, {"models": MODEL}, {"origins": ["*"]}, {"hosts": ["*"]}, {"hosts": "a"},
        {"origins": ["https://a.example/"]}, {"origins": ["a.example"]}, {"origins": ["https://u@a"]},
        {"origins": ["https://A.example"]},
        {"origins": ["https://a.example:443"]},
        {"origins": ["http://a.example:80"]},
        {"linger": 0},
        {"max_calls": 0},
        {"body_timeout": "1"},
        {"max_body": 2**20 + 1}, {"max_body": 0},
        {"cors_headers": "X-A"}, {"cors_headers": ["*X"]}, {"cors_headers": ["X A"]},
    ],
)  # fmt: skip
def test_options_are_checked(wrong):
    with pytest.raises(ConfigurationError):
        options(**wrong)


# -- Host ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "hosts"),
    [
        ("localhost", None), ("localhost:8080", None), ("LOCALHOST:1", None), ("127.0.0.1:80", None),
        ("[::1]", None), ("[::1]:8080", None), ("localhost.", None),
        ("chat.example", ["chat.example"]), ("chat.example:8443", ["chat.example"]),
        ("chat.example:8443", ["other", "chat.example:8443"]), ("[2001:db8::1]:99", ["[2001:DB8::1]:99"]),
    ],
)  # fmt: skip
def test_hosts_that_are_ours(host, hosts):
    check_host(asked(host=host), options(**({"hosts": hosts} if hosts else {})))


@pytest.mark.parametrize(
    ("host", "hosts"),
    [
        ("", None), ("evil.example", None), ("localhost.evil.example", None), ("evil.example:80", None),
        ("127.0.0.1.nip.io", None), ("[::2]", None), ("::1", None), ("[::1", None), ("[::1]x", None),
        ("localhost:80:80", None), ("localhost:8x", None), ("localhost, evil", None), ("a@localhost", None),
        ("localhost/x", None), ("localhost#", None), (":80", None), ("[]", None), ("lоcalhost", None),
        ("chat.example:1", ["chat.example:8443"]), ("chat.example", ["chat.example:8443"]),
    ],
)  # fmt: skip
def test_hosts_that_are_not(host, hosts):
    with pytest.raises(RefusalError) as caught:
        check_host(asked(host=host), options(**({"hosts": hosts} if hosts else {})))
    assert caught.value.status == 421
    assert not host or host not in caught.value.message


async def test_a_name_that_was_pointed_at_us_gets_nothing():
    async with relaying(emulator := Emulator()) as relay:
        for method, path in (("GET", "/v1/models"), ("POST", CHAT), ("GET", "/v1/streams/x")):
            async with relay.session.request(
                method, path, headers={"Host": "evil.example"}
            ) as response:
                assert response.status == 421
        async with relay.session.get("/healthz", headers={"Host": "10.1.2.3"}) as response:
            assert response.status == 200  # probes use any name
        assert not emulator.requests


# -- origins ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("origin", "host", "found"),
    [
        (None, "a:1", None),
        (ORIGIN, "a:1", ORIGIN),
        ("http://a:1", "a:1", None),
        ("http://a", "a", None),
        ("http://a", "a:80", None),
        ("https://a", "a:443", None),
        ("https://a:8443", "A:8443", None),
        ("http://[::1]:8080", "[::1]:8080", None),
    ],
)
def test_origins_that_may_call(origin, host, found):
    headers = {"host": host, **({} if origin is None else {"origin": origin})}
    assert check_origin(asked(**headers), options(origins=[ORIGIN])) == found


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("null", "a:1"), ("", "a:1"), ("http://chat.example", "a"), ("https://chat.example:444", "a"),
        ("https://chat.example.evil", "a"), ("https://evil/https://chat.example", "a"),
        ("http://a:2", "a:1"), ("http://a", "a:1"), ("https://a", "a:80"), ("file://", "a"),
        ("http://a:x", "a:x"), ("chrome-extension://a", "a"), ("http://u@a", "a"), (f"{ORIGIN}, {ORIGIN}", "a"),
        ("HTTPS://CHAT.EXAMPLE", "a"),
    ],
)  # fmt: skip
def test_origins_that_may_not(origin, host):
    with pytest.raises(RefusalError) as caught:
        check_origin(asked(host=host, origin=origin), options(origins=[ORIGIN]))
    assert caught.value.status == 403


def test_a_cross_site_post_without_an_origin():
    with pytest.raises(RefusalError):
        check_origin(asked(host="a", sec_fetch_site="cross-site"), options())
    for other in ("same-site", "something-new"):  # a subdomain or another port is another origin
        with pytest.raises(RefusalError):
            check_origin(asked(host="a", sec_fetch_site=other), options())
    assert check_origin(asked(host="a", sec_fetch_site="none"), options()) is None
    assert check_origin(asked(host="a", sec_fetch_site="same-origin"), options()) is None


async def test_pages_of_other_origins():
    async with relaying(FaultServer(HELLO), origins=[ORIGIN]) as relay:
        headers = {"Origin": ORIGIN, "Access-Control-Request-Method": "POST"}
        async with relay.session.options(CHAT, headers=headers) as response:
            assert response.status == 204
            assert response.headers["Access-Control-Allow-Origin"] == ORIGIN
            assert "Last-Event-ID" in response.headers["Access-Control-Allow-Headers"]
            assert "POST" in response.headers["Access-Control-Allow-Methods"]
            assert "Access-Control-Allow-Credentials" not in response.headers
            assert response.headers["Vary"] == "Origin"
        async with relay.ask(headers={"Origin": ORIGIN, **RESUMABLE}) as response:
            assert response.status == 200
            assert response.headers["Access-Control-Allow-Origin"] == ORIGIN
            assert "X-Stream-Id" in response.headers["Access-Control-Expose-Headers"]
        for method in ("OPTIONS", "POST"):
            async with relay.session.request(
                method, CHAT, headers={"Origin": "https://evil.example"}, json=ASK
            ) as response:
                assert response.status == 403
                assert "Access-Control-Allow-Origin" not in response.headers
        async with relay.ask(
            {"messages": []}, {"Origin": ORIGIN}
        ) as response:  # errors are readable, too
            assert response.status == 400
            assert response.headers["Access-Control-Allow-Origin"] == ORIGIN


STAINLESS = [f"x-stainless-{name}" for name in ("arch", "lang", "os", "retry-count", "timeout")]


async def allowed_by_preflight(relay, *names):
    headers = {"Origin": ORIGIN, "Access-Control-Request-Method": "POST"}
    headers["Access-Control-Request-Headers"] = ",".join(names)
    async with relay.session.options(CHAT, headers=headers) as response:
        allowed = response.headers["Access-Control-Allow-Headers"]
    return {name.strip().lower() for name in allowed.split(",")}


async def test_headers_that_clients_in_browsers_send():
    usual = {"content-type", "authorization", "user-agent", "last-event-id", "x-resumable"}
    odd = ["x-stainless-", "x-stainless-a b", "x-stainless-\u00e9", "cookie", "x-stainlessly"]
    async with relaying(FaultServer(), origins=[ORIGIN]) as relay:
        allowed = await allowed_by_preflight(relay, *STAINLESS, *odd)
        assert usual | set(STAINLESS) <= allowed
        assert not allowed & {"cookie", "x-stainlessly", "x-stainless-a b", "*"}
        many = await allowed_by_preflight(relay, *(f"x-stainless-{n}" for n in range(400)))
        assert len(many) < 120
    async with relaying(FaultServer(), origins=[ORIGIN], cors_headers=["X-Mine"]) as relay:
        assert await allowed_by_preflight(relay, "x-mine", "user-agent") == {"x-mine"}


async def test_cookies_of_other_origins():
    async with relaying(FaultServer(HELLO), origins=[ORIGIN], credentials=True) as relay:
        async with relay.ask(headers={"Origin": ORIGIN}) as response:
            assert response.headers["Access-Control-Allow-Credentials"] == "true"


# -- bodies ----------------------------------------------------------------------------------------


async def end_lingering():
    """End what aiohttp 3.12 forgets for 10 s: who reads the rest of a body when its connection is lost."""
    if aiohttp.__version__.startswith("3.12."):
        tasks = asyncio.all_tasks()
        lingering = [t for t in tasks if t.get_coro().__qualname__ == "RequestHandler.start"]
        for task in lingering:
            task.cancel()
        await asyncio.gather(*lingering, return_exceptions=True)


async def test_bodies_are_bounded_declared_or_not():
    async with relaying(emulator := Emulator()) as relay:
        big = json.dumps({**ASK, "messages": [{"role": "user", "content": "x" * 2**20}]}).encode()

        async def pieces():
            for start in range(0, len(big), 65536):
                yield big[start : start + 65536]

        kind = {"Content-Type": "application/json"}
        for body in (io.BytesIO(big), pieces()):
            async with relay.session.post(CHAT, data=body, headers=kind) as response:
                assert response.status == 413
                assert (await response.json())["error"]["type"] == "request_too_large"
        fits = json.dumps({**ASK, "messages": [{"role": "user", "content": "x" * (2**20 - 200)}]})
        async with relay.session.post(CHAT, data=fits, headers=kind) as response:
            assert response.status == 400  # more than the model takes, but not more than we do
        assert len(emulator.requests) == 1
    await end_lingering()


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b'{"messages"', "application/json", 400),
        (b"", "application/json", 400),
        (b"[]", "application/json", 400),
        (b"\xff", "application/json", 400),
        (b"[" * 100_000, "application/json", 400),
        (b'{"messages":' + b"[" * 100 + b"]" * 100 + b"}", "application/json", 400),
        (json.dumps(ASK).encode(), "text/plain", 415),
        (json.dumps(ASK).encode(), "application/x-www-form-urlencoded", 415),
        (json.dumps({**ASK, "stream": False}).encode(), "Application/JSON; charset=utf-8", 200),
    ],
)
async def test_bodies_are_json(body, kind, status):
    async with relaying(Emulator()) as relay:
        async with relay.session.post(CHAT, data=body, headers={"Content-Type": kind}) as response:
            assert response.status == status


async def test_a_body_that_does_not_come():
    async with relaying(Emulator(), body_timeout=0.1) as relay:
        reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
        head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        writer.write(f"{head}Content-Length: 100\r\n\r\n{{".encode())
        data = await read_until(reader, b"timeout")
        assert data.startswith(b"HTTP/1.1 408 ")
        writer.close()
        await relay.service.until_idle()


# -- what may be asked -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({"model": "other"}, 404, "model"),
        ({"model": 7}, 400, "model"),
        ({"n": 50}, 400, "n"),
        ({"extra_headers": {"x": "y"}}, 400, "extra_headers"),
        ({"timeout": 9}, 400, "timeout"),
        ({"api_key": "x"}, 400, "api_key"),
        ({"stream": "yes"}, 400, "stream"),
        ({"messages": []}, 400, "messages"),
        ({"messages": "hi"}, 400, "messages"),
        ({"messages": [{}]}, 400, "messages[0].role"),
        ({"messages": ["hi"]}, 400, "messages[0]"),
        ({"messages": [{"role": "user", "content": "x", "cache": 1}]}, 400, "messages[0].cache"),
        (
            {"messages": [{"role": "user", "content": [{"type": "file"}]}]},
            400,
            "messages[0].content",
        ),
        ({"messages": [{"role": "user", "content": ["x"]}]}, 400, "messages[0].content"),
        ({"messages": [{"role": "user", "content": "x"}] * 1001}, 400, "messages"),
        ({"max_tokens": "9"}, 400, "max_tokens"),
        ({"max_tokens": True}, 400, "max_tokens"),
    ],
)
async def test_what_may_not_be_asked(body, status, param):
    async with relaying(emulator := Emulator(), max_tokens=50) as relay:
        async with relay.ask(body) as response:
            assert response.status == status
            assert (await response.json())["error"]["param"] == param
        assert not emulator.requests
        assert relay.service.running == 0


@pytest.mark.parametrize("stream", [True, False])
async def test_what_makes_no_sense_is_told_as_the_callers_fault(stream):
    async with relaying(Emulator()) as relay:
        async with relay.ask({"temperature": 9, "stream": stream}) as response:
            assert response.status == 400
            assert "temperature" in (await response.json())["error"]["message"]


def test_caps():
    def capped(cap, **params):
        call = ChatCall(model=MODEL, messages=ASK["messages"], params=params)
        return checked_call(call, options(max_tokens=cap)).params

    assert capped(None) == {}
    assert capped(9) == {"max_tokens": 9}
    assert capped(9, max_tokens=5) == {"max_tokens": 5}
    assert capped(9, max_tokens=50, max_completion_tokens=60) == {
        "max_tokens": 9,
        "max_completion_tokens": 9,
    }
    # A server that knows only the other field would not be capped at all.
    both = {"max_tokens": 9, "max_completion_tokens": 9}
    assert capped(9, max_completion_tokens=50) == both
    assert capped(9, max_tokens=None) == {"max_tokens": 9}


def test_the_default_model_is_the_first():
    call = OPENAI.parse({"messages": ASK["messages"]}, options(models={"a": "b", "c": "d"}))
    assert (call.model, call.stream) == ("a", False)


@pytest.mark.parametrize("is_async", [True, False])
async def test_prepare_changes_the_call(is_async):
    def change(call, identity):
        system = {"role": "system", "content": f"You speak to {identity}."}
        return ChatCall(model=call.model, messages=[system, *call.messages], params=call.params)

    async def change_later(call, identity):
        return change(call, identity)

    async def auth(_):
        return "ann"

    service = {"auth": auth, "prepare": change_later if is_async else change}
    async with relaying(emulator := Emulator(), service=service, roles={"user"}) as relay:
        async with relay.ask() as response:
            assert response.status == 200
        assert emulator.requests[-1].body["messages"][0]["content"] == "You speak to ann."
        async with relay.ask({"messages": [{"role": "system", "content": "x"}]}) as response:
            assert response.status == 400


# -- who asks --------------------------------------------------------------------------------------


async def by_header(request):
    return request.headers.get("authorization")


async def test_who_asks():
    async with relaying(emulator := Emulator(), service={"auth": by_header}) as relay:
        for method, path in (
            ("POST", CHAT), ("POST", "/api/chat"), ("GET", "/api/chat/x/stream"), ("GET", "/v1/streams/x"),
            ("DELETE", "/v1/streams/x"), ("POST", "/v1/streams/x/stop"), ("GET", "/v1/models"),
        ):  # fmt: skip
            async with relay.session.request(method, path, json=ASK) as response:
                assert response.status == 401
                assert response.headers["WWW-Authenticate"] == "Bearer"
        assert not emulator.requests
        async with relay.ask(headers={"Authorization": "ann"}) as response:
            assert response.status == 200
        for headers, keys in (
            ({}, {"status"}),
            ({"Authorization": "ann"}, {"status", "streams", "calls"}),
        ):
            async with relay.session.get("/readyz", headers=headers) as response:
                assert set(await response.json()) == keys


@pytest.mark.parametrize("wrong", [7, True, b"ann"])
async def test_hooks_that_are_wrong_let_nobody_in(wrong, caplog):
    async def auth(request):
        if wrong is True:
            raise LookupError(request.headers["authorization"])
        return wrong

    async with relaying(emulator := Emulator(), service={"auth": auth}) as relay:
        async with relay.ask(headers={"Authorization": "sk-theirs"}) as response:
            assert response.status == 500
            assert (await response.json())["error"]["message"] == "the relay failed"
        assert not emulator.requests
    assert "sk-theirs" not in caplog.text


async def test_a_client_for_each_identity():
    clients = {}

    async def client_for(identity):
        return clients[identity]

    async with Emulator() as one, Emulator() as other:
        async with AsyncKonko("k", one.base_url) as a, AsyncKonko("k", other.base_url) as b:
            clients |= {"ann": a, "bob": b}
            async with relaying(FaultServer(HELLO), service={"auth": by_header}) as relay:
                relay.service._calls._client = client_for
                for name, emulator in (("ann", one), ("bob", other)):
                    async with relay.ask(headers={"Authorization": name}) as response:
                        assert response.status == 200
                        await response.read()
                    assert len(emulator.requests) == 1


# -- how many --------------------------------------------------------------------------------------


@pytest.mark.parametrize("headers", [{}, RESUMABLE])
async def test_calls_at_once(headers):
    server = FaultServer(HELLO.stall(HELLO.wire.index(b'"lo"') - 60))
    limits = {"max_calls": 3, "max_calls_per_identity": 2}
    async with relaying(server, service={"auth": by_header}, **limits) as relay:
        opened = []
        for name, status in (("ann", 200), ("ann", 200), ("ann", 429), ("bob", 200), ("bob", 503)):
            response = await relay.ask(headers={"Authorization": name, **headers})
            assert response.status == status
            if status == 200:
                opened.append(response)
            else:
                assert response.headers["Retry-After"] == "1"
                response.close()
        assert relay.service.running == 3
        await server.wait_for_stall(3)
        server.release()
        for response in opened:
            await response.read()
        await relay.service.until_idle()
        async with relay.ask(headers={"Authorization": "ann"}) as response:
            assert response.status == 200
    assert relay.service.running == 0


async def test_readers_at_once():
    server = FaultServer(HELLO.stall(HELLO.wire.index(b'"lo"') - 60))
    async with relaying(server, max_readers_per_identity=2) as relay:
        first = await relay.ask(headers=RESUMABLE)
        path = f"/v1/streams/{first.headers['X-Stream-Id']}"
        second = await relay.session.get(path)
        async with relay.session.get(path) as third:
            assert third.status == 429
        await server.wait_for_stall()
        server.release()
        assert (await first.read()) == (await second.read())


async def test_places_are_given_back_however_it_ends():
    from konko_async.testing import faults

    emulator = Emulator()
    async with relaying(emulator, max_calls=1, max_readers=1) as relay:
        for fault in (
            faults.Status(500),
            faults.Cut(0),
            faults.Cut(2),
            faults.ErrorInStream(1),
            None,
        ):
            for headers in ({}, RESUMABLE):
                emulator.script(fault)
                await relay.events(headers=headers)
                await relay.service.until_idle()
        for body in ({"model": "other"}, {"temperature": 9}, {"stream": False}):
            async with relay.ask(body) as response:
                assert response.status in {200, 400, 404}
        assert relay.service.running == 0
        assert not relay.service.live


# -- what is never told ----------------------------------------------------------------------------


async def test_every_answer_has_the_safe_headers_and_no_key(caplog):
    async with relaying(
        FaultServer(HELLO, Answer.error(401, f"no such key: {KEY}"), HELLO)
    ) as relay:
        for method, path in (
            ("POST", CHAT), ("POST", CHAT), ("POST", "/nowhere"), ("PUT", CHAT), ("GET", "/v1/models"),
            ("GET", "/healthz"), ("GET", "/readyz"), ("GET", "/v1/streams/x"), ("OPTIONS", CHAT),
            ("GET", "/api/chat/c/stream"), ("PATCH", "/v1/streams/x"),
        ):  # fmt: skip
            async with relay.session.request(method, path, json=ASK) as response:
                text = await response.text()
                assert KEY not in text + str(response.headers)
                assert "127.0.0.1" not in text
                if path != "/nowhere":  # aiohttp's own
                    assert "no-store" in response.headers["Cache-Control"]
                    assert response.headers["X-Content-Type-Options"] == "nosniff"
                assert "Set-Cookie" not in response.headers
    assert KEY not in caplog.text


async def test_readiness():
    told = {"ready": True, "pool": 3}
    async with relaying(Emulator(), service={"health": lambda: told}) as relay:
        async with relay.session.get("/readyz") as response:
            assert response.status == 200
            assert await response.json() == {"status": "ok", "pool": 3, "streams": 0, "calls": 0}
        told["ready"] = False
        async with relay.session.get("/readyz") as response:
            assert response.status == 503
        told["ready"] = True
        relay.service.draining = True
        async with relay.session.get("/readyz") as response:
            assert response.status == 503
            assert (await response.json())["status"] == "draining"
        async with relay.session.get("/healthz") as response:
            assert response.status == 200
