"""The local model, end to end: a real llama.cpp server with real weights."""

import asyncio
import os
import select
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio

from konko_async import AsyncKonko, AuthenticationError, BadRequestError
from konko_async.errors import ConfigurationError
from konko_async.local import (
    SUMMARY_OPTIONS,
    LocalServer,
    LocalServerError,
    available,
    summary_messages,
)

pytestmark = [
    pytest.mark.local_model,
    pytest.mark.skipif(not available(), reason="the extra `local` is not installed"),
]
linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

README = """\
# msgspec

[![CI](https://example.org/badge.svg)](https://example.org) [Docs](https://example.org/docs)

`msgspec` is a *fast* serialization and validation library, with builtin support for
[JSON](https://json.org), MessagePack, YAML and TOML. It features:

```python
import msgspec
```
"""


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A cache folder into which the weights are put together once."""
    folder = tmp_path_factory.mktemp("cache") / "konko_async"
    yield folder
    shutil.rmtree(folder, ignore_errors=True)  # 253 MB


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(cache):
    async with LocalServer(cache_dir=cache, n_parallel=2) as server:
        _of_the_shared_server.update(threading.enumerate())
        yield server


@pytest.fixture
async def client(server):
    async with AsyncKonko(server.api_key, server.base_url) as client:
        yield client


@pytest.fixture(autouse=True)
def waitpid_threads_are_over():
    """Python 3.11 waits for each subprocess in a thread, which ends a moment after it has told."""
    yield
    for thread in threading.enumerate():
        if thread.name.startswith("asyncio-waitpid") and thread not in _of_the_shared_server:
            thread.join(60)


_of_the_shared_server = set()


@pytest.fixture
def children():
    """Fail a test after which a subprocess of ours is left, zombies included."""
    before = _children()
    yield
    assert _children() == before


def _children():
    try:
        return set(Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split())
    except OSError:
        return set()


def _ask(text):
    return [{"role": "user", "content": text}]


async def test_it_answers_and_stops(server, client):
    answer = await client.chat.completions.create(
        model=server.model, messages=_ask("What is the capital of France?")
    )
    assert answer.choices[0].message.content == "The capital of France is Paris."
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.completion_tokens < 20


async def test_it_takes_system_messages_history_and_content_parts(server, client):
    messages = [
        {"role": "system", "content": "The assistant is polite."},
        *_ask("My name is Ann."),
        {"role": "assistant", "content": "Nice to meet you, Ann!"},
        {"role": "user", "content": [{"type": "text", "text": "What is my name?"}]},
    ]
    answer = await client.chat.completions.create(model=server.model, messages=messages)
    assert "Ann" in answer.choices[0].message.content


async def test_it_summarises(server, client):
    answer = await client.chat.completions.create(
        model=server.model, messages=summary_messages(README), **SUMMARY_OPTIONS
    )
    summary = answer.choices[0].message.content
    assert "serialization" in summary
    assert "library" in summary
    assert len(summary) < 150
    assert not summary.startswith(" ")


async def test_worked_examples_are_evaluated_once(server, client):
    """The second call finds the shared prefix in its slot's cache."""
    for text in (README, README.replace("fast", "quick"), README.replace("fast", "small")):
        answer = await client.chat.completions.create(
            model=server.model, messages=summary_messages(text), **SUMMARY_OPTIONS
        )
    usage = answer.raw["usage"]
    assert usage["prompt_tokens_details"]["cached_tokens"] > 0.7 * usage["prompt_tokens"]


async def test_tokens_come_one_by_one(server, client):
    messages = _ask("Why is the sky blue?")
    whole = await client.chat.completions.create(model=server.model, messages=messages)
    async with client.chat.completions.stream(model=server.model, messages=messages) as stream:
        parts = [text async for text in stream.text()]
    assert "".join(parts) == whole.choices[0].message.content
    assert len(parts) >= whole.usage.completion_tokens // 2 >= 5


async def test_the_model_list_names_the_model(server, client):
    page = await client.models.list()
    assert [model.id for model in page.data] == [server.model] == ["gemma-3-270m"]


