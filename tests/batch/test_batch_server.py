"""Batches that the server runs: cut, submitted, looked at, merged, and taken up again."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest
from batch_kit import MODEL, content, ids, line, read, run, write

from konko_async import AsyncKonko, ConfigurationError
from konko_async.batch import (
    BatchChangedError,
    BatchStoppedError,
    Price,
    ServerSide,
    Stop,
)
from konko_async.testing import BatchSettings, faults

STORM = Path(__file__).parents[1] / "soak" / "serverstorm.py"
FAST = {"first_poll": 0.01, "longest_poll": 0.05}


def fast(**options):
    return ServerSide(**{**FAST, **options})


def rows_of(folder, count):
    return write(folder / "in.jsonl", [line(n) for n in range(count)])


def submitted(emulator):
    """The batches that were made."""
    return [r for r in emulator.requests if (r.method, r.path) == ("POST", "/v1/batches")]


def live(emulator):
    return [r for r in emulator.requests if r.path == "/v1/chat/completions"]


async def test_rows_are_cut_into_files_and_merged(client, emulator, tmp_path):
    emulator.batches.reverse = True
    source, output = rows_of(tmp_path, 25), tmp_path / "out"
    report = await run(client, source, output, server_side=fast(rows_per_file=10))
    assert (report.done, report.failed, report.left, report.stopped) == (25, 0, 0, None)
    assert ids(output) == [f"id-{n}" for n in range(25)]
    assert all(content(row) == f"re: row {row['custom_id'][3:]}" for row in read(output))
    assert len(submitted(emulator)) == 3
    assert not live(emulator)
    again = await run(client, source, output, server_side=fast())
    assert (again.finished, again.done) == (0, 25)
    # Neither files of parts nor of results are left, and a run without the server fits.
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "in.jsonl", "out", "out.jobs", "out.journal",
    ]  # fmt: skip
    assert (await run(client, source, output)).finished == 0


async def test_files_are_cut_by_bytes_endpoint_and_model(client, emulator, tmp_path):
    other = line(2)
    other["body"]["model"] = "phind/phind-codellama-34b-v2"
    vectors = {"model": "thenlper/gte-base", "input": "x"}
    rows = [
        line(0, text="x" * 400),
        line(1, text="y" * 400),
        other,
        {"custom_id": "id-3", "url": "/v1/embeddings", "body": vectors},
        line(4, text="z" * 2000),
        line(5, body={**line(5)["body"], "stream": True}),
    ]
    source, output = write(tmp_path / "in.jsonl", rows), tmp_path / "out"
    settings = fast(bytes_per_file=1000)
    report = await run(client, source, output, server_side=settings)
    assert (report.done, report.failed) == (6, 1)
    [bad] = [row for row in read(output) if row["error"]]
    assert (bad["custom_id"], bad["error"]["code"]) == ("id-4", "row_too_large")
    urls = sorted(record.body["endpoint"] for record in submitted(emulator))
    assert urls == ["/v1/chat/completions"] * 3 + ["/v1/embeddings"]


async def test_failed_rows_are_written_or_submitted_again(client, emulator, tmp_path):
    seen = {}

    def outcome(row):
        name = row["body"]["messages"][0]["content"]
        seen[name] = seen.get(name, 0) + 1
        if name == "row 1":
            return 400
        if name == "row 2":
            return "expired" if seen[name] < 3 else None
        if name == "row 3":
            return 500
        return "lost" if name == "row 4" and seen[name] == 1 else None

    emulator.batches.outcome = outcome
    source, output = rows_of(tmp_path, 6), tmp_path / "out"
    report = await run(client, source, output, server_side=fast())
    assert (report.done, report.failed, report.left) == (6, 2, 0)
    found = {row["custom_id"]: row for row in read(output)}
    assert found["id-1"]["response"]["status_code"] == 400
    assert found["id-3"]["response"]["status_code"] == 500
    assert [seen[f"row {n}"] for n in range(6)] == [1, 1, 3, 3, 2, 1]


async def test_rows_that_are_not_answered_are_run_live(client, emulator, tmp_path):
    emulator.batches.outcome = lambda row: (
        "expired" if row["body"]["messages"][0]["content"] in {"row 1", "row 2"} else None
    )
    source, output = rows_of(tmp_path, 5), tmp_path / "out"
    report = await run(client, source, output, server_side=fast(then_live=True))
    assert (report.done, report.failed, report.left) == (5, 0, 0)
    assert len(submitted(emulator)) == 1
    assert len(live(emulator)) == 2
    assert ids(output) == [f"id-{n}" for n in range(5)]


async def test_a_round_that_brings_nothing_ends_the_run_resumable(client, emulator, tmp_path):
    emulator.batches.outcome = lambda _row: "expired"
    source, output = rows_of(tmp_path, 3), tmp_path / "out"
    with pytest.raises(BatchStoppedError, match="not one of them was answered") as caught:
        await run(client, source, output, server_side=fast())
    assert (caught.value.reason, caught.value.report.left) == ("outage", 3)
    emulator.batches.outcome = None
    assert (await run(client, source, output, server_side=fast())).done == 3


async def test_stopping_leaves_the_jobs_and_the_next_run_finds_them(client, emulator, tmp_path):
    emulator.batches = BatchSettings(rows_per_second=0.001)
    source, output, stop, told = rows_of(tmp_path, 12), tmp_path / "out", Stop(), []
    settings = fast(rows_per_file=5)

    def watch(progress):
        if len(submitted(emulator)) == 3 and progress.in_flight == 12:
            stop.request()

    report = await run(
        client, source, output, server_side=settings, stop=stop, on_progress=watch,
        progress_interval=0.01, on_notice=told.append,
    )  # fmt: skip
    assert (report.stopped, report.left, report.exit_code) == ("stopped", 12, 130)
    assert "3 jobs with 12 rows go on at the server" in told[-1]
    emulator.batches.rows_per_second = None
    report = await run(client, source, output, server_side=settings, max_tokens_total=10**6)
    assert (report.done, report.left, len(submitted(emulator))) == (12, 0, 3)


async def test_jobs_are_cancelled_and_what_they_have_is_taken(client, emulator, tmp_path):
    emulator.batches = BatchSettings(rows_per_second=0.001)
    source, output, stop = rows_of(tmp_path, 4), tmp_path / "out", Stop()

    def watch(progress):
        if progress.in_flight == 4 and submitted(emulator):
            stop.request()

    await run(
        client, source, output, server_side=fast(), stop=stop, on_progress=watch,
        progress_interval=0.01,
    )  # fmt: skip
    report = await run(client, source, output, server_side=fast(cancel=True))
    assert (report.stopped, report.left, report.exit_code) == ("jobs_cancelled", 4, 0)
    emulator.batches.rows_per_second = None
    assert (await run(client, source, output)).done == 4
    assert len(live(emulator)) == 4


async def test_jobs_of_another_input_are_not_mixed_up(client, emulator, tmp_path):
    emulator.batches = BatchSettings(rows_per_second=0.001)
    source, output, stop = rows_of(tmp_path, 4), tmp_path / "out", Stop()
    options = {"on_progress": lambda p: p.in_flight and stop.request(), "progress_interval": 0.01}
    await run(client, source, output, server_side=fast(), stop=stop, **options)
    write(source, [line(n, text=f"other {n}") for n in range(3)])
    with pytest.raises(BatchChangedError, match="made of another input"):
        await run(client, source, output, server_side=fast())
    await run(client, source, output, server_side=fast(cancel=True))
    emulator.batches.rows_per_second = None
    report = await run(client, source, output, server_side=fast())
    assert report.done == 3
    assert {content(row) for row in read(output)} == {f"re: other {n}" for n in range(3)}


async def test_a_batch_whose_answer_was_lost_is_found_by_its_file(client, emulator, tmp_path):
    emulator.script(faults.Cut(0), path="/batches")
    emulator.script(faults.Status(500), path="/files")
    source, output = rows_of(tmp_path, 3), tmp_path / "out"
    report = await run(client, source, output, server_side=fast())
    assert report.done == 3
    listed = [batch async for batch in client.batches.list()]
    assert len(listed) == 1


async def test_a_file_that_is_refused(client, emulator, tmp_path):
    source, output = rows_of(tmp_path, 6), tmp_path / "out"
    emulator.batches.max_rows = 4
    with pytest.raises(BatchStoppedError, match="6 requests; 4 are allowed") as caught:
        await run(client, source, output, server_side=fast())
    assert (caught.value.reason, caught.value.report.left) == ("refused", 6)
    report = await run(client, source, output, server_side=fast(rows_per_file=4))
    assert report.done == 6


async def test_the_server_takes_a_few_rows_at_a_time(client, emulator, tmp_path):
    emulator.batches = BatchSettings(max_queued=4)
    source, output = rows_of(tmp_path, 9), tmp_path / "out"
    report = await run(client, source, output, server_side=fast(rows_per_file=3, max_jobs=1))
    assert (report.done, len(submitted(emulator))) == (9, 3)


@pytest.mark.parametrize("path", ["/files", "/batches"])
async def test_a_server_without_batches(client, emulator, tmp_path, path):
    emulator.always(faults.Status(404), path=path)
    source, output = rows_of(tmp_path, 2), tmp_path / "out"
    with pytest.raises(BatchStoppedError, match="without server_side="):
        await run(client, source, output, server_side=fast())
    emulator.clear()
    assert (await run(client, source, output)).done == 2


async def test_costs_are_those_of_jobs(client, emulator, tmp_path):
    prices = {MODEL: Price(1.0, 1.0)}
    source = rows_of(tmp_path, 4)
    full = await run(client, source, tmp_path / "a", prices=prices)
    half = await run(client, source, tmp_path / "b", prices=prices, server_side=fast())
    assert half.cost == pytest.approx(full.cost / 2)
    some = await run(
        client, source, tmp_path / "c", prices=prices, server_side=fast(), max_cost=14.0
    )
    assert (some.stopped, some.left > 0, some.done > 0) == ("max_cost", True, True)
    assert emulator.received


async def test_what_goes_wrong_for_all_rows_ends_the_run(emulator, tmp_path):
    emulator.batches.outcome = lambda _row: 401
    source, output = rows_of(tmp_path, 3), tmp_path / "out"
    async with AsyncKonko(base_url=emulator.base_url, api_key="any") as client:
        with pytest.raises(BatchStoppedError) as caught:
            await run(client, source, output, server_side=fast())
        assert (caught.value.reason, read(output)) == ("authentication", [])
        emulator.batches.outcome = lambda _row: 400
        with_most = {"max_failures": 1, "server_side": fast(delete_files=True)}
        report = await run(client, source, output, **with_most)
        assert (report.stopped, report.failed) == ("max_failures", 3)
        assert not [file async for file in client.files.list() if file.purpose == "batch_output"][
            2:
        ]


async def test_options_are_checked(client, tmp_path):
    source = rows_of(tmp_path, 1)
    with pytest.raises(ConfigurationError, match="needs a file"):
        await run(client, source, "-", server_side=True)
    with pytest.raises(ConfigurationError, match="server_side must be"):
        await run(client, source, tmp_path / "out", server_side="yes")
    for bad in ({"rows_per_file": 0}, {"max_jobs": 0}, {"first_poll": 0}, {"price_factor": -1}):
        with pytest.raises(ConfigurationError, match="ServerSide"):
            ServerSide(**bad)
    foreign = tmp_path / "other.jobs"
    foreign.write_bytes(b"somebody's\n")
    with pytest.raises(Exception, match="holds no jobs"):
        await run(client, source, tmp_path / "other", server_side=fast())
    assert foreign.read_bytes() == b"somebody's\n"


async def test_a_jobs_file_cut_at_any_byte(client, emulator, tmp_path):
    """Whatever a crash leaves of it, each row is in the output once, and no job is lost."""
    source, output = rows_of(tmp_path, 3), tmp_path / "out"
    await run(client, source, output, server_side=fast())
    jobs = Path(f"{output}.jobs")
    data = jobs.read_bytes()
    for cut in range(0, len(data), 29):
        Path(f"{output}.journal").unlink()
        output.unlink()
        jobs.write_bytes(data[:cut])
        report = await run(client, source, output, server_side=fast())
        assert (report.done, ids(output)) == (3, ["id-0", "id-1", "id-2"])
    assert json.loads(data.splitlines()[0][9:])["jobs"] == 1
    assert len(submitted(emulator)) < 2 + len(range(0, len(data), 29))
    await asyncio.sleep(0)


def test_a_storm_of_kills():
    """A small one; `make server-batch-storm` does 200,000 rows and 20 kills."""
    arguments = ("--rows", "400", "--rows-per-file", "100", "--kills", "3", "--pace", "1")
    done = subprocess.run(
        [sys.executable, str(STORM), *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert (found["lost"], found["twice"], found["paid_twice"], found["jobs"]) == (0, 0, 0, 4)
