"""Tables, frames and other people's storage at both ends of a batch."""

import asyncio
import csv
import datetime as dt
import gzip
import json
import os
import signal
import subprocess
import sys
import tracemalloc

import pytest
from aiohttp import web
from batch_kit import MODEL, asked, line, read, run, write
from lazy_module import LazyModule, needs

from konko_async import ConfigurationError
from konko_async.batch import BatchChangedError, BatchInputError, BatchOutputError, Filesystem, Stop
from konko_async.batch._data.arrow_table import ArrowTable

pa = LazyModule("pyarrow")
pq = LazyModule("pyarrow.parquet")
fsspec = pytest.importorskip("fsspec")
pytestmark = needs("pyarrow")

ASK = {"prompt": "Say {text}", "model": MODEL}


def table(count=30):
    day = dt.date(2020, 1, 1)
    return pa.table(
        {
            "id": [f"r{number}" for number in range(count)],
            "text": [f"text {number}" for number in range(count)],
            "day": [day + dt.timedelta(number) for number in range(count)],
            "tags": [["a", str(number)] for number in range(count)],
            "score": [None if number % 3 else number / 2 for number in range(count)],
        }
    )


@pytest.fixture
def parquet(tmp_path):
    pq.write_table(table(), tmp_path / "in.parquet", row_group_size=7)
    return tmp_path / "in.parquet"


def check(found):
    """Every row with its own fields, in order, and its own answer."""
    own = table(found.num_rows)
    assert found.select(own.column_names).to_pylist() == own.to_pylist()
    answers = [f"re: Say text {number}" for number in range(found.num_rows)]
    assert found.column("answer").to_pylist() == answers


@pytest.mark.parametrize("group", [500, 4000])
def test_a_long_parquet_file_is_never_held(tmp_path, group):
    path = tmp_path / "long.parquet"
    texts = [os.urandom(3000).hex() for _ in range(4000)]  # which compression leaves as long
    pq.write_table(pa.table({"text": texts}), path, row_group_size=group, compression="none")
    with path.open("rb") as file:
        read_in = ArrowTable.of_files([(str(path), file)])
        tracemalloc.start()
        try:
            rows = sum(batch.num_rows for batch in read_in.batches())
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert rows == 4000
    assert peak < path.stat().st_size / 4, peak


async def test_parquet_in_and_out(client, parquet, tmp_path):
    report = await run(client, parquet, tmp_path / "out.parquet", **ASK)
    assert (report.answered, report.output) == (30, str(tmp_path / "out.parquet"))
    found = pq.read_table(tmp_path / "out.parquet")
    check(found)
    assert found.schema.field("day").type == pa.date32()
    assert found.column("prompt_tokens").to_pylist() == [5] * 30 or all(
        found.column("prompt_tokens").to_pylist()
    )
    assert set(found.column("error").to_pylist()) == {None}
    assert not list(tmp_path.glob("*.new"))
    again = await run(client, parquet, tmp_path / "out.parquet", **ASK)
    assert again.resumed == 30


async def test_arrow_files_and_folders_of_parquet(client, tmp_path):
    (tmp_path / "parts").mkdir()
    for part in range(3):
        pq.write_table(table().slice(part * 10, 10), tmp_path / "parts" / f"{part}.parquet")
    with pa.ipc.new_file(tmp_path / "in.arrow", table().schema) as writer:
        writer.write_table(table(), max_chunksize=4)
    for source in ("parts", "parts/*.parquet", "in.arrow"):
        await run(client, tmp_path / source, tmp_path / "out.arrow", restart=True, **ASK)
        with pa.ipc.open_file(tmp_path / "out.arrow") as file:
            check(file.read_all())
    pq.write_table(pa.table({"other": ["x"]}), tmp_path / "parts" / "9.parquet")
    with pytest.raises(BatchInputError, match="other columns"):
        await run(client, tmp_path / "parts", tmp_path / "out.arrow", restart=True, **ASK)