async def test_a_prompt_beyond_the_context_is_refused_not_fatal(server, client):
    with pytest.raises(BadRequestError, match="context"):
        await client.chat.completions.create(model=server.model, messages=_ask("word " * 5000))
    assert (await client.models.list()).data


async def test_calls_beyond_the_slots_wait_their_turn(server, client):
    questions = [f"What is the capital of {name}?" for name in ("Italy", "Spain", "Greece") * 2]
    answers = await asyncio.gather(
        *(client.chat.completions.create(model=server.model, messages=_ask(q)) for q in questions)
    )
    assert ["Rome" in a.choices[0].message.content for a in answers[::3]] == [True, True]


@pytest.mark.parametrize("key", [None, "wrong"])
@pytest.mark.parametrize("path", ["/chat/completions", "/completions", "/embeddings", "/models"])
async def test_nothing_is_answered_without_the_key(server, path, key):
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    method = "GET" if path == "/models" else "POST"
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, server.base_url + path, headers=headers) as answer,
    ):
        assert answer.status == 401


async def test_a_wrong_key_is_an_authentication_error(server):
    async with AsyncKonko("wrong", server.base_url) as client:
        with pytest.raises(AuthenticationError):
            await client.models.list()


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:1"])
@pytest.mark.parametrize("method", ["OPTIONS", "GET", "POST"])
async def test_no_other_origin_is_let_in(server, method, origin):
    headers = {"Origin": origin, "Authorization": f"Bearer {server.api_key}"}
    if method == "OPTIONS":
        headers["Access-Control-Request-Method"] = "POST"
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, f"{server.base_url}/chat/completions", headers=headers) as answer,
    ):
        assert not answer.headers.get("Access-Control-Allow-Origin")
        assert answer.headers.get("Access-Control-Allow-Credentials") != "true"


@linux
def test_it_listens_on_loopback_only(server):
    port = f"{int(server.base_url.split(':')[2].split('/')[0]):04X}"
    listening = [
        line.split()[1]
        for table in ("/proc/net/tcp", "/proc/net/tcp6")
        if Path(table).exists()
        for line in Path(table).read_text().splitlines()[1:]
        if line.split()[1].endswith(f":{port}") and line.split()[3] == "0A"
    ]
    assert listening == [f"0100007F:{port}"]


@linux
def test_the_key_is_nowhere_to_be_read(server, cache):
    process = Path(f"/proc/{server.pid}")
    assert server.api_key.encode() not in (process / "cmdline").read_bytes()
    assert server.api_key.encode() not in (process / "environ").read_bytes()
    assert server.api_key not in repr(server)
    assert all(server.api_key not in log.read_text() for log in (cache / "logs").iterdir())


@pytest.mark.skipif(os.name != "posix", reason="modes of POSIX")
def test_files_are_for_their_owner_only(server, cache):
    for path in (cache, *cache.rglob("*")):
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path


@linux
async def test_a_second_server_runs_beside_it_until_it_is_killed(server, cache, children):
    second = LocalServer(cache_dir=cache, n_parallel=1, n_ctx=512)
    async with second:
        assert second.base_url != server.base_url
        assert second.api_key != server.api_key
        waiting = asyncio.create_task(second.wait())
        os.kill(second.pid, signal.SIGKILL)
        with pytest.raises(LocalServerError, match="exit code -9"):
            await waiting
        assert second.pid is None
    await second.close()
    with pytest.raises(ConfigurationError, match="starts once"):
        await second.start()


async def test_wait_returns_when_it_is_closed_and_the_log_goes(cache, children):
    server = LocalServer(cache_dir=cache, n_parallel=1, n_ctx=512)
    logs = set((cache / "logs").glob("*"))
    await server.start()
    assert set((cache / "logs").glob("*")) - logs
    waiting = asyncio.create_task(server.wait())
    await asyncio.gather(server.close(), server.close())
    await waiting
    assert set((cache / "logs").glob("*")) == logs


