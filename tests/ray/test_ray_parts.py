"""What the integration with Ray does without a cluster: kept answers, divided limits, columns."""

import asyncio
import functools
import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lazy_module import LazyModule, needs

from konko_async import AsyncKonko, ConfigurationError, RateLimit
from konko_async.integrations._ray_memo import Memo, Remembered, row_key
from konko_async.testing import Emulator, faults

pa = LazyModule("pyarrow")
ray_data = LazyModule("konko_async.integrations._ray_data")
ours = LazyModule("konko_async.integrations.ray")

pytestmark = needs("ray")
MODEL = "codellama/codellama-13b-instruct"


def plan(emulator, **changes):
    options = {
        "prompt": "Q: {text}", "messages": "messages", "model": MODEL, "system": None,
        "params": {"max_tokens": 8}, "client": functools.partial(AsyncKonko, "any", emulator.base_url),
        "rate_limit": None, "max_concurrency": 8, "max_outage": 600.0, "key_column": None, "answers": None, "prefix": "",
    }  # fmt: skip
    return ray_data._ChatPlan(**{**options, **changes})


def echo(body):
    return "re: " + body["messages"][-1]["content"]


async def once(table, made):
    actor = ray_data.ChatActor(made)
    try:
        return (await actor(table)).to_pylist()
    finally:
        await actor.close()


async def test_columns_are_added():
    table = pa.table({"id": [1, 2], "text": ["a", "b"]})
    async with Emulator(answer=echo) as emulator:
        rows = await once(table, plan(emulator, prefix="x_"))
    assert [row["x_answer"] for row in rows] == ["re: Q: a", "re: Q: b"]
    assert [row["id"] for row in rows] == [1, 2]
    assert all(row["x_prompt_tokens"] > 0 and row["x_completion_tokens"] > 0 for row in rows)
    assert {row["x_error"] for row in rows} == {row["x_error_code"] for row in rows} == {None}


async def test_errors_are_rows():
    table = pa.table({"text": ["a", None, "c"], "n": [1, 2, 3]})
    async with Emulator(answer=echo) as emulator:
        emulator.script(faults.Status(400))
        rows = await once(table, plan(emulator, prompt="{text}", max_concurrency=1))
    assert [row["answer"] for row in rows] == [None, None, "re: c"]
    assert rows[0]["error"].startswith("HTTP 400")
    assert rows[0]["error_code"]
    assert rows[1]["error_code"] == "invalid_row"
    assert [row["n"] for row in rows] == [1, 2, 3]


async def test_429s_that_outlast_the_retries_are_waited_out():
    async with Emulator(answer=echo) as emulator:
        emulator.script(*[faults.Status(429, headers={"retry-after": "0"})] * 5)
        none = functools.partial(AsyncKonko, "any", emulator.base_url, retry=None)
        rows = await once(pa.table({"text": ["a"]}), plan(emulator, client=none))
        assert rows[0]["answer"] == "re: Q: a"
        assert emulator.received == 6
        emulator.script(faults.Status(429, headers={"retry-after": "1"}))
        rows = await once(pa.table({"text": ["a"]}), plan(emulator, client=none, max_outage=0.5))
    assert rows[0]["answer"] is None
    assert rows[0]["error"].startswith("HTTP 429")


async def test_a_template_that_names_no_column_fails_each_row_alone():
    async with Emulator() as emulator:
        rows = await once(pa.table({"other": ["a"]}), plan(emulator))
        assert emulator.received == 0
    assert rows[0]["error_code"] == "invalid_row"
    assert "text" in rows[0]["error"]


async def test_messages_of_a_column():
    messages = [[{"role": "user", "content": "hi", "name": None}], []]
    async with Emulator(answer=echo) as emulator:
        rows = await once(
            pa.table({"messages": messages}), plan(emulator, prompt=None, system="Be brief.")
        )
        (sent,) = [record.body["messages"] for record in emulator.requests]
    assert sent == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}]
    assert [row["error_code"] for row in rows] == [None, "invalid_row"]


async def test_no_more_calls_than_places():
    table = pa.table({"text": [str(number) for number in range(40)]})
    async with Emulator(latency=0.01) as emulator:
        rows = await once(table, plan(emulator, max_concurrency=5))
        assert emulator.peak_in_flight == 5
    assert len(rows) == 40


async def test_kept_answers_are_not_asked_for_again(tmp_path):
    table = pa.table({"id": [1, 2], "text": ["a", "a"]})
    async with Emulator(answer=echo) as emulator:
        made = plan(emulator, answers=str(tmp_path), key_column="id")
        first = await once(table, made)
        assert emulator.received == 2  # equal requests of different rows are two
        assert await once(table, made) == first
        assert emulator.received == 2
        changed = plan(emulator, answers=str(tmp_path), key_column="id", params={"max_tokens": 9})
        await once(table, changed)
        assert emulator.received == 4


