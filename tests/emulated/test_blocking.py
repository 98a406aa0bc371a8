"""The client without await: the same calls, from any thread, closed without a word."""

import gc
import inspect
import json
import os
import runpy
import signal
import subprocess
import sys
import textwrap
import threading
import traceback
import weakref
from pathlib import Path

import pytest
from client_kit import ASK, KEY, MESSAGES, MODEL, PATIENT, QUIET, text_of
from test_default_client import script as answers
from test_lifetime import elsewhere

import konko_async.blocking as konko
from konko_async import AsyncKonko, BadRequestError, ConfigurationError, KonkoError, StreamError
from konko_async.batch import Stop
from konko_async.blocking import Konko
from konko_async.testing import Answer, Emulator, FaultServer

ROOT = Path(__file__).parent.parent.parent
STREAM = Answer.stream(["Hel", "lo"])
HALF = STREAM.stall(STREAM.wire.index(b'"lo"') - 120)


def make(server, **options):
    defaults = {"retry": None, "circuit_breaker": None, "timeout": PATIENT}
    return Konko(KEY, server.base_url, **{**defaults, **options})


@pytest.fixture
def served():
    """A server that answers everything, and what asks it something in its own thread."""
    server = FaultServer(default=answers)
    with elsewhere(server) as run:
        server.run = run
        yield server


