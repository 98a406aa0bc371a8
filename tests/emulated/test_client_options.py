"""Options that callers of ``openai`` know: where they go, and what "not given" means."""

import asyncio
import pickle

import msgspec
import pytest
from client_kit import ASK, KEY, MODEL, ask, make_client, serving, text_of

from konko_async import (
    AsyncKonko,
    AuthenticationError,
    ChatCompletion,
    ConfigurationError,
    Fallback,
    RetryPolicy,
    Timeout,
)
from konko_async.integrations.openai import http_client
from konko_async.testing import Answer, Emulator, FaultServer, faults
from konko_async.testing._emulator.log import fingerprint

STREAM = Answer.stream(["Hel", "lo"])
WHOLE = Answer.whole("Hello")


# -- keys from functions -----------------------------------------------------------------------------


class KeyServer:
    """Accepts some keys, and notes which it was shown."""

    def __init__(self, *accepted, answer=WHOLE):
        self.accepted, self.shown, self.answer = accepted, [], answer

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.base_url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"
        return self

    async def __aexit__(self, *_):
        self._server.close()

    async def _serve(self, reader, writer):
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                fields = dict(line.split(": ", 1) for line in head.split("\r\n")[1:-2])
                await reader.readexactly(int(fields.get("Content-Length", 0)))
                key = fields.get("Authorization", "").removeprefix("Bearer ")
                self.shown.append(key)
                refused = Answer.body(b'{"error": {"message": "no"}}', status=401)
                writer.write((self.answer if key in self.accepted else refused).wire)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


def keys(*values):
    """A function that hands out one key after the other, and how often it was asked."""
    left = list(values)

    def next_key():
        next_key.asked += 1
        return left.pop(0)

    next_key.asked = 0
    return next_key


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_a_function_is_asked_once_and_again_after_a_401(kind):
    next_key = keys("key-one-1", "key-two-2")

    async def next_key_async():
        await asyncio.sleep(0)
        return next_key()

    function = next_key if kind == "sync" else next_key_async
    async with KeyServer("key-two-2") as server, make_client(server, api_key=function) as client:
        assert next_key.asked == 0  # nothing is done before the first call
        for _ in range(2):
            answer = await ask(client, stream=False)
            assert text_of(answer) == "Hello"
        assert server.shown == ["key-one-1", "key-two-2", "key-two-2"]


async def test_many_calls_at_once_ask_once():
    next_key = keys("key-one-1", "key-two-2")
    async with KeyServer("key-two-2") as server, make_client(server, api_key=next_key) as client:
        answers = await asyncio.gather(*(ask(client, stream=False) for _ in range(20)))
        assert {text_of(answer) for answer in answers} == {"Hello"}
        assert next_key.asked == 2


async def test_a_401_for_the_new_key_too_is_an_error():
    async with (
        KeyServer() as server,
        make_client(server, api_key=keys("key-one-1", "key-two-2"), retry=RetryPolicy()) as client,
    ):
        with pytest.raises(AuthenticationError) as caught:
            await ask(client, stream=False)
        assert server.shown == ["key-one-1", "key-two-2"]
        assert len(caught.value.attempts) == 1


async def streamed(client):
    return await ask(client, stream=True)


async def created_as_stream(client):
    return await (await client.chat.completions.create(**ASK, stream=True)).completion()


async def raw(client):
    return (await client.chat.completions.with_raw_response.create(**ASK)).parse()


async def raw_stream(client):
    answer = await client.chat.completions.with_raw_response.create(**ASK, stream=True)
    return await answer.parse().completion()


async def read_piece_by_piece(client):
    async with client.chat.completions.with_streaming_response.create(**ASK) as answer:
        return await answer.parse()


async def by_path(client):
    answer = await client.request("POST", "/chat/completions", ASK)
    return msgspec.json.decode(answer.content, type=ChatCompletion)


def under_openai(client):
    openai = pytest.importorskip("openai")
    below = http_client(client)
    return openai.AsyncOpenAI(
        base_url=client.base_url, api_key="none", max_retries=0, http_client=below
    )


async def by_openai(client):
    async with under_openai(client) as theirs:
        return await theirs.chat.completions.create(**ASK)


async def by_openai_streamed(client):
    async with (
        under_openai(client) as theirs,
        theirs.chat.completions.stream(**ASK) as stream,
    ):
        return await stream.get_final_completion()


