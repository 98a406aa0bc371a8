"""One client over several loops, threads, processes and sessions."""

# ruff: noqa: SIM117 - a line for each thing that is opened

import asyncio
import contextlib
import gc
import subprocess
import sys
import textwrap
import threading
import warnings

import aiohttp
import pytest
from client_kit import ASK, KEY, QUIET, ask, in_flight, make_client, pooled, serving, text_of

from konko_async import (
    APIConnectionError,
    AsyncKonko,
    ConfigurationError,
    KonkoError,
    RateLimit,
    Timeout,
)
from konko_async.testing import Answer, FaultServer

WHOLE = Answer.whole("Hello")
STREAM = Answer.stream(["Hel", "lo"])
HALF = STREAM.stall(STREAM.wire.index(b'"lo"') - 120)


@contextlib.contextmanager
def elsewhere(server):
    """Run a server on a loop of its own, in a thread; gives a function that asks it something."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    def run(coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result(20)

    try:
        run(server.start())
        yield run
        run(server.close())
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def both(client):
    assert text_of(await ask(client, stream=False)) == "Hello"
    assert text_of(await ask(client, stream=True)) == "Hello"


def script(request):
    if request.method == "GET":
        return Answer.body(b'{"data":[]}')
    return STREAM if b'"stream":true' in request.body else WHOLE


def test_making_a_client_needs_no_loop():
    with warnings.catch_warnings(action="error"):
        client = AsyncKonko(KEY)
        client.with_options(timeout=3)
        assert client.limits.lanes == ()
        assert not client.closed
        del client
        gc.collect()


def test_each_loop_gets_a_fresh_session():
    server = FaultServer(default=script)
    with elsewhere(server) as run:
        client = make_client(server)
        for turn in range(3):
            asyncio.run(both(client))
            assert in_flight(client) == 0
            run(server.wait_until_closed(turn))
        # The loops are closed; what they left in the pool was given up without a word.
        asyncio.run(client.close())
        run(server.wait_until_closed())
        with pytest.raises(ConfigurationError, match="closed"):
            asyncio.run(ask(client, stream=False))


def test_a_loop_that_rests_and_runs_again():
    server = FaultServer(default=script)
    with elsewhere(server) as run:
        client = make_client(server)
        first, second = asyncio.new_event_loop(), asyncio.new_event_loop()
        for loop in (first, second, first, second):
            loop.run_until_complete(both(client))
        second.run_until_complete(client.close())
        run(server.wait_until_closed())
        first.close()
        second.close()


def test_a_loop_that_runs_in_another_thread_is_not_robbed():
    server = FaultServer(STREAM.stall(0), default=WHOLE)
    with elsewhere(server) as run:
        client = make_client(server)
        waiting = asyncio.new_event_loop()
        answers = []
        thread = threading.Thread(
            target=lambda: answers.append(waiting.run_until_complete(ask(client, stream=True)))
        )
        thread.start()
        run(server.wait_for_stall())

        async def models():
            await client.models.list()

        for use in (ask(client, stream=False), models(), client.close()):
            with pytest.raises(ConfigurationError, match="loop"):
                asyncio.run(use)
        run(_release(server))
        thread.join()
        assert text_of(answers[0]) == "Hello"
        waiting.run_until_complete(client.close())
        waiting.close()


async def _release(server):
    server.release()


def test_a_stream_whose_loop_is_gone_does_not_hang():
    server = FaultServer(HALF)
    with elsewhere(server) as run:
        client = make_client(server)

        async def left_open():
            return await client.chat.completions.create(**ASK, stream=True)

        stream = asyncio.run(left_open())
        gc.collect()

        async def go_on():
            with pytest.raises((KonkoError, RuntimeError)):
                async with asyncio.timeout(30):
                    await stream.completion()
            await stream.close()
            await client.close()

        asyncio.run(go_on())
        run(server.wait_until_closed())
    with warnings.catch_warnings():
        # aiohttp cannot release a connection whose loop is gone, and says so of this one.
        warnings.simplefilter("ignore", ResourceWarning)
        stream = None
        gc.collect()


FORK = """
    import asyncio, os, sys, warnings
    warnings.simplefilter("error")
    from konko_async import AsyncKonko, ConfigurationError

    client = AsyncKonko("k", sys.argv[1], retry=None)

    async def ask():
        async with asyncio.timeout(60):
            await client.models.list()
            try:
                await client.chat.completions.create(
                    model="m", messages=[{"role": "user", "content": str(os.getpid())}]
                )
            except ConfigurationError as error:
                print(error)

    async def child():
        await ask()
        await client.close()

    def fork():
        pid = os.fork()
        if pid == 0:
            try:
                asyncio.run(child())
            except BaseException as error:
                print("child:", repr(error), file=sys.stderr)
                os._exit(1)
            sys.stdout.flush()
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0

    async def parent():
        await ask()
        if sys.argv[2] == "in the loop":
            fork()
        await ask()
        if sys.argv[2] == "in the loop":
            await client.close()

    asyncio.run(parent())
    if sys.argv[2] == "between loops":
        fork()
        asyncio.run(child())
"""


async def run_script(source, *arguments, env=None, flags=("-W", "error", "-X", "dev")):
    """Run a script in a process of its own; (exit code, stdout, stderr)."""
    import os

    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, *flags, "-c", QUIET + textwrap.dedent(source), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **(env or {})},
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


KEYS_AFTER_FORK = """
    import os, sys
    from konko_async.middleware._retry import _keys
    _keys.draw()  # many are drawn from the operating system at once
    pid = os.fork()
    if pid:
        os.waitpid(pid, 0)
    print(*[_keys.draw() for _ in range(100)], flush=True)
    if pid == 0:
        os._exit(0)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no fork there")