def all_of_it(client):
    assert [model.id for model in client.models.list().data] == ["m"]
    assert [model.id for model in client.models.list()] == ["m"]
    assert text_of(client.chat.completions.create(**ASK)) == "Hello"
    assert "".join(client.chat.completions.create(**ASK, stream=True).text()) == "Hello"
    with client.chat.completions.stream(**ASK) as stream:
        assert next(stream).choices[0].delta.content is not None
        assert text_of(stream.completion()) == "Hello"
    chunks = list(client.chat.completions.create(**ASK, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "Hello"
    assert client.completions.create(model="m", prompt="x").choices[0].text == "Hello"
    assert client.embeddings.create(model="m", input="x").data[0].embedding == [1.0]
    found = [r.completion for r in client.chat.completions.map([ASK] * 3, ordered=True)]
    assert list(map(text_of, found)) == ["Hello"] * 3


def test_every_call(served):
    with make(served) as client:
        all_of_it(client)
        copy = client.with_options(timeout=5)
        assert isinstance(copy, Konko)
        all_of_it(copy)
        copy.close()
        assert not client.closed
        assert client.chat is client.chat
        assert (client.timeout.connect, copy.timeout.total) == (PATIENT.connect, 5)
        assert repr(client) == f"<Konko base_url={served.base_url!r}>"
    assert client.closed
    client.close()
    with pytest.raises(KonkoError, match="closed"):
        client.models.list()


def test_the_names_of_the_module(served, monkeypatch):
    with pytest.raises(ConfigurationError, match="KONKO_API_KEY"):
        konko.models.list()
    monkeypatch.setenv("KONKO_API_KEY", "k")
    monkeypatch.setenv("KONKO_BASE_URL", served.base_url)
    for number in (1, 2):
        all_of_it(konko)
        konko.close()
        konko.close()
        served.run(served.wait_until_closed(number))


async def test_inside_a_running_loop(served):
    with make(served) as client:
        all_of_it(client)


def test_many_threads(served):
    found = []

    def work():
        for _ in range(20):
            found.append(text_of(client.chat.completions.create(**ASK)))
            found.append("".join(client.chat.completions.stream(**ASK).text()))

    with make(served) as client:
        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found == ["Hello"] * 320


def test_raw_answers(served):
    body = {**ASK, "stream": True}
    with make(served) as client:
        whole = client.request("POST", "/chat/completions", ASK)
        assert (whole.status_code, json.loads(whole.read())["object"]) == (200, "chat.completion")
        with client.request("POST", "/chat/completions", body, stream=True) as raw:
            assert b"".join(raw.iter_bytes()).endswith(b"[DONE]\n\n")
        client.request("POST", "/chat/completions", body, stream=True)  # dropped: closed quietly
        completions = client.chat.completions
        whole = completions.with_raw_response.create(**ASK)
        assert whole.status_code == 200
        assert text_of(whole.parse()) == "Hello"
        stream = completions.with_raw_response.create(**ASK, stream=True).parse()
        assert "".join(stream.text()) == "Hello"
        with completions.with_streaming_response.create(**ASK) as response:
            assert text_of(response.parse()) == "Hello"
            assert json.loads(response.read())["object"] == "chat.completion"


# -- errors ----------------------------------------------------------------------------------------


def test_errors_are_those_of_the_call():
    cut = STREAM.cut(STREAM.wire.index(b'"lo"') - 120)
    server = FaultServer(Answer.error(400, "no such thing"), cut)
    with elsewhere(server), make(server) as client:
        with pytest.raises(BadRequestError, match="no such thing") as caught:
            client.chat.completions.create(**ASK)
        assert len(caught.value.attempts) == 1
        with pytest.raises(StreamError) as broken:
            list(client.chat.completions.stream(**ASK))
        assert text_of(broken.value.partial) == "Hel"
        with pytest.raises(TypeError, match="unknown"):
            client.chat.completions.create(**ASK, unknown=1)
        with pytest.raises(AttributeError):
            client.chat.completions.no_such_name  # noqa: B018 - the access is the test


def test_a_key_is_in_no_traceback():
    with pytest.raises(ConfigurationError) as caught:
        Konko("sk-secret", "https://127.0.0.1/v1", openai_api_key="sk-other", retry=3)
    shown = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    # The frame of this test has the key in its source, which is not ours.
    text = "".join(list(shown.format())).replace(
        inspect.getsource(test_a_key_is_in_no_traceback), ""
    )
    assert "sk-secret" not in "".join(line for line in text.splitlines() if "Konko(" not in line)


def test_a_key_in_a_calls_headers_or_query_is_in_no_frame_of_ours():
    secrets = {"extra_headers": {"X-Key": "sk-canary-1"}, "extra_query": {"key": "sk-canary-2"}}
    server = FaultServer(default=Answer.error(400))
    with elsewhere(server), make(server, default_headers={"X-Own": "sk-canary-3"}) as client:
        for stream in (False, True):
            with pytest.raises(BadRequestError) as caught:
                client.chat.completions.create(**ASK, stream=stream, **secrets)
            shown = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
            ours = [frame.locals for frame in shown.stack if "/tests/" not in frame.filename]
            assert len(ours) > 2
            assert "canary" not in repr(ours)
    with pytest.raises(ConfigurationError) as caught:
        Konko(
            "sk-canary",
            default_headers={"X": "sk-canary-4"},
            default_query={"k": "sk-canary-5"},
            retry=1,
        )
    shown = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    assert "canary" not in repr([f.locals for f in shown.stack if "/tests/" not in f.filename])


def test_a_blocking_call_in_the_own_loop_is_refused(served):
    async def outer(request, call_next):
        client.models.list()
        return await call_next(request)

    with make(served, middleware=[outer]) as client, pytest.raises(KonkoError, match="own event"):
        client.chat.completions.create(**ASK)


def test_a_system_exit_in_the_loop_reaches_the_caller_and_the_loop_goes_on(served):
    async def leave(request, call_next):
        raise SystemExit(3)

    with make(served) as client:
        with pytest.raises(SystemExit):
            client.with_options(middleware=[leave]).chat.completions.create(**ASK)
        assert text_of(client.chat.completions.create(**ASK)) == "Hello"


def test_closing_ends_the_calls_of_other_threads():
    server = FaultServer(STREAM.stall(0))
    errors = []
    with elsewhere(server) as run:
        client = make(server)

        def call():
            try:
                client.chat.completions.create(**ASK)
            except KonkoError as error:
                errors.append(error)

        thread = threading.Thread(target=call)
        thread.start()
        run(server.wait_for_stall())
        client.close()
        thread.join()
        run(server.wait_until_closed())
    assert len(errors) == 1


# -- leaving ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["break", "with", "close", "del"])
def test_a_stream_that_is_left_frees_its_connection(way):
    server = FaultServer(HALF)
    with elsewhere(server) as run, make(server) as client:
        if way == "break":
            for _ in client.chat.completions.create(**ASK, stream=True):
                break
        elif way == "with":
            with client.chat.completions.stream(**ASK) as stream:
                next(stream)
            stream.close()
        else:
            stream = client.chat.completions.create(**ASK, stream=True)
            if way == "close":
                stream.close()
                assert stream.closed
            del stream
        run(server.wait_until_closed())


def test_a_client_that_is_dropped_closes_itself(served):
    client = make(served)
    all_of_it(client)
    thread = client._portal._home.thread
    gone = weakref.ref(client._portal)
    del client
    gc.collect()
    assert gone() is None
    thread.join(20)
    assert not thread.is_alive()
    served.run(served.wait_until_closed())


def test_a_map_reads_its_input_in_the_callers_thread(served):
    here, ended = threading.current_thread(), []

    def requests(count):
        try:
            for _ in range(count):
                assert threading.current_thread() is here
                client.models.list()  # which would wait for itself in the other thread
                yield ASK
        finally:
            ended.append(threading.current_thread() is here)

    with make(served) as client:
        results = client.chat.completions.map(requests(30), max_concurrency=4)
        assert sorted(result.index for result in results) == list(range(30))
        with client.chat.completions.map(requests(10**9), max_concurrency=4) as results:
            for result in results:
                assert result.error is None
                break
        assert ended == [True, True]

        def failing():
            yield ASK
            raise LookupError("no more")

        with pytest.raises(LookupError, match="no more"):
            list(client.chat.completions.map(failing()))
        with pytest.raises(BadRequestError):
            list(client.chat.completions.map(failing_call(), fail_fast=True))


def failing_call():
    yield ASK
    raise BadRequestError("as if", status_code=400)


# -- tools and batches -----------------------------------------------------------------------------


def test_tools():
    here, asked = threading.current_thread(), []

    def weather(city: str) -> str:
        """Tell the weather."""
        return f"sunny in {city}"

    def allow(call):
        asked.append(threading.current_thread() is here)
        return True

    server = Emulator()
    with elsewhere(server), Konko("k", server.base_url) as client:
        run_tools = client.chat.completions.run_tools
        result = run_tools(model=MODEL, messages=MESSAGES, tools=[weather], before_tool=allow)
        assert text_of(result.completion)
        assert result.rounds == 2
        assert [outcome.error for outcome in result.calls] == [None]
        assert asked == [True]
        run = run_tools(model=MODEL, messages=MESSAGES, tools=[weather])
        kinds = [type(event).__name__ for event in run]
        assert kinds[:2] == ["ToolStarted", "ToolFinished"]
        assert run.result.rounds == 2
        with run_tools(model=MODEL, messages=MESSAGES, tools=[weather]) as run:
            next(run)
        run = run_tools(model=MODEL, messages=MESSAGES, tools=[weather])
        with pytest.warns(RuntimeWarning, match="never run"):
            del run


def test_run_batch(served, tmp_path):
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("".join(json.dumps({"text": str(n)}) + "\n" for n in range(40)))
    here, seen = threading.current_thread(), []

    def show(progress):
        seen.append(threading.current_thread() is here)

    options = {"model": "m", "prompt": "{text}", "prices": {}}
    with make(served) as client:
        stop = Stop()
        stop.request()
        report = konko.run_batch(client, source, target, stop=stop, **options)
        assert report.stopped
        report = konko.run_batch(client, source, target, on_progress=show, **options)
        assert (report.done, report.failed) == (40, 0)
        assert seen
        assert all(seen)

        def fail(progress):
            raise LookupError("in a progress bar")

        with pytest.raises(LookupError):
            konko.run_batch(client, source, tmp_path / "other", on_progress=fail, **options)
        with pytest.raises(ConfigurationError, match="blocking"):
            konko.run_batch(AsyncKonko("k"), source, target)


# -- signals, forks, the end -----------------------------------------------------------------------


def start_script(source, server):
    env = os.environ | {"KONKO_API_KEY": "k", "KONKO_BASE_URL": server.base_url}
    command = [sys.executable, "-X", "dev", "-W", "error", "-c", QUIET + textwrap.dedent(source)]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.PIPE,
        text=True,
        env=env,
    )


def test_ctrl_c_ends_the_call_and_its_connection():
    source = f"""
        import konko_async.blocking as konko
        ask = {ASK!r}
        try:
            konko.chat.completions.create(**ask, stream=True).completion()
        except KeyboardInterrupt:
            print("interrupted", flush=True)
            input()  # the connection is closed before the program ends
    """
    server = FaultServer(HALF)
    with elsewhere(server) as run:
        process = start_script(source, server)
        run(server.wait_for_stall())
        process.send_signal(signal.SIGINT)
        run(server.wait_until_closed())
        assert process.communicate("\n", timeout=60) == ("interrupted\n", "")


LEFT_OPEN = """
        stream = konko.chat.completions.create(**ask, stream=True)
        results = konko.chat.completions.map(ask for _ in range(9))
        client = konko.Konko()
        client.models.list()
        raise SystemExit(0)
"""


@pytest.mark.parametrize("ending", ["konko.close()", LEFT_OPEN])
def test_the_end_of_a_program_is_quiet(served, ending):
    source = f"""
        import konko_async.blocking as konko
        ask = {ASK!r}
        assert konko.chat.completions.create(**ask).choices[0].message.content == "Hello"
        {ending}
    """
    process = start_script(source, served)
    assert process.communicate(timeout=60) == ("", "")
    assert process.returncode == 0
    served.run(served.wait_until_closed())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_both_processes_go_on_after_a_fork(served):
    source = f"""
        import os, sys, threading
        from konko_async import KonkoError
        import konko_async.blocking as konko
        ask = {ASK!r}
        def call():
            return konko.chat.completions.create(**ask).choices[0].message.content
        stream = konko.chat.completions.create(**ask, stream=True)
        first = next(stream)
        for turn in range(2):
            assert call() == "Hello"
            child = os.fork()
            if child == 0:
                assert threading.active_count() == 1, threading.enumerate()
                assert call() == "Hello"
                try:
                    list(stream)
                except KonkoError as error:
                    assert "fork" in str(error)
                sys.exit(7)
            assert call() == "Hello"
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        assert len(list(stream)) > 0
        print("done")
    """
    process = start_script(source, served)
    assert process.communicate(timeout=100) == ("done\n", "")
    served.run(served.wait_until_closed())


# -- the face --------------------------------------------------------------------------------------


def test_the_stub_is_what_the_script_makes():
    script = runpy.run_path(str(ROOT / "scripts" / "make_blocking_stubs.py"))
    committed = script["STUB"].read_text()
    assert script["same"](script["make"](), committed), "python scripts/make_blocking_stubs.py"


def test_the_module_has_the_names_of_its_stub():
    script = runpy.run_path(str(ROOT / "scripts" / "make_blocking_stubs.py"))
    assert {*script["NAMES"], *script["SHOWN"], "Konko", "close", "run_batch"} == set(konko.__all__)
    for name in konko.__all__:
        assert getattr(konko, name) is not None
    with pytest.raises(AttributeError):
        konko.no_such_name  # noqa: B018 - the access is the test


def test_methods_and_properties_are_those_of_the_async_client(served):
    with make(served) as client:
        for part in ("chat.completions", "completions", "embeddings", "models"):
            mine, theirs = client, AsyncKonko("k")
            for name in part.split("."):
                mine, theirs = getattr(mine, name), getattr(theirs, name)
            public = {name for name in dir(theirs) if not name.startswith("_")}
            assert public <= set(dir(mine))
        shown = inspect.signature(client.chat.completions.create).parameters
        assert {"temperature", "model", "timeout"} <= set(shown)
        assert "conversation" in client.chat.completions.create.__doc__
        assert not inspect.iscoroutinefunction(client.chat.completions.create)
    public = {name for name in dir(AsyncKonko) if not name.startswith("_")}
    assert public <= set(dir(Konko))
    assert (
        inspect.signature(Konko).parameters.keys()
        == inspect.signature(AsyncKonko).parameters.keys()
    )