WAYS = [streamed, created_as_stream, raw, raw_stream, read_piece_by_piece, by_path, by_openai, by_openai_streamed]  # fmt: skip


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
async def test_every_kind_of_call_asks_again_after_a_401(way):
    next_key = keys("key-one-1", "key-two-2", "key-three-3", "key-four-4")
    answer = STREAM if "stream" in way.__name__ else WHOLE
    async with (
        KeyServer("key-two-2", answer=answer) as server,
        make_client(server, api_key=next_key) as client,
    ):
        assert text_of(await way(client)) == "Hello"
        # That it has run out since.
        server.accepted = ("key-three-3",)
        assert text_of(await way(client)) == "Hello"
        assert server.shown == ["key-one-1", "key-two-2", "key-two-2", "key-three-3"]
        server.accepted = ()
        with pytest.raises(Exception, match="no") as caught:
            await way(client)
        assert type(caught.value).__name__ == "AuthenticationError"
        assert server.shown[4:] == ["key-three-3", "key-four-4"]


@pytest.mark.parametrize("value", [None, "", 7, "a\nb"], ids=repr)
async def test_what_is_no_key_is_refused_without_being_shown(value):
    async with serving(FaultServer(WHOLE), api_key=lambda: value) as client:
        with pytest.raises(ConfigurationError, match="that api_key\\(\\) returned"):
            await ask(client, stream=False)


async def test_a_function_that_raises_is_named():
    def broken():
        raise LookupError("no vault")

    async with serving(FaultServer(WHOLE), api_key=broken) as client:
        with pytest.raises(ConfigurationError, match="raised LookupError"):
            await ask(client, stream=False)


async def test_the_function_is_asked_anew_in_another_process():
    client = AsyncKonko(api_key=keys_for_pickle, base_url="http://127.0.0.1:9/v1")
    source = client._engine.settings.api_key
    assert "key" not in repr(source).lower().replace("keysource", "")
    assert pickle.loads(pickle.dumps(source)).fingerprint == source.fingerprint  # noqa: S301 - ours


def keys_for_pickle():
    return "key-one-1"


async def test_a_fallbacks_own_key_is_used_instead():
    async with KeyServer("other-key-3") as second, FaultServer(Answer.error(503)) as first:
        fallback = Fallback(base_url=second.base_url, api_key="other-key-3")
        options = {"api_key": keys("key-one-1"), "fallback_models": [fallback]}
        async with make_client(first, **options) as client:
            assert text_of(await ask(client, stream=False)) == "Hello"
        assert second.shown == ["other-key-3"]


# -- what is sent with every request -----------------------------------------------------------------


async def test_a_default_query_goes_with_every_request_of_this_server():
    query = {"api-version": "2024-06-01", "n": 1}
    async with FaultServer(Answer.error(503)) as first, FaultServer(WHOLE) as second:
        options = {
            "default_query": query,
            "fallback_models": [Fallback(base_url=second.base_url)],
        }
        async with make_client(first, **options) as client:
            await ask(client, stream=False, extra_query={"trace": "a b", "n": "2"})
        target = first.requests[0].path
        assert target == "/v1/chat/completions?api-version=2024-06-01&n=2&trace=a+b"
        assert second.requests[0].path == "/v1/chat/completions"


async def test_organization_and_project_are_headers():
    options = {"organization": "org-1", "project": "proj-2"}
    async with FaultServer(WHOLE) as server, make_client(server, **options) as client:
        await ask(client, stream=False)
        headers = server.requests[0].headers
        assert (headers["openai-organization"], headers["openai-project"]) == ("org-1", "proj-2")


@pytest.mark.parametrize("trust", [True, False])
async def test_a_proxy_of_the_environment_is_used_where_it_is_trusted(trust, monkeypatch):
    async with FaultServer(WHOLE) as proxy, FaultServer(WHOLE) as server:
        monkeypatch.setenv("KONKO_ASYNC_FAST_PATH", "1")
        monkeypatch.setenv("http_proxy", proxy.base_url.removesuffix("/v1"))
        async with make_client(server, trust_env=trust) as client:
            assert client.pool.fast_path is not trust
            assert text_of(await ask(client, stream=False)) == "Hello"
        assert (len(proxy.requests), len(server.requests)) == ((1, 0) if trust else (0, 1))


