"""The answer cache: over sockets, with its database on the disk."""

import asyncio
import contextlib
import logging
import pickle
import sqlite3
import stat
import subprocess
import sys
import textwrap
import time

import pytest
from client_kit import ASK, KEY, MODEL, ask, make_client, serving, text_of
from hypothesis import given, settings
from hypothesis import strategies as st

from konko_async import (
    AnswerCache,
    APIError,
    CallRecord,
    ConfigurationError,
    Fallback,
    per_attempt,
)
from konko_async.middleware._cache.database import FILE, Database, Entry
from konko_async.testing import Answer, Emulator, FaultServer

FIXED = {"temperature": 0}


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "answers"


@pytest.fixture
async def emulator():
    async with Emulator() as running:
        yield running


def read(folder):
    with sqlite3.connect(folder / FILE) as database:
        rows = database.execute("SELECT * FROM answers").fetchall()
    database.close()
    return rows


@pytest.mark.parametrize("stream", [False, True])
async def test_an_equal_call_is_answered_without_the_server(emulator, folder, stream):
    records = []
    answers = []
    for _run in range(2):  # another client, as another process would have
        async with make_client(emulator, cache=folder, observers=[records.append]) as client:
            answers.append(await ask(client, stream=stream, **FIXED))
    first, second = answers
    assert (first.from_cache, second.from_cache) == (False, True)
    assert text_of(first) == text_of(second)
    assert first.usage == second.usage
    assert first.request_id == second.request_id
    assert second.headers["cache-status"] == "konko-async; hit"
    assert int(second.headers["age"]) >= 0
    assert len(emulator.requests) == 1
    calls = [record for record in records if isinstance(record, CallRecord)]
    assert [call.cached for call in calls] == [False, True]
    assert (calls[1].prompt_tokens, calls[1].completion_tokens, calls[1].attempts) == (0, 0, ())


class Sparse:
    """An observer that has no use for calls which the cache answers."""

    skips_cached = True

    def __init__(self):
        self.calls = []

    def __call__(self, record):
        if isinstance(record, CallRecord):
            self.calls.append(record.cached)


async def test_no_record_is_made_of_a_hit_where_nobody_wants_it(emulator, folder):
    alone, beside, calls = Sparse(), Sparse(), []
    for observers in ([alone], [beside, calls.append]):
        async with make_client(emulator, cache=folder, observers=observers) as client:
            for _ in range(2):
                await ask(client, stream=False, **FIXED)
    assert alone.calls == [False]
    # The other one is told of each call, as ever.
    assert beside.calls == [True, True]
    assert [call.cached for call in calls] == [True, True]


async def test_the_headers_of_a_hit_are_those_that_were_kept(emulator, folder):
    async with make_client(emulator, cache=folder) as client:
        first, second = [await ask(client, stream=False, **FIXED) for _ in range(2)]
    assert second.from_cache
    found = second.headers
    assert found["Content-Type"] == first.headers["content-type"]
    assert found["X-REQUEST-ID"] == first.headers["x-request-id"] == second.request_id
    assert int(found["Content-Length"]) == len(second.response.content)
    assert sorted(found) == [
        "age",
        "cache-status",
        "content-length",
        "content-type",
        "x-request-id",
    ]
    assert len(found) == 5
    assert "Age" in found
    assert "authorization" not in found


async def test_a_stream_is_replayed_as_the_stream_that_it_was(emulator, folder):
    async with make_client(emulator, cache=folder) as client:
        seen = []
        for _ in range(2):
            async with client.chat.completions.stream(**ASK, **FIXED) as stream:
                seen.append([chunk.model_dump_json() async for chunk in stream])
        assert stream.from_cache
        assert len(seen[0]) > 2
        assert seen[0] == seen[1]
    assert len(emulator.requests) == 1


async def test_embeddings_are_kept(emulator, folder):
    async with make_client(emulator, cache=folder) as client:
        made = [
            await client.embeddings.create(model="thenlper/gte-base", input=["a", "b"])
            for _ in range(2)
        ]
    assert made[1].from_cache
    assert made[0].data == made[1].data


