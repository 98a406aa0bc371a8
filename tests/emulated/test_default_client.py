"""The module-level style: one client per loop, closed without a word."""

import asyncio

import pytest
from client_kit import ASK, text_of
from test_lifetime import elsewhere, run_script

import konko_async
from konko_async import ConfigurationError
from konko_async.testing import Answer, FaultServer

MODELS = Answer.body(b'{"object":"list","data":[{"id":"m","object":"model"}]}')


def script(request):
    if request.method == "GET":
        return MODELS
    if "embeddings" in request.path:
        return Answer.body(
            b'{"data":[{"index":0,"embedding":"AACAPw=="}],"usage":{"prompt_tokens":1,"total_tokens":1}}'
        )
    if b'"prompt"' in request.body:
        return Answer.body(b'{"choices":[{"index":0,"text":"Hello"}]}')
    return (
        Answer.stream(["Hel", "lo"]) if b'"stream":true' in request.body else Answer.whole("Hello")
    )


@pytest.fixture
def from_environment(monkeypatch):
    def use(server):
        monkeypatch.setenv("KONKO_API_KEY", "k")
        monkeypatch.setenv("KONKO_BASE_URL", server.base_url)

    return use


async def all_of_it():
    assert [m.id for m in (await konko_async.models.list()).data] == ["m"]
    assert [m.id async for m in konko_async.models.list()] == ["m"]
    assert text_of(await konko_async.chat.completions.create(**ASK)) == "Hello"
    async with konko_async.chat.completions.stream(**ASK) as stream:
        assert text_of(await stream.completion()) == "Hello"
    assert (await konko_async.completions.create(model="m", prompt="x")).choices[0].text == "Hello"
    assert (await konko_async.embeddings.create(model="m", input="x")).data[0].embedding == [1.0]


async def test_one_client_for_all_calls(from_environment):
    async with FaultServer(default=script) as server:
        from_environment(server)
        await all_of_it()
        await all_of_it()
        assert server.connections.opened == 1
        await konko_async.aclose()
        await konko_async.aclose()
        await server.wait_until_closed()
        await konko_async.models.list()  # makes another
        assert server.connections.opened == 2
        await konko_async.aclose()


def test_one_client_per_loop(from_environment):
    server = FaultServer(default=script)
    with elsewhere(server) as run:
        from_environment(server)
        for number in (1, 2, 3):
            asyncio.run(all_of_it())
            run(server.wait_until_closed(number))


async def test_no_key_is_said_on_first_use():
    with pytest.raises(ConfigurationError, match="KONKO_API_KEY"):
        await konko_async.models.list()
    await konko_async.aclose()


@pytest.mark.parametrize("ending", ["", "await konko_async.aclose()", "raise SystemExit(0)"])
async def test_asyncio_run_closes_it_without_a_warning(ending):
    source = f"""
        import asyncio, konko_async
        konko_async.models  # imported here, as that takes longer than a loop in dev mode likes
        async def main():
            assert (await konko_async.models.list()).data[0].id == "m"
            stream = await konko_async.chat.completions.create(model="m", messages=[{{"role": "user", "content": "x"}}], stream=True)
            assert (await stream.completion()).choices[0].message.content == "Hello"
            {ending}
        asyncio.run(main())
    """
    async with FaultServer(default=script) as server:
        env = {"KONKO_API_KEY": "k", "KONKO_BASE_URL": server.base_url}
        assert await run_script(source, env=env) == (0, "", "")
        await server.wait_until_closed()
        assert server.connections.opened == 1


async def test_a_loop_closed_without_ceremony(from_environment):
    source = """
        import asyncio, gc, konko_async
        konko_async.models
        for _ in range(3):
            loop = asyncio.new_event_loop()
            assert loop.run_until_complete(konko_async.models.retrieve("m")) is not None
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()
            gc.collect()
    """
    async with FaultServer(Answer.body(b'{"id":"m"}')) as server:
        env = {"KONKO_API_KEY": "k", "KONKO_BASE_URL": server.base_url}
        assert await run_script(source, env=env) == (0, "", "")