async def test_after_a_fork_no_two_calls_have_one_idempotency_key():
    code, out, err = await run_script(KEYS_AFTER_FORK)
    assert (code, err) == (0, "")
    assert len(set(out.split())) == 200


@pytest.mark.skipif(sys.platform == "win32", reason="no fork there")
@pytest.mark.parametrize("where", ["in the loop", "between loops"])
async def test_a_fork_leaves_the_parents_connections_alone(where):
    async with FaultServer(default=script) as server:
        code, out, err = await run_script(FORK, server.base_url, where, flags=())
        assert (code, err) == (0, "")
        # The limits of a loop that (in the child's memory) still runs may refuse; nothing hangs.
        assert out == "" or (where == "in the loop" and "make one client per loop" in out)
        connections = [request.connection for request in server.requests]
        if where == "in the loop":
            assert connections[0] == connections[-1] != connections[2]
        else:
            assert len(set(connections)) == 3
        await server.wait_until_closed()


async def test_a_client_never_closed_warns_but_does_not_break():
    source = """
        import asyncio, sys
        from konko_async import AsyncKonko
        async def main():
            client = AsyncKonko("k", sys.argv[1], retry=None)
            await client.models.list()
        asyncio.run(main())
        print("done")
    """
    async with FaultServer(Answer.body(b'{"data":[]}')) as server:
        code, out, err = await run_script(source, server.base_url, flags=("-W", "default"))
        assert (code, out) == (0, "done\n")
        assert "Traceback" not in err


async def test_closing_is_idempotent_and_final():
    server = FaultServer(WHOLE)
    async with server:
        client = make_client(server)
        await ask(client, stream=False)
        await client.close()
        await client.close()
        assert client.closed
        await server.wait_until_closed()
        with pytest.raises(ConfigurationError, match="closed"):
            await ask(client, stream=False)


async def test_a_client_closed_under_a_call():
    server = FaultServer(WHOLE.stall(0))
    async with serving(server) as client:
        waiting = asyncio.create_task(ask(client, stream=False))
        await server.wait_for_stall()
        await client.close()
        with pytest.raises(APIConnectionError):
            await waiting
        assert in_flight(client) == 0


async def test_copies_share_the_pool_and_the_limits():
    server = FaultServer(WHOLE)
    async with serving(server, rate_limit=RateLimit(requests_per_minute=100)) as client:
        copy = client.with_options(timeout=3, retry=None)
        await ask(client, stream=False)
        await ask(copy, stream=False)
        assert server.connections.opened == 1
        assert client.limits.lanes == copy.limits.lanes
        assert client.limits.lanes[0].requests.used == 2
        apart = client.with_options(rate_limit=RateLimit(requests_per_minute=5))
        assert apart.limits.lanes == ()
        await copy.close()
        assert not client.closed
        await ask(client, stream=False)
        async with copy:
            pass
        assert not copy.closed
    assert copy.closed


async def test_a_session_of_the_users_is_used_and_never_closed():
    server = FaultServer(STREAM.bad_chunk_size(2), default=script)
    async with server, aiohttp.ClientSession() as session:
        async with make_client(server, session=session) as client:
            with pytest.raises(KonkoError, match="the stream was cut"):
                async with asyncio.timeout(30):  # half of what it is given for a token
                    await ask(client, stream=True)
            for _ in range(5):
                await both(client)
        assert not session.closed
        assert server.connections.opened == 2
    await server.close()


async def test_a_loss_of_connections_is_noticed_on_a_session_of_the_users():
    server = FaultServer(HALF, STREAM, STREAM.cut(-3))
    async with server, aiohttp.ClientSession() as session:
        async with make_client(server, session=session) as client:
            stream = await client.chat.completions.create(**ASK, stream=True)
            server.kill_all("rst")
            with pytest.raises(KonkoError):
                await stream.completion()
            await ask(client, stream=True)
            assert text_of(await ask(client, stream=True)) == "Hello"


def test_a_session_of_another_loop_is_refused():
    server = FaultServer(WHOLE)
    with elsewhere(server):

        async def make():
            return aiohttp.ClientSession()

        loop = asyncio.new_event_loop()
        session = loop.run_until_complete(make())
        client = make_client(server, session=session)
        loop.run_until_complete(ask(client, stream=False))
        with pytest.raises(ConfigurationError, match="another event loop"):
            asyncio.run(ask(client, stream=False))
        loop.run_until_complete(session.close())
        with pytest.raises(ConfigurationError, match="session= is closed"):
            loop.run_until_complete(ask(client, stream=False))
        loop.close()


async def test_connect_deadline_holds_on_a_session_of_the_users():
    accepted = asyncio.Event()

    async def silent(reader, writer):
        accepted.set()
        with contextlib.suppress(ConnectionError):
            await reader.read()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    async with server, aiohttp.ClientSession() as session:
        client = AsyncKonko(KEY, url, retry=None, session=session, timeout=Timeout(connect=0.05))
        with pytest.raises(APIConnectionError, match="connect timeout"):
            await ask(client, stream=False)
        await client.close()
        server.close()


async def test_nothing_is_left_in_the_pool_after_many_kinds_of_ends():
    server = FaultServer(default=script)
    async with serving(server) as client:
        await asyncio.gather(*(both(client) for _ in range(20)))
        assert pooled(client)[1] == 0
        assert in_flight(client) == 0
