"""Shards, merging them, runs that end on another machine, and on_row."""

import asyncio
import shutil
from pathlib import Path

import pytest
from batch_kit import MODEL, asked, ids, line, read, run, write

from konko_async import ConfigurationError
from konko_async.batch import (
    BatchChangedError,
    BatchError,
    BatchOutputError,
    Price,
    merge_outputs,
)
from konko_async.testing import faults


def rows_of(folder, count):
    return write(folder / "in.jsonl", [line(n) for n in range(count)])


async def test_shards_are_merged(client, emulator, tmp_path):
    rows = [line(n) for n in range(11)]
    rows[7] = {"custom_id": "id-7"}  # invalid: written by its own shard only
    source = write(tmp_path / "in.jsonl", rows)
    outputs, prices = [tmp_path / f"out-{n}" for n in (1, 2, 3)], {MODEL: Price(1.0, 1.0)}
    reports = [
        await run(client, source, output, shard=f"{n}/3", skip_invalid=True, prices=prices)
        for n, output in enumerate(outputs, 1)
    ]
    assert [(r.rows, r.done, r.left, r.invalid) for r in reports] == [
        (4, 4, 0, 0), (4, 4, 0, 1), (3, 3, 0, 0),
    ]  # fmt: skip
    target = tmp_path / "all"
    merged = await asyncio.to_thread(merge_outputs, outputs, target)
    assert (merged.rows, merged.done, merged.failed, merged.missing, merged.repeated) == (
        11, 11, 1, 0, 0,
    )  # fmt: skip
    assert ids(target) == [f"id-{n}" for n in range(11)]
    assert set(asked(emulator).values()) == {1}
    report = await run(client, source, target, skip_invalid=True, prices=prices)
    assert (report.finished, report.left, report.invalid) == (0, 0, 1)
    assert report.cost == pytest.approx(sum(r.cost for r in reports))


async def test_a_shard_is_missing_or_there_twice(client, emulator, tmp_path):
    source = rows_of(tmp_path, 9)
    emulator.script(faults.Status(400), when=lambda r: r.body and "row 2" in str(r.body))
    one, two, again = tmp_path / "1", tmp_path / "2", tmp_path / "again"
    await run(client, source, one, shard=(1, 3))
    await run(client, source, two, shard=(3, 3))
    await run(client, source, again, shard=(3, 3))
    target = tmp_path / "all"
    merged = await asyncio.to_thread(merge_outputs, [one, two, again], target)
    assert (merged.done, merged.failed, merged.missing, merged.repeated) == (6, 0, 3, 3)
    # Begun in shards, ended without them.
    report = await run(client, source, target)
    assert (report.finished, report.done, report.left) == (3, 9, 0)
    assert ids(target) == [f"id-{n}" for n in range(9)]


async def test_what_cannot_be_merged(client, tmp_path):
    source = rows_of(tmp_path, 4)
    one, other = tmp_path / "1", tmp_path / "2"
    await run(client, source, one, shard="1/2")
    await run(client, source, other, shard="2/2", params={"max_tokens": 4, "seed": 1})
    merge = asyncio.to_thread
    with pytest.raises(BatchChangedError, match="another input"):
        await merge(merge_outputs, [one, other], tmp_path / "all")
    with pytest.raises(BatchOutputError, match="is the output"):
        await merge(merge_outputs, [one], one)
    with pytest.raises(BatchOutputError, match="no file"):
        await merge(merge_outputs, [tmp_path / "none"], tmp_path / "all")
    (tmp_path / "all").write_text("something\n")
    with pytest.raises(BatchOutputError, match="exists"):
        await merge(merge_outputs, [one], tmp_path / "all")
    Path(f"{one}.journal").unlink()
    with pytest.raises(BatchOutputError, match="no journal"):
        await merge(merge_outputs, [one], tmp_path / "new")
    for bad in ("0/3", "4/3", "3", (1, 2, 3), 5):
        with pytest.raises(ConfigurationError, match="shard must be"):
            await run(client, source, tmp_path / "x", shard=bad)


async def test_begun_here_and_ended_elsewhere(client, emulator, tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    source = rows_of(here, 10)
    await run(client, source, here / "out", shard="1/2", limit=2)
    for path in here.iterdir():  # with new times, and under other names
        shutil.copyfile(path, there / path.name.replace("in.jsonl", "rows.jsonl"))
    shutil.rmtree(here)
    report = await run(client, there / "rows.jsonl", there / "out", shard="1/2")
    assert (report.resumed, report.finished, report.left) == (2, 3, 0)
    report = await run(client, there / "rows.jsonl", there / "out")
    assert (report.rows, report.done, report.left) == (10, 10, 0)
    assert set(asked(emulator).values()) == {1}


async def test_each_row_is_handed_over_once(client, emulator, tmp_path):
    source, output, seen = rows_of(tmp_path, 8), tmp_path / "out", []
    emulator.script(faults.Status(400), when=lambda r: r.body and "row 3" in str(r.body))
    busy = 0

    async def on_row(result):
        nonlocal busy
        busy += 1
        assert busy == 1  # one at a time
        await asyncio.sleep(0)
        assert len(read(output)) > len(seen)  # it is in the output before
        seen.append(result)
        busy -= 1

    await run(client, source, output, on_row=on_row)
    assert sorted(result.custom_id for result in seen) == [f"id-{n}" for n in range(8)]
    [bad] = [result for result in seen if result.error]
    assert (bad.custom_id, bad.index) == ("id-3", 3)
    good = next(result for result in seen if result.index == 5)
    assert good.response["choices"][0]["message"]["content"] == "re: row 5"
    assert good.request["messages"][0]["content"] == "row 5"
    before = len(seen)
    await run(client, source, output, on_row=on_row)
    assert len(seen) == before


async def test_on_row_that_fails_ends_the_run_resumable(client, tmp_path):
    source, output, seen = rows_of(tmp_path, 6), tmp_path / "out", []

    def on_row(result):
        seen.append(result.index)
        if len(seen) == 3:
            raise RuntimeError("the database is away")

    with pytest.raises(BatchError, match="the database is away") as caught:
        await run(client, source, output, on_row=on_row, max_concurrency=1)
    assert caught.value.report.done == 3
    report = await run(client, source, output, on_row=on_row)
    assert (report.done, sorted(seen)) == (6, list(range(6)))