async def test_only_answers_that_are_the_same_each_time_are_kept(emulator, folder):
    async with make_client(emulator, cache=folder) as client:
        for more in ({}, {}, {"temperature": 0.5}, {"temperature": 0.5}):
            assert not (await ask(client, stream=False, **more)).from_cache
        assert client.cache.stats.passed == 4
        await client.models.list()
        assert not (await ask(client, stream=False, temperature=1, seed=7)).from_cache
        assert (await ask(client, stream=False, temperature=1, seed=7)).from_cache
        forced = client.with_options(cache=AnswerCache(folder, every_call=True))
        assert not (await ask(forced, stream=False)).from_cache
        assert (await ask(forced, stream=False)).from_cache
        off = client.with_options(cache=None)
        assert not (await ask(off, stream=False, seed=7)).from_cache


async def test_what_is_sent_and_where_makes_the_key(emulator, folder):
    async with make_client(emulator, cache=folder, api_key=KEY) as client:
        create = client.chat.completions.create

        async def cached(**more):
            return (await create(**{**ASK, **FIXED, **more})).from_cache

        assert not await cached(extra_headers={"Idempotency-Key": "1", "traceparent": "x"})
        assert await cached(extra_headers={"Idempotency-Key": "2"})
        assert await cached(extra_body={"temperature": 0, "model": MODEL})  # in another order
        assert not await cached(max_tokens=3)
        assert not await cached(extra_headers={"X-Tenant": "b"})
        assert not await cached(extra_query={"v": "2"})
        assert not await cached(messages=[{"role": "user", "content": "Say hello!"}])
    async with Emulator() as other, make_client(other, cache=folder) as client:
        assert not (await ask(client, stream=False, **FIXED)).from_cache


async def test_keys_have_answers_of_their_own_unless_they_share_a_namespace(emulator, folder):
    async def cached(key, **options):
        cache = AnswerCache(folder, **options)
        async with make_client(emulator, cache=cache, api_key=key) as client:
            return (await ask(client, stream=False, **FIXED)).from_cache

    def function():
        return "sk-of-a-function-123"

    assert not await cached("sk-tenant-one-1234567")
    assert await cached("sk-tenant-one-1234567")
    assert not await cached("sk-tenant-two-1234567")
    assert not await cached(function)
    assert await cached("sk-of-a-function-123")  # the key counts, not whence it comes
    assert not await cached("sk-tenant-one-1234567", namespace="team")
    assert await cached("sk-tenant-two-1234567", namespace="team")


async def test_a_fallback_has_answers_of_its_own(emulator, folder):
    server = FaultServer(Answer.error(500), Answer.error(500))
    fallback = Fallback(base_url=emulator.base_url, api_key="sk-another-1234567")
    async with serving(server, cache=folder, fallback_models=[fallback]) as client:
        assert not (await ask(client, stream=False, **FIXED)).from_cache
        assert (await ask(client, stream=False, **FIXED)).from_cache
    assert len(server.requests) == 2  # the first server is asked again: its failure is not kept


STREAM = Answer.stream(["Hel", "lo"])
BAD = {
    "refused": Answer.error(400),
    "failed": Answer.error(500),
    "whole, cut": Answer.whole("Hello").cut(-5),
    "cut": STREAM.cut(-60),
    "reset": STREAM.cut(-60, "rst"),
    "no end": Answer.stream(["Hel", "lo"], finish_reason=None, done=False),
    "empty": Answer.whole(" "),
    "empty stream": Answer.stream(["", " "]),
    "filtered": Answer.whole("Hello", finish_reason="content_filter"),
    "broken off": Answer.whole("Hello", finish_reason="error"),
    "no reason": Answer.whole("Hello", finish_reason=None),
}


@pytest.mark.parametrize("name", BAD)
async def test_what_is_not_a_whole_answer_is_never_kept(name, folder):
    stream = b"event-stream" in BAD[name].wire
    good = STREAM if stream else Answer.whole("Hello")
    async with serving(FaultServer(BAD[name], good, good), cache=folder) as client:
        with contextlib.suppress(APIError):
            await ask(client, stream=stream, **FIXED)
        assert client.cache.stats.stored == 0
        for cached in (False, True):
            answer = await ask(client, stream=stream, **FIXED)
            assert (text_of(answer), answer.from_cache) == ("Hello", cached)


async def test_a_stream_that_is_left_before_its_end_is_not_kept(folder):
    endless = STREAM.stall(STREAM.wire.index(b'"lo"') - 60)
    async with serving(FaultServer(endless), cache=folder) as client:
        async with client.chat.completions.stream(**ASK, **FIXED) as stream:
            async for _text in stream.text():
                break
        assert client.cache.stats.stored == 0