PARENT = """\
import asyncio, sys
from konko_async.local import LocalServer

async def main():
    async with LocalServer(cache_dir=sys.argv[1], n_parallel=1, n_ctx=512) as server:
        print(server.pid, flush=True)
        await server.wait()

asyncio.run(main())
"""


@linux
@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGINT])
def test_it_dies_with_its_parent(server, cache, ending):
    command = [sys.executable, "-c", PARENT, str(cache)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as parent:
        watched = os.pidfd_open(int(parent.stdout.readline()))
        try:
            parent.send_signal(ending)
            assert select.select([watched], [], [], 10)[0], "the server outlived its parent"
        finally:
            os.close(watched)


async def test_it_ends_when_its_life_line_does(server, cache, children):
    """The way that works on every platform: the pipe's end, not a signal."""
    third = LocalServer(cache_dir=cache, n_parallel=1, n_ctx=512)
    async with third:
        third._child._process.stdin.close()
        assert await third._child.wait() == 0


async def test_a_broken_model_file_is_a_clear_error(tmp_path, children):
    model = tmp_path / "mine.gguf"
    model.write_bytes(b"not a model")
    server = LocalServer(model_path=model, cache_dir=tmp_path / "cache")
    assert server.model == "mine"
    with pytest.raises(LocalServerError, match=r"(?s)did not start.*invalid magic"):
        await server.start()
    assert server.pid is None
    with pytest.raises(LocalServerError, match="not been started"):
        _ = server.base_url


async def test_a_missing_model_file_is_refused_before_anything_starts(tmp_path, children):
    server = LocalServer(model_path=tmp_path / "none.gguf", cache_dir=tmp_path / "cache")
    with pytest.raises(ConfigurationError, match=r"none\.gguf"):
        await server.start()
    assert not (tmp_path / "cache").exists()


async def test_a_cache_folder_that_cannot_be_made_is_a_clear_error(tmp_path, children):
    (tmp_path / "file").touch()
    with pytest.raises(LocalServerError, match="did not start"):
        await LocalServer(cache_dir=tmp_path / "file").start()


async def test_a_missing_extra_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    assert not available()
    with pytest.raises(ConfigurationError, match=r"pip install 'konko-async\[local\]'"):
        await LocalServer(cache_dir=tmp_path).start()


@pytest.mark.parametrize(
    "options",
    [{"n_parallel": 0}, {"n_ctx": 1}, {"n_threads": 0}, {"startup_timeout": float("nan")}],
)
def test_senseless_options_are_refused(options):
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        LocalServer(**options)


async def test_a_start_that_takes_too_long_is_given_up(server, cache, children):
    late = LocalServer(cache_dir=cache, startup_timeout=0.01)
    with pytest.raises(LocalServerError, match=r"not ready in 0\.01 s"):
        await late.start()


@pytest.mark.parametrize("steps", [0, 1, 2, 3, 4, 6, 10, 20])
async def test_a_start_cancelled_at_any_step_leaves_nothing(server, cache, children, steps):
    before = sorted(cache.rglob("*"))
    starting = asyncio.create_task(LocalServer(cache_dir=cache).start())
    for _ in range(steps):
        await asyncio.sleep(0)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert sorted(cache.rglob("*")) == before


async def test_closing_it_while_it_starts_ends_the_start(server, cache, children):
    other = LocalServer(cache_dir=cache)
    starting = asyncio.create_task(other.start())
    while other.pid is None:
        await asyncio.sleep(0)
    await other.close()
    with pytest.raises(LocalServerError, match="did not start"):
        await starting


async def test_a_start_cancelled_while_weights_are_assembled_leaves_no_file(tmp_path, children):
    starting = asyncio.create_task(LocalServer(cache_dir=tmp_path).start())
    while not [path for path in tmp_path.iterdir() if path.suffix == ".tmp"]:
        await asyncio.sleep(0)
        assert not starting.done()
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert [path.name for path in tmp_path.rglob("*")] == ["logs"]


def test_importing_it_loads_no_engine():
    code = (
        "import sys, konko_async.local; print('xllamacpp' in sys.modules, 'aiohttp' in sys.modules)"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert printed.stdout.split() == [b"False", b"False"]