class Dataset:
    """What `datasets.Dataset` and `IterableDataset` have in common."""

    def __init__(self, rows):
        self._rows = rows

    def with_format(self, name):
        assert name == "arrow"
        return self

    def iter(self, batch_size):
        for start in range(0, self._rows.num_rows, batch_size):
            yield self._rows.slice(start, batch_size)


def frames():
    import pandas as pd
    import polars as pl

    shuffled = table().to_pandas().set_index(pd.Index(range(100, 130)))
    return [table(), shuffled, pl.from_arrow(table()), Dataset(table())]


@pytest.mark.parametrize("number", range(4))
async def test_frames_and_data_sets(client, tmp_path, number):
    await run(client, frames()[number], tmp_path / "out.parquet", **ASK)
    check(pq.read_table(tmp_path / "out.parquet").drop_columns([]))


async def test_rows_of_python(client, tmp_path):
    rows = [{"text": "a", "n": 1}, {"text": "b", "n": 2.5, "more": {"x": [1]}}, {"text": "c"}]
    await run(client, rows, tmp_path / "out.parquet", **ASK)
    found = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert [row["n"] for row in found] == [1.0, 2.5, None]
    assert [row["more"] for row in found] == [None, '{"x":[1]}', None]
    assert [row["custom_id"] for row in found] == ["row-1", "row-2", "row-3"]


async def test_requests_in_parquet(client, emulator, tmp_path):
    rows = [line(number) for number in range(4)]
    bodies = [row["body"] for row in rows]
    as_text = [{"custom_id": row["custom_id"], "body": json.dumps(row["body"])} for row in rows]
    messages = [{"id": f"id-{n}", **body, "seed": n or None} for n, body in enumerate(bodies)]
    for name, content in (("struct", rows), ("text", as_text), ("bodies", messages)):
        pq.write_table(pa.Table.from_pylist(content), tmp_path / f"{name}.parquet")
        await run(client, tmp_path / f"{name}.parquet", tmp_path / f"{name}.csv")
        with (tmp_path / f"{name}.csv").open(newline="") as file:
            found = list(csv.DictReader(file))
        assert [row["custom_id"] for row in found] == [f"id-{number}" for number in range(4)]
        assert [row["answer"] for row in found] == [f"re: row {number}" for number in range(4)]
    assert all(None not in record.body.values() for record in emulator.requests)


async def test_text_outputs_have_the_rows_own_fields(client, tmp_path):
    source = tmp_path / "in.csv"
    source.write_text('id,text\n1,"a, ""b"""\n2,c\n')
    await run(client, source, tmp_path / "out.tsv", **ASK)
    header, first, _ = (tmp_path / "out.tsv").read_text().splitlines()
    assert header.split("\t")[:4] == ["id", "text", "custom_id", "answer"]
    assert first.startswith('1\t"a, ""b"""\t1\t"re: Say a, ""b"""')
    await run(client, source, tmp_path / "out.jsonl.gz", columns=["text", "answer"], **ASK)
    lines = gzip.decompress((tmp_path / "out.jsonl.gz").read_bytes()).splitlines()
    assert json.loads(lines[1]) == {"text": "c", "answer": "re: Say c"}


async def test_lines_in_the_order_of_the_input(client, tmp_path):
    source = write(tmp_path / "in.jsonl", [line(number) for number in range(60)])
    await run(client, source, tmp_path / "out.jsonl", ordered=True, shuffle=7)
    plain = read(tmp_path / "out.jsonl.work.jsonl")
    found = read(tmp_path / "out.jsonl")
    assert [row["custom_id"] for row in found] == [f"id-{number}" for number in range(60)]
    assert sorted(map(str, plain)) == sorted(map(str, found))
    assert plain != found


async def test_a_name_that_rows_have_taken_is_not_lost(client, tmp_path):
    rows = [{"text": "a", "answer": "theirs"}]
    await run(client, rows, tmp_path / "out.csv", **ASK)
    with (tmp_path / "out.csv").open(newline="") as file:
        (found,) = csv.DictReader(file)
    assert (found["answer"], found["konko_answer"]) == ("theirs", "re: Say a")