async def test_a_key_that_the_server_repeats_does_not_get_to_the_disk(folder):
    named = Answer.whole("Hello", headers={"X-Request-Id": f"of {KEY}"})
    answers = [Answer.whole(f"Your key is {KEY}"), named]
    async with serving(FaultServer(*answers), cache=folder) as client:
        await ask(client, stream=False, **FIXED)
        assert not (await ask(client, stream=False, **FIXED)).from_cache
    data = b"".join(path.read_bytes() for path in folder.iterdir())
    assert b"Hello" in data
    assert b"of <redacted>" in data
    assert KEY.encode() not in data
    assert MODEL.encode() in data  # as the server named it; of the request there is only a hash
    assert ASK["messages"][0]["content"].encode() not in data


async def test_files_are_for_their_owner_alone(emulator, folder):
    async with make_client(emulator, cache=folder) as client:
        await ask(client, stream=False, **FIXED)
        await ask(client, stream=False, **FIXED)
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert set(modes.values()) == {0o600}


async def test_two_caches_of_one_folder_see_each_others_answers(emulator, folder):
    one = AnswerCache(folder)
    other = pickle.loads(pickle.dumps(one))  # noqa: S301 - our own bytes, as a worker gets them
    async with make_client(emulator, cache=one) as a, make_client(emulator, cache=other) as b:
        both = await asyncio.gather(
            *(
                client.chat.completions.create(**{**ASK, **FIXED, "seed": seed})
                for client in (a, b)
                for seed in range(20)
            )
        )
        assert len(both) == 40
        await one.close()  # all is written; the next call starts it again
        await other.close()
        for client in (a, b):
            for seed in range(20):
                again = await client.chat.completions.create(**{**ASK, **FIXED, "seed": seed})
                assert again.from_cache
    assert len(read(folder)) == 20


async def test_old_answers_are_asked_for_again(emulator, folder):
    async with make_client(emulator, cache=AnswerCache(folder, max_age=60)) as client:
        await ask(client, stream=False, **FIXED)
    with sqlite3.connect(folder / FILE) as database:
        database.execute("UPDATE answers SET created = created - 61, used = used - 61")
    database.close()
    async with make_client(emulator, cache=AnswerCache(folder, max_age=60)) as client:
        assert not (await ask(client, stream=False, **FIXED)).from_cache
        assert (await ask(client, stream=False, **FIXED)).from_cache
    assert len(read(folder)) == 1


def test_what_was_used_longest_ago_makes_room(folder):
    database = Database(str(folder))
    body = b"x" * 1000  # not worth compressing
    for number in range(2000):
        database.write([(b"%d" % number, Entry({}, body, 0.0))], [], float(number))
    database.write([], [b"0"], 5000.0)  # used again
    database.make_room(1 << 20)
    found, _ = database.find([b"0", b"1", b"1999"], 0.0)
    assert found.keys() == {b"0", b"1999"}
    database.expire(4000.0)
    assert database.find([b"0", b"1999"], 0.0)[0].keys() == {b"0"}
    database.close()


@settings(deadline=None)  # each example makes a database, on whatever disk this is
@given(bodies=st.lists(st.binary(max_size=5000), max_size=5), head=st.text(max_size=20))
def test_what_is_kept_is_what_is_found(tmp_path_factory, bodies, head):
    database = Database(str(tmp_path_factory.mktemp("cache")))
    entries = {bytes([n]): Entry({"a": head}, body, time.time()) for n, body in enumerate(bodies)}
    database.write(entries.items(), [], 1.0)
    found, stale = database.find([*entries, b"other"], 1e9)
    assert found == entries
    assert set(stale) == set(entries)
    database.close()


async def test_a_damaged_database_costs_no_call(emulator, folder, caplog):
    folder.mkdir()
    (folder / FILE).write_bytes(b"no database at all, but long enough to be one" * 100)
    async with make_client(emulator, cache=folder) as client:
        with caplog.at_level(logging.WARNING, logger="konko_async.cache"):
            for _ in range(2):
                assert not (await ask(client, stream=False, **FIXED)).from_cache
        assert "not a database" in client.cache.stats.failure
    assert len([r for r in caplog.records if "cannot be used" in r.message]) == 1
    with pytest.raises(ConfigurationError, match="give another folder"):
        AnswerCache(folder).check()


async def test_a_database_of_another_version_is_left_alone(folder):
    Database(str(folder)).close()
    with sqlite3.connect(folder / FILE) as database:
        database.execute("PRAGMA user_version=99")
    database.close()
    with pytest.raises(ConfigurationError, match="another version"):
        AnswerCache(folder).check()