def answer(number):
    return Remembered(row_key(number, {}), f"answer {number}", number, 1)


def test_a_memo_is_closed_to_others_and_does_not_trust_its_folder(tmp_path):
    folder = tmp_path / "memo"
    folder.mkdir(mode=0o777)
    folder.chmod(0o777)
    foreign = {
        "answers-key.jsonl": '["zz","a",1,1]\n',
        "answers-json.jsonl": '["00","<script>",1,1]\n{"a":\n[[[[\n\udcff',
    }
    for name, text in foreign.items():
        (folder / name).write_bytes(text.encode("utf-8", "surrogateescape"))
    os.mkfifo(folder / "answers-pipe.jsonl")
    (folder / "answers-link.jsonl").symlink_to("/etc/passwd")
    (folder / "answers-folder.jsonl").mkdir()
    memo = Memo(str(folder))
    memo.look()  # returns: no pipe is waited for
    assert memo.find("00").answer == "<script>"
    assert folder.stat().st_mode & 0o077 == 0
    memo.close()
    made = tmp_path / "new" / "memo"
    before = os.umask(0)
    try:
        Memo(str(made)).close()
    finally:
        os.umask(before)
    assert made.stat().st_mode & 0o777 == 0o700


def test_answers_of_one_that_lives_are_not_read(tmp_path):
    one, other = Memo(str(tmp_path)), Memo(str(tmp_path))
    one.keep(answer(1))
    other.look()
    assert other.find(answer(1).key) is None
    one.close()
    other._looked = 0.0
    other.look()
    assert other.find(answer(1).key) == answer(1)
    other.close()


KILLED = """
import os, signal, sys
from konko_async.integrations._ray_memo import Memo, Remembered, row_key
memo = Memo(sys.argv[1])
for number in range(3):
    memo.keep(Remembered(row_key(number, {}), f"answer {number}", number, 1))
os.write(memo._fd, b'["00')
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_answers_of_one_that_was_killed_are_read_up_to_a_torn_line(tmp_path):
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False)
    assert done.returncode < 0
    memo = Memo(str(tmp_path))
    memo.look()
    assert [memo.find(answer(number).key) for number in range(4)] == [*map(answer, range(3)), None]
    memo.close()


@given(st.lists(st.tuples(st.text(), st.text(), st.integers(0, 2**40)), max_size=20))
def test_what_is_kept_is_found(tmp_path_factory, rows):
    folder = str(tmp_path_factory.mktemp("memo"))
    one = Memo(folder)
    kept = {}
    for name, text, tokens in rows:
        key = row_key(name, {"text": text})
        kept[key] = Remembered(key, text, tokens, None)
        one.keep(kept[key])
    one.close()
    other = Memo(folder)
    other.look()
    assert {key: other.find(key) for key in kept} == kept
    other.close()


def test_limits_are_divided_unless_a_store_shares_them():
    limit = RateLimit(requests_per_minute=100, tokens_per_minute=1000, max_concurrency=10)
    part = ray_data._divided(limit, 4)
    assert (part.requests_per_minute, part.tokens_per_minute, part.max_concurrency) == (25, 250, 2)
    assert ray_data._divided(limit, 1) is limit
    assert ray_data._divided(None, 4) is None
    assert ray_data._divided(RateLimit(max_concurrency="auto"), 4).max_concurrency == "auto"
    with pytest.raises(ConfigurationError, match="cannot be divided"):
        ray_data._divided(RateLimit(requests_per_minute=3), 4)


def test_counts_are_checked():
    with pytest.raises(ConfigurationError, match="at least 1"):
        ours.RayWorkers(0)


def test_importing_it_turns_reports_and_open_ports_off():
    code = (
        "import konko_async.integrations.ray, os; from ray._private import ray_constants as c;"
        "print(os.environ['RAY_USAGE_STATS_ENABLED'], c.ENABLE_RAY_CLUSTER)"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    told = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert told.stdout.split() == ["0", "False"]


def test_a_batch_of_coroutines_runs_on_one_loop(tmp_path):
    """Ray may call an actor for several batches at the same time."""

    async def both():
        async with Emulator(answer=echo, latency=0.01) as emulator:
            actor = ray_data.ChatActor(plan(emulator, max_concurrency=3))
            tables = [pa.table({"text": [f"{n}-{i}" for i in range(6)]}) for n in range(3)]
            done = await asyncio.gather(*(actor(table) for table in tables))
            await actor.close()
            assert emulator.peak_in_flight == 3
            return [row["answer"] for table in done for row in table.to_pylist()]

    assert asyncio.run(both()) == [f"re: Q: {n}-{i}" for n in range(3) for i in range(6)]
