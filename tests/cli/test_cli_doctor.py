"""`konko-async doctor`: for each fault, its diagnosis; a key in none of them."""

import datetime as dt
import json
import ssl

import pytest
import trustme
from cli_kit import CHAT_MODEL, KEY, environment, run

from konko_async.cli._options import Connection
from konko_async.cli._program import execute
from konko_async.cli.doctor.environment import check_key
from konko_async.cli.doctor.run import examine
from konko_async.testing import Answer, Emulator, FaultServer, faults

CHAT = "/chat/completions"
MODELS = Answer.body(
    json.dumps({"object": "list", "data": [{"id": "m", "object": "model"}]}).encode()
)
USAGE = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
WHOLE = Answer.whole("OK", usage=USAGE)
TOKENS = [f"{number} " for number in range(20)]
GOOD = Answer.stream(TOKENS, usage=USAGE)


@pytest.fixture(autouse=True)
def settings(monkeypatch, tmp_path):
    for name in (
        "KONKO_BASE_URL",
        "KONKO_API_BASE",
        "KONKO_MODEL",
        "OPENAI_API_KEY",
        "KONKO_ENDPOINTS",
    ):
        monkeypatch.delenv(name, raising=False)
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv("KONKO_API_KEY", KEY)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))


async def findings(base_url, model=None, **options):
    found = [one async for one in examine(Connection(base_url=base_url, **options), model)]
    assert KEY not in repr(found)
    assert all(one.advice for one in found if one.status in {"warning", "error"})
    return {one.check: one for one in found}


def bad(found):
    return {name: one.status for name, one in found.items() if one.status in {"warning", "error"}}


async def test_all_is_well():
    async with Emulator(api_keys=[KEY], tokens_per_second=500) as emulator:
        emulator.script(None, None, faults.Stall(after_chunks=0, seconds=0.03))
        found = await findings(emulator.base_url, CHAT_MODEL)
    assert bad(found) == {}, found
    assert found["stream"].details["done"]
    assert found["stream"].details["time_to_first_token"] > 0.02
    assert found["stream"].details["chunks_per_second"] == pytest.approx(500, rel=0.5)
    assert found["tls"].status == "skipped"
    assert "aiohttp" in found["versions"].found
    assert len(emulator.requests) == 3


STREAM_FAULTS = [
    ("no done", Answer.stream(TOKENS, usage=USAGE, done=False), {"stream_end": "warning"}, "DONE"),
    ("no usage", Answer.stream(TOKENS), {"stream_usage": "warning"}, "no usage"),
    (
        "gzip",
        Answer.stream(TOKENS, usage=USAGE, gzip=True),
        {"stream_encoding": "warning"},
        "compressed",
    ),
    ("cut", GOOD.cut(900), {"stream": "error"}, "connection broke after"),
    (
        "no reason",
        Answer.stream(TOKENS, finish_reason=None, usage=USAGE),
        {"stream": "error"},
        "finish reason",
    ),
    ("no text", Answer.stream([], usage=USAGE), {"stream": "error"}, "no text"),
    ("no stream", WHOLE, {"stream": "error"}, "no event stream"),
    (
        "error",
        Answer.events(['{"error": {"message": "broke"}}', "[DONE]"]),
        {"stream": "error"},
        "broke",
    ),
    ("no json", Answer.events(["oops"]), {"stream": "error"}, "not a chunk: oops"),
    ("refused", Answer.error(400, f"no stream_options, {KEY}"), {"stream": "error"}, "status 400"),
    (
        "held back",
        GOOD.pause(GOOD.head_size, 0.6),
        {"stream_buffering": "warning"},
        "holds the stream back",
    ),
    ("silent", GOOD.stall(GOOD.head_size), {"stream": "error"}, "no token within 1.5 s"),
    ("stuck", GOOD.stall(GOOD.size - 200), {"stream": "error"}, "did not end within"),
]