async def test_failed_and_invalid_rows_are_in_the_table(client, emulator, tmp_path):
    source = tmp_path / "in.jsonl"
    source.write_text('{"text": "a"}\n{"text"\n{"text": ["b"]}\n{"text": "c"}\n')
    await run(client, source, tmp_path / "out.parquet", skip_invalid=True, limit=2, **ASK)
    found = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert [row["text"] for row in found] == ["a", None, '["b"]']  # the last one was not sent yet
    assert found[1]["error"].startswith("invalid_row: line 2")
    assert found[1]["answer"] is None


async def test_columns_that_there_are_not_are_refused_before_anything_is_sent(
    client, emulator, parquet, tmp_path
):
    with pytest.raises(ConfigurationError, match="no column 'nope'; the input has id, text"):
        await run(client, parquet, tmp_path / "out.csv", columns=["nope"], **ASK)
    with pytest.raises(ConfigurationError, match="the columns are id, text, day"):
        await run(client, parquet, tmp_path / "out.csv", prompt="{nope}", model=MODEL)
    for output, more in (
        ("-", {"ordered": True}),
        (tmp_path / "o.parquet.gz", {}),
        (tmp_path / "o.jsonl.zst", {}),
        (tmp_path / "o.csv", {"columns": "answer"}),
    ):
        with pytest.raises(ConfigurationError):
            await run(client, parquet, output, **more, **ASK)
    assert not emulator.requests


@pytest.mark.parametrize("content", [b"PAR1" + bytes(range(200)) + b"PAR1", b"ARROW1" + bytes(90)])
async def test_a_damaged_table_is_reported(client, emulator, tmp_path, content):
    (tmp_path / "in.parquet").write_bytes(content)
    with pytest.raises(BatchInputError, match="damaged, or not whole"):
        await run(client, tmp_path / "in.parquet", tmp_path / "out.jsonl", **ASK)
    assert not emulator.requests
    assert not list(tmp_path.glob("out*"))


async def test_an_input_that_has_changed_is_noticed(client, parquet, tmp_path):
    await run(client, parquet, tmp_path / "out.parquet", limit=10, **ASK)
    changed = table().set_column(1, "text", [[f"text {number}!" for number in range(30)]])
    pq.write_table(changed, parquet)
    with pytest.raises(BatchChangedError):
        await run(client, parquet, tmp_path / "out.parquet", **ASK)


class NoReplacing(Filesystem):
    """A crash when all is written, before it takes its place."""

    def replace(self, source, target):  # noqa: ARG002 - the method of Filesystem
        raise OSError(28, "No space left on device")


async def test_a_table_that_cannot_be_written_loses_no_answer(client, emulator, parquet, tmp_path):
    with pytest.raises(BatchOutputError, match="the answers are safe in"):
        await run(client, parquet, tmp_path / "out.parquet", files=NoReplacing(), **ASK)
    assert not (tmp_path / "out.parquet").exists()
    await run(client, parquet, tmp_path / "out.parquet", **ASK)
    check(pq.read_table(tmp_path / "out.parquet"))
    assert set(asked(emulator).values()) == {1}


async def test_a_stopped_run_leaves_no_table_and_is_resumed(client, emulator, parquet, tmp_path):
    stop, notices = Stop(), []
    emulator.latency = 0.002  # there is progress to see
    task = asyncio.create_task(
        run(
            client, parquet, tmp_path / "out.parquet", stop=stop, max_concurrency=1,
            on_notice=notices.append, on_progress=lambda p: p.done and not stop.requested and stop.request(),
            progress_interval=0.001, **ASK,
        )
    )  # fmt: skip
    report = await task
    assert report.stopped == "stopped"
    assert 0 < report.done < 30
    assert not (tmp_path / "out.parquet").exists()
    assert "the same call resumes" in notices[-1]
    await run(client, parquet, tmp_path / "out.parquet", **ASK)
    check(pq.read_table(tmp_path / "out.parquet"))
    assert set(asked(emulator).values()) == {1}