async def test_a_database_that_can_be_used_passes_the_check(folder):
    AnswerCache(folder).check()
    assert read(folder) == []


async def test_a_request_that_a_layer_emptied_is_not_looked_up(folder):
    async def emptied(request, call_next):
        return await call_next(request.replace(content=b""))

    server = FaultServer(Answer.whole("Hello"), Answer.whole("Hello"))
    async with serving(server, cache=folder, middleware=[emptied]) as client:
        for _ in range(2):
            assert not (await ask(client, stream=False, **FIXED)).from_cache
        assert client.cache.stats.passed == 2


async def test_a_stream_longer_than_what_is_kept_is_handed_on_and_not_kept(folder):
    part = "x" * (1 << 20)
    async with serving(FaultServer(Answer.stream([part] * 34)), cache=folder) as client:
        assert text_of(await ask(client, stream=True, **FIXED)) == part * 34
        assert client.cache.stats.stored == 0


async def test_of_two_answers_the_one_that_was_returned_is_kept(folder):
    async def twice(request, call_next):
        await call_next(request)
        return await call_next(request)

    server = FaultServer(Answer.whole("first"), Answer.whole("second"))
    async with serving(server, cache=folder, middleware=[per_attempt(twice)]) as client:
        for cached in (False, True):
            answer = await ask(client, stream=False, **FIXED)
            assert (text_of(answer), answer.from_cache) == ("second", cached)


async def test_an_answer_that_cannot_be_read_any_more_is_asked_for_again(emulator, folder):
    async with make_client(emulator, cache=folder) as client:
        await ask(client, stream=False, **FIXED)
    with sqlite3.connect(folder / FILE) as database:
        database.execute("UPDATE answers SET flags = 0, body = ?", (b"{",))
    database.close()
    async with make_client(emulator, cache=folder) as client:
        assert not (await ask(client, stream=False, **FIXED)).from_cache
        assert (await ask(client, stream=False, **FIXED)).from_cache


async def test_a_hit_on_what_was_not_used_for_long_is_noted_as_a_use(emulator, folder):
    for asks in (1, 2):
        async with make_client(emulator, cache=folder) as client:
            assert (await ask(client, stream=False, **FIXED)).from_cache is (asks == 2)
        with contextlib.closing(sqlite3.connect(folder / FILE)) as database:
            (used,) = database.execute("SELECT used FROM answers").fetchone()
            assert used == pytest.approx(time.time(), abs=600)
            database.execute("UPDATE answers SET used = 0")
            database.commit()


@pytest.mark.parametrize(
    "bad",
    [
        {"folder": 3},
        {"folder": ""},
        {"folder": "x", "max_bytes": 10},
        {"folder": "x", "max_bytes": True},
        {"folder": "x", "max_age": 0},
        {"folder": "x", "max_age": "1h"},
        {"folder": "x", "namespace": 3},
    ],
)
def test_options_that_cannot_be_used_are_refused(bad):
    with pytest.raises(ConfigurationError):
        AnswerCache(**bad)


async def test_a_cache_is_left_by_async_with_and_shows_where_it_is(emulator, folder):
    async with AnswerCache(folder) as cache:
        assert repr(cache) == f"<AnswerCache {str(folder)!r}>"
        async with make_client(emulator, cache=cache) as client:
            await ask(client, stream=False, **FIXED)
            hit = await ask(client, stream=False, **FIXED)
    assert hit.from_cache
    assert hit.headers.copy()["cache-status"] == hit.headers["cache-status"]
    assert "cache-status" in repr(hit.headers).lower()


async def test_texts_are_kept_and_empty_ones_are_not(emulator, folder):
    text = "phind/phind-codellama-34b-v2"
    async with make_client(emulator, cache=folder) as client:
        for answer, kept in ((["Hello"], True), ([], False)):
            emulator.answer = lambda _, answer=answer: answer
            prompt = f"{answer}"
            for hit in (False, kept):
                found = await client.completions.create(model=text, prompt=prompt, **FIXED)
                assert found.from_cache is hit


async def test_a_layer_below_the_cache_may_change_what_is_sent(emulator, folder):
    async def shorter(request, call_next):
        return await call_next(request.replace(params={**ASK, "max_tokens": 1, **FIXED}))

    async with make_client(emulator, cache=folder, middleware=[per_attempt(shorter)]) as client:
        await ask(client, stream=False, **FIXED)
        assert (await ask(client, stream=False, **FIXED)).from_cache
    assert [entry.body["max_tokens"] for entry in emulator.requests] == [1]