@pytest.mark.parametrize(
    ("answer", "expected", "said"),
    [row[1:] for row in STREAM_FAULTS],
    ids=[row[0] for row in STREAM_FAULTS],
)
async def test_faults_of_streams(answer, expected, said):
    seconds = 1.5 if "no token" in said or "did not end" in said else 20
    async with FaultServer(MODELS, WHOLE, answer) as server:
        found = await findings(server.base_url, "m", timeout=seconds)
    assert bad(found) == expected, found
    assert any(said in found[name].found for name in expected), found


CALL_FAULTS = [
    ("key", faults.Status(401, message=f"Incorrect API key {KEY}"), "does not accept this key"),
    ("credit", faults.Status(402, code="insufficient_quota"), "no credit"),
    ("forbidden", faults.Status(403), "may not do this"),
    ("limit", faults.Status(429), "calls are limited"),
    ("server", faults.Status(500), "the server fails"),
    ("overloaded", faults.Status(503, message="overloaded"), "try again later"),
    ("page", faults.Status(200, "<html>hello</html>"), "no such API"),
    ("moved", faults.Redirect("https://other.example/v1/models"), "has moved"),
    ("hangs", faults.Stall(), "longer --timeout"),
    ("hangs up", faults.Cut(), "connection broke"),
]


@pytest.mark.parametrize("path", ["/models", CHAT])
@pytest.mark.parametrize(
    ("fault", "advice"), [row[1:] for row in CALL_FAULTS], ids=[row[0] for row in CALL_FAULTS]
)
async def test_faults_of_calls(path, fault, advice):
    async with Emulator(api_keys=[KEY]) as emulator:
        emulator.always(fault, path=path)
        stalls = isinstance(fault, faults.Stall)
        found = await findings(emulator.base_url, timeout=0.5 if stalls else 20)
    check = "models" if path == "/models" else "call"
    assert found[check].status == "error", found
    assert advice in found[check].advice, found[check]
    assert found["stream"].status == "skipped"


async def test_models_that_are_not_chosen_missing_or_not_listed():
    async with Emulator(api_keys=[KEY]) as emulator:
        found = await findings(emulator.base_url)
        assert "none is chosen" in found["models"].found
        found = await findings(emulator.base_url, "codellama-13b-instruct")
        assert f"did you mean {CHAT_MODEL}?" in found["models"].advice
        emulator.always(faults.Status(404), path="/models")
        found = await findings(emulator.base_url, CHAT_MODEL)
        assert (found["models"].status, found["call"].status) == ("warning", "ok")
        wrong = emulator.base_url.removesuffix("/v1")
        found = await findings(wrong)
        assert "/v1 is missing" in found["base_url"].advice
        assert "most end with /v1" in found["models"].advice


async def test_one_server_is_looked_at(monkeypatch, capsys):
    assert execute(["doctor", "--endpoint", "https://a.example/v1"]) == 2
    assert "give each endpoint as --base-url" in capsys.readouterr().err
    async with Emulator(api_keys=[KEY]) as emulator:
        monkeypatch.setenv("KONKO_BASE_URL", emulator.base_url)
        monkeypatch.setenv("KONKO_ENDPOINTS", "/nowhere/endpoints.toml")
        found = await findings(None, CHAT_MODEL)
    assert bad(found) == {"endpoints": "warning"}
    assert found["call"].status == "ok"


async def test_limits_are_shown():
    headers = {"x-ratelimit-limit-requests": "60", "x-ratelimit-remaining-requests": "0"}
    answer = Answer.whole("OK", usage=USAGE, headers=headers)
    async with FaultServer(MODELS, answer, GOOD) as server:
        found = await findings(server.base_url, "m")
    assert bad(found) == {"limits": "warning"}
    assert "limit-requests 60" in found["limits"].found