async def test_kills_lose_and_repeat_nothing(emulator, parquet, tmp_path):
    """Killed again and again, also while the table is written: all rows, once, in order."""
    env = {**os.environ, "KONKO_API_KEY": "k", "KONKO_BASE_URL": emulator.base_url}
    asked_for = ("batch", str(parquet), str(tmp_path / "out.parquet"), "--prompt", "Say {text}")
    command = (
        *(sys.executable, "-m", "konko_async", *asked_for),
        *("-m", MODEL, "--max-concurrency", "2", "--progress", "none"),
    )
    for answered in (8, 30):
        process = await asyncio.create_subprocess_exec(
            *command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while len(emulator.requests) < answered and process.returncode is None:
            await asyncio.sleep(0.005)
        if process.returncode is None:
            process.send_signal(signal.SIGKILL)
        await process.wait()
    process = await asyncio.create_subprocess_exec(*command, env=env, stderr=subprocess.DEVNULL)
    assert await process.wait() == 0
    check(pq.read_table(tmp_path / "out.parquet"))
    lines = read(tmp_path / "out.parquet.work.jsonl")
    assert sorted(entry["custom_id"] for entry in lines) == sorted(f"r{n}" for n in range(30))


async def test_other_peoples_storage(client, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    memory = fsspec.filesystem("memory")
    with memory.open("/box/in.parquet", "wb") as file:
        pq.write_table(table(), file)
    memory.pipe("/box/in.csv.gz", gzip.compress(b"id,text\n1,a\n2,b\n"))
    report = await run(client, "memory://box/in.parquet", "memory://box/out.parquet", **ASK)
    assert report.output == "memory://box/out.parquet"
    with memory.open("/box/out.parquet", "rb") as file:
        check(pq.read_table(file))
    await run(client, "memory://box/in.csv.gz", "memory://box/out.csv.gz", **ASK)
    assert b"1,a,1,re: Say a" in gzip.decompress(memory.cat("/box/out.csv.gz"))
    with pytest.raises(BatchInputError, match="no such file"):
        await run(client, "memory://box/none.csv", "memory://box/out.csv", **ASK)
    with pytest.raises(BatchInputError, match="cannot be read"):
        await run(client, "nosuch://user:secret@box/in.csv", "out.csv", **ASK)
    with pytest.raises(BatchInputError) as caught:
        await run(client, "nosuch://user:secret@box/in.csv?sig=hidden", "out.csv", **ASK)
    assert "secret" not in str(caught.value)
    assert "hidden" not in str(caught.value)
    left = {path.name for path in tmp_path.iterdir()}
    assert all(".work.jsonl" in name for name in left), left


async def test_a_table_on_a_web_server(emulator, parquet, tmp_path):
    """In a process of its own, as fsspec keeps a thread for its HTTP client."""

    async def file(_request):
        return web.FileResponse(parquet)

    app = web.Application()
    app.router.add_get("/in.parquet", file)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    address = f"http://127.0.0.1:{runner.addresses[0][1]}"
    env = {**os.environ, "KONKO_API_KEY": "k", "KONKO_BASE_URL": emulator.base_url}
    command = (sys.executable, "-m", "konko_async", "batch", "--prompt", "Say {text}", "-m", MODEL)
    codes = []
    for name in ("in.parquet", "none.parquet"):
        process = await asyncio.create_subprocess_exec(
            *(*command, f"{address}/{name}?sig=hidden", str(tmp_path / "out.parquet"), "--restart"),
            env=env,
            stderr=subprocess.PIPE,
        )
        _, said = await process.communicate()
        codes.append(process.returncode)
        assert b"hidden" not in said
    await runner.cleanup()
    assert codes == [0, 2], said
    assert b"no such file" in said or b"404" in said
    check(pq.read_table(tmp_path / "out.parquet"))


@pytest.mark.parametrize("bad", [3, None, object()])
async def test_what_is_no_input_is_refused(client, tmp_path, bad):
    with pytest.raises(ConfigurationError, match="must be a path, a frame"):
        await run(client, bad, tmp_path / "out.jsonl", **ASK)