async def test_places_without_end_cost_no_memory_without_end(emulator, folder):
    async with make_client(emulator, cache=folder) as client:
        for number in range(300):
            await ask(client, stream=False, extra_query={"n": str(number)}, **FIXED)
        assert (await ask(client, stream=False, extra_query={"n": "299"}, **FIXED)).from_cache
        assert (await ask(client, stream=False, extra_query={"n": "0"}, **FIXED)).from_cache
    assert len(emulator.requests) == 300


async def test_a_table_that_is_gone_costs_no_call(emulator, folder, caplog):
    async with make_client(emulator, cache=folder) as client:
        await ask(client, stream=False, **FIXED)
        async with asyncio.timeout(30):
            while not read(folder):  # its thread has not written it yet
                await asyncio.sleep(0.01)
        with contextlib.closing(sqlite3.connect(folder / FILE)) as database:
            database.execute("DROP TABLE answers")
        for number in range(3):
            answer = await ask(client, stream=False, seed=number)
            assert text_of(answer)
            assert not answer.from_cache
    [warning] = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert "cannot be used (OperationalError: no such table" in warning.getMessage()


def test_a_database_that_another_process_prepares_is_waited_for(folder, monkeypatch):
    folder.mkdir()
    with contextlib.closing(sqlite3.connect(folder / FILE, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        other.execute("CREATE TABLE being_made (key)")
        # SQLite does not wait for it. The other one is ready while we do.
        monkeypatch.setattr(time, "sleep", lambda _: other.execute("COMMIT"))
        Database(str(folder)).close()
    assert read(folder) == []


def test_a_database_that_cannot_be_prepared_is_not_tried_again(folder, monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda _: pytest.fail("it will not get better"))
    folder.mkdir()
    with contextlib.closing(sqlite3.connect(folder / FILE)) as other:
        other.execute("CREATE VIEW answers AS SELECT 1 AS used")
    with pytest.raises(sqlite3.OperationalError, match="view"):
        Database(str(folder))


def test_a_transaction_that_fails_is_taken_back(folder):
    database = Database(str(folder))
    entry = Entry({}, b"body", 1.0)
    with contextlib.closing(sqlite3.connect(folder / FILE)) as other:
        other.execute(
            "CREATE TRIGGER no BEFORE INSERT ON answers BEGIN SELECT RAISE(ABORT, 'no'); END"
        )
        other.commit()
        with pytest.raises(sqlite3.IntegrityError):
            database.write([(b"k", entry)], [], 1.0)
        other.execute("DROP TRIGGER no")
        other.commit()
    database.write([(b"k", entry)], [], 1.0)  # no transaction is open any more
    assert set(database.find([b"k"], 1.0)[0]) == {b"k"}
    database.close()


AFTER_FORK = """
    import asyncio, contextlib, os, sqlite3, sys, time
    from konko_async import AsyncKonko

    base_url, folder, file, model = sys.argv[1:]
    client = AsyncKonko("any", base_url, cache=folder)

    async def ask():
        messages = [{"role": "user", "content": "Hi"}]
        answer = await client.chat.completions.create(
            model=model, messages=messages, temperature=0
        )
        print(answer.from_cache, flush=True)

    asyncio.run(ask())
    with contextlib.closing(sqlite3.connect(file)) as database:
        while not database.execute("SELECT count(*) FROM answers").fetchone()[0]:
            time.sleep(0.01)  # its thread has not written it yet
    for asks in (True, False):  # the threads are the parent's; one child does not even begin
        child = os.fork()
        if not child:
            if asks:
                asyncio.run(ask())
            asyncio.run(client.close())
            sys.exit()
        assert os.waitpid(child, 0)[1] == 0
    asyncio.run(ask())
    asyncio.run(client.close())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no fork there")
async def test_after_a_fork_both_processes_use_the_folder(emulator, folder):
    arguments = emulator.base_url, folder, folder / FILE, MODEL
    done = await asyncio.to_thread(
        subprocess.run,
        # From 3.12 on Python warns of forks beside threads, which is what is tried here.
        [
            sys.executable,
            "-W",
            "ignore:This process",
            "-c",
            textwrap.dedent(AFTER_FORK),
            *arguments,
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    # In the parent, in the child that asks, and in the parent again.
    assert done.stdout.split() == ["False", "True", "True"]
    assert len(emulator.requests) == 1