async def test_a_refused_port_and_a_name_that_nobody_knows(monkeypatch):
    monkeypatch.setenv("https_proxy", "http://u:secret@proxy.example:3128")
    found = await findings(FaultServer.refused_url())
    assert bad(found) == {"proxies": "warning", "tcp": "error"}
    assert "connection refused" in found["tcp"].found
    assert "secret" not in repr(found)
    found = await findings("https://nowhere.invalid/v1")
    assert bad(found) == {"proxies": "warning", "dns": "error"}
    assert {found[name].status for name in ("tcp", "tls", "models", "call", "stream")} == {
        "skipped"
    }


def tls(authority, name, **options):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(name, **options).configure_cert(context)
    return context


@pytest.mark.parametrize(
    "case",
    [
        ("127.0.0.1", False, 90, "error", "authority that this machine does not know"),
        ("other.example", True, 90, "error", "is for another"),
        ("127.0.0.1", True, -1, "error", "has expired"),
        ("127.0.0.1", True, 3, "warning", "valid for"),
        ("127.0.0.1", True, 90, "ok", "valid for"),
    ],
)
async def test_certificates(case, monkeypatch, tmp_path):
    name, trusted, days, status, said = case
    authority = trustme.CA()
    if trusted:
        authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    ends = dt.datetime.now(dt.UTC) + dt.timedelta(days=days, minutes=5)
    context = tls(authority, name, not_after=ends, not_before=ends - dt.timedelta(days=100))
    async with FaultServer(default=Answer.hang_up(), ssl_context=context) as server:
        found = await findings(server.base_url)
    assert (found["tls"].status, said in found["tls"].found) == (status, True), found["tls"]


async def test_plain_http_behind_https():
    async with Emulator() as server:
        found = await findings(server.base_url.replace("http:", "https:"))
    assert "does not speak TLS" in found["tls"].found


@pytest.mark.parametrize(
    ("key", "status", "said"),
    [
        (None, "error", "is not set"),
        (" ", "error", "is empty"),
        ('"abcdefgh-1234"', "error", "quotation marks"),
        ("abc\ndef-12345", "error", "characters that no key has"),
        ("“abcdefgh-1234”", "error", "characters that no key has"),
        ("Bearer abcdefgh", "error", "more than a key"),
        ("your-api-key", "warning", "placeholder"),
        ("abcdefgh-1234\n", "warning", "white space"),
        ("abcdefgh-1234", "ok", "13 characters"),
    ],
)
def test_keys(key, status, said, monkeypatch):
    if key is None:
        monkeypatch.delenv("KONKO_API_KEY")
    else:
        monkeypatch.setenv("KONKO_API_KEY", key)
    found = check_key(local=False)
    assert (found.status, said in found.found) == (status, True), found
    assert key is None or not key.strip() or key.strip() not in repr(found)


@pytest.mark.parametrize(
    "url", ["api.konko.ai", "https://u:pw@host/v1", "http://192.0.2.1/v1", "https://h/v1?x=1"]
)
async def test_addresses_that_cannot_be_used(url):
    found = await findings(url)
    assert bad(found) == {"base_url": "error"}
    assert "pw" not in repr(found)


async def test_the_command(env, emulator):
    env["KONKO_MODEL"] = CHAT_MODEL
    well = await run("doctor", env=env)
    assert (well.code, well.err) == (0, ""), well
    assert well.out.endswith("All is well.\n")
    emulator.always(faults.Status(401, message=f"bad key {KEY}"))
    ill = await run("doctor", "--json", env=env)
    assert ill.code == 1
    document = json.loads(ill.out)
    assert document["ok"] is False
    assert [one["check"] for one in document["findings"] if one["status"] == "error"] == [
        "models",
        "call",
    ]
    for result in (well, ill):
        assert KEY not in result.out + result.err


async def test_without_a_key_nothing_is_sent(emulator, tmp_path):
    env = environment(emulator, tmp_path)
    del env["KONKO_API_KEY"]
    result = await run("doctor", env=env)
    assert result.code == 1
    assert "KONKO_API_KEY is not set" in result.out
    assert "What to do: export KONKO_API_KEY=" in result.out
    assert not emulator.requests