# -- retries, copies ---------------------------------------------------------------------------------


@pytest.mark.parametrize("retries", [0, 2])
async def test_max_retries_are_attempts_after_the_first(retries):
    server = FaultServer(Answer.error(503))
    retry = RetryPolicy(base_delay=0.001, max_attempts=9)
    async with server, make_client(server, retry=retry, max_retries=retries) as client:
        with pytest.raises(Exception, match="503") as caught:
            await ask(client, stream=False)
        assert len(caught.value.attempts) == retries + 1
        copy = client.copy(max_retries=1, timeout=9)
        with pytest.raises(Exception, match="503") as caught:
            await ask(copy, stream=False)
        assert len(caught.value.attempts) == 2
        assert copy._engine.policies.timeout.total == 9
        assert copy._engine.policies.retry.base_delay == 0.001


@pytest.mark.parametrize("retries", [-1, True, 1.0, "2"], ids=repr)
def test_max_retries_is_a_count(retries):
    with pytest.raises(ConfigurationError, match="max_retries"):
        AsyncKonko(KEY, max_retries=retries)


# -- not given ---------------------------------------------------------------------------------------


def marker(name):
    """What the ``openai`` package uses, told by its names: that package is not needed here."""
    kind = type(name, (), {"__module__": "openai._types", "__bool__": lambda _: False})
    return kind()


NOTHING = {"None": None, "NOT_GIVEN": marker("NotGiven"), "omit": marker("Omit")}


@pytest.mark.parametrize("name", NOTHING)
async def test_what_is_not_given_is_the_default(name):
    nothing = NOTHING[name]
    said = {"temperature": nothing, "tools": nothing, "stop": nothing, "timeout": nothing}
    said |= {"extra_headers": nothing, "extra_query": nothing, "extra_body": nothing}
    async with Emulator() as server:
        client = AsyncKonko(
            server.api_key if hasattr(server, "api_key") else KEY,
            server.base_url,
            nothing,
            timeout=nothing,
            max_retries=nothing,
            default_headers=nothing,
            default_query=nothing,
            organization=nothing,
            project=nothing,
            keepalive=nothing,
            trust_env=nothing,
            session=nothing,
        )
        async with client:
            assert client._engine.policies.timeout == Timeout()
            assert client._engine.policies.retry == RetryPolicy()
            await client.chat.completions.create(
                **ASK, **said, stream=nothing, response_format=nothing
            )
            async with client.chat.completions.stream(
                **ASK, **said, response_format=nothing
            ) as stream:
                await stream.completion()
            await client.completions.create(model=MODEL, prompt="Hi.", stream=nothing, n=nothing)
            await client.models.list(timeout=nothing)
            body = server.requests[0].body
            assert set(body) == {"model", "messages"}


def test_markers_leave_policies_as_they_are():
    client = AsyncKonko(KEY, retry=NOTHING["omit"], circuit_breaker=NOTHING["NOT_GIVEN"])
    assert client._engine.policies.retry == RetryPolicy()
    assert client._engine.policies.circuit_breaker is not None
    same = client.with_options(retry=NOTHING["omit"], timeout=NOTHING["NOT_GIVEN"])
    assert same._engine.policies.retry == RetryPolicy()
    assert AsyncKonko(KEY, retry=None)._engine.policies.retry is None  # which says: none


def test_others_of_that_name_are_values():
    other = type("NotGiven", (), {"__module__": "elsewhere"})()
    with pytest.raises(ConfigurationError):
        AsyncKonko(KEY, timeout=other)


async def test_a_fallback_may_have_another_key_for_the_same_server():
    async with Emulator() as server:
        server.script(faults.Status(500))
        fallback = Fallback(model="codellama/codellama-13b-instruct", api_key="other-key-3")
        options = {"api_key": "key-one-1", "fallback_models": [fallback]}
        async with make_client(server, **options, default_headers={"X-Team": "a"}) as client:
            await ask(client, stream=False)
        sent = [entry.key_fingerprint for entry in server.requests]
        assert sent == [fingerprint("key-one-1"), fingerprint("other-key-3")]
        # It is this client's server, so it gets this client's headers.
        assert [entry.headers["x-team"] for entry in server.requests] == ["a", "a"]
