"""What must survive: kills, torn lines, full disks, failing fsyncs, damaged journals."""

import asyncio
import errno
import fcntl
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from batch_kit import MODEL, FaultyFiles, asked, ids, line, read, run, write
from hypothesis import given, settings
from hypothesis import strategies as st

from konko_async.batch import (
    BatchError,
    BatchInputError,
    BatchLockedError,
    BatchOutputError,
    Filesystem,
)
from konko_async.batch._output.journal import VERSION, Checked, Checkpoint, Header, Journal
from konko_async.batch._output.ledger import FAILED, OK, pack, unpack
from konko_async.batch._output.result_lines import invalid_line, read_line
from konko_async.batch._output.store import OutputStore
from konko_async.batch._pricing import Prices
from konko_async.testing import faults

NIGHTS = Path(__file__).parents[1] / "soak" / "nights.py"
STORM = Path(__file__).parents[1] / "soak" / "killstorm.py"


def test_nights():
    """300 seeds of a server that fails in every way; ``make nights`` runs more, and longer ones."""
    done = subprocess.run(
        [sys.executable, "-W", "error", NIGHTS, "--seeds", "300", "--rows", "20"],
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert found["seeds"] == 300
    # It did go through what it is meant to go through.
    for name in ("kills", "torn_lines", "ended_outage", "ended_out_of_credit", "ended_daily_limit"):
        assert found[name] > 0, name


@pytest.mark.parametrize(("mode", "kills"), [("rows", 6), ("steps", 1), ("shards", 1)])
def test_kill_storm(mode, kills):
    """A few kills here; `make killstorm MODE=steps` does as many as you like."""
    done = subprocess.run(
        [sys.executable, str(STORM), "--kills", str(kills), "--mode", mode],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads(done.stdout)
    assert figures["kills"] == kills
    assert figures["paid_twice"] <= figures["in_flight_at_kills"]


# -- torn lines --------------------------------------------------------------------------------------


async def prepared(client, tmp_path, rows, **options):
    """Run a batch, and return its files as they were without its last checkpoints."""
    source, output = write(tmp_path / "in.jsonl", [line(n) for n in range(rows)]), tmp_path / "out"
    await run(client, source, output, max_concurrency=1, **options)
    return source, output, output.read_bytes(), Path(f"{output}.journal").read_bytes()


async def test_a_torn_tail_at_every_byte(client, emulator, tmp_path):
    source, output, data, journal = await prepared(client, tmp_path, 4, checkpoint_rows=100)
    lines = data.splitlines(keepends=True)
    begun = b"".join(journal.splitlines(keepends=True)[:2])  # header and check; no checkpoint
    keep = len(data) - len(lines[-1]) - len(lines[-2])
    before = emulator.received
    cuts = 0
    for cut in range(keep, len(data)):
        output.write_bytes(data[:cut])
        Path(f"{output}.journal").write_bytes(begun)
        store, taken = recovered(output)
        assert output.read_bytes() == b"".join(lines[:taken]) == data[: store.end]
        assert store.ledger.done == taken == data[:cut].count(b"\n")
        store.close()
        if cut % 97 == 0 or cut in {keep, keep + 1, len(data) - 1}:  # the run itself, now and then
            output.write_bytes(data[:cut])
            report = await run(client, source, output)
            assert (report.resumed, report.left) == (taken, 0)
            assert ids(output) == [f"id-{n}" for n in range(4)]
            cuts += 4 - taken
    assert emulator.received - before == cuts


def recovered(output):
    store = OutputStore(
        str(output), Journal(f"{output}.journal", Filesystem()), Filesystem(), rows=9, seconds=9
    )
    return store, store.recover(Prices())


@pytest.mark.parametrize("tail", [b"\0" * 100, b"\0" * 50 + b"\n", b"garbage\n", b'{"id":"x"}\n{'])
async def test_what_a_power_cut_leaves_behind_the_last_checkpoint(client, tmp_path, tail):
    source, output, data, _ = await prepared(client, tmp_path, 3)
    output.write_bytes(data + tail)
    report = await run(client, source, output)
    assert (report.finished, report.done) == (0, 3)
    assert output.read_bytes() == data


async def test_a_journal_cut_at_every_byte(client, emulator, tmp_path):
    source, output, data, journal = await prepared(client, tmp_path, 5, checkpoint_rows=1)
    first = journal.index(b"\n") + 1
    for cut in range(len(journal)):
        Path(f"{output}.journal").write_bytes(journal[:cut])
        if cut >= first:
            store, _ = recovered(output)
            assert (store.ledger.done, store.end) == (5, len(data))
            store.close()
        elif cut % 9 == 0:  # no header: the rows are there, but nobody knows of which input
            with pytest.raises(BatchOutputError, match="no journal"):
                await run(client, source, output)
    Path(f"{output}.journal").write_bytes(journal[: len(journal) - 5])
    assert (await run(client, source, output)).done == 5
    assert set(asked(emulator).values()) == {1}


def test_a_journal_with_any_bit_flipped(tmp_path):
    path = tmp_path / "out.journal"
    journal = Journal(str(path), Filesystem())
    journal.begin(Header(VERSION, "in", "f"))
    journal.check(Checked(5))
    journal.append(Checkpoint(10, ok=pack([0, 1])))
    journal.append(Checkpoint(20, ok=pack([2])))
    journal.close()
    data = path.read_bytes()
    for place in range(data.index(b"\n") + 1, len(data)):
        path.write_bytes(data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :])
        found = Journal(str(path), Filesystem())
        assert found.ledger.end in {0, 10}  # what is damaged and what follows is not believed
        assert found.ledger.done in {0, 2}
        found.close()


def test_a_journal_of_a_later_version(tmp_path):
    journal = Journal(str(tmp_path / "j"), Filesystem())
    journal.begin(Header(VERSION + 1, "in", "f"))
    journal.close()
    with pytest.raises(BatchOutputError, match="another version"):
        Journal(str(tmp_path / "j"), Filesystem())


@settings(deadline=None)
@given(st.data())
def test_any_history_with_crashes_is_remembered(tmp_path_factory, data):
    """Rows are added, checkpoints made, and crashes tear the ends of both files off."""
    output = tmp_path_factory.mktemp("h") / "out"
    journal = Journal(f"{output}.journal", Filesystem())
    journal.begin(Header(VERSION, "in", "f"))
    store = OutputStore(str(output), journal, Filesystem(), rows=10, seconds=9)
    lines, saved = {}, (0, 0)
    for _ in range(data.draw(st.integers(1, 25))):
        step = data.draw(st.sampled_from(["add", "add", "add", "save", "crash"]))
        if step == "add":
            row = data.draw(st.sampled_from([n for n in range(60) if n not in lines]))
            lines[row] = invalid_line(row, row, None, "x" * data.draw(st.integers(0, 30)))
            store.add(row, lines[row], failed=True)
        elif step == "save":
            store.save()
            saved = (output.stat().st_size, len(lines))
        else:
            store.close()
            written = output.read_bytes()
            # What was saved stays; of the rest the power may take any part.
            size = data.draw(st.integers(saved[0], len(written)))
            output.write_bytes(written[:size])
            left = [read_line(found).index for found in written[:size].splitlines(keepends=True)
                    if found.endswith(b"\n")]  # fmt: skip
            lines = {row: lines[row] for row in left}
            store, _ = recovered(output)
            store.save()
            saved = (output.stat().st_size, len(lines))
        assert store.ledger.done == len(lines)
        assert all(store.ledger.state(row) == FAILED for row in lines)
    store.close()
    assert output.read_bytes() == b"".join(lines.values())


@given(st.lists(st.integers(0, 2**32 - 1)))
def test_packed_rows(rows):
    assert list(unpack(pack(rows))) == rows


def test_the_same_row_twice_is_noticed(tmp_path):
    output = tmp_path / "out"
    text = invalid_line(3, 4, "x", "y")
    output.write_bytes(text + text)
    journal = Journal(f"{output}.journal", Filesystem())
    journal.begin(Header(VERSION, "in", "f"))
    journal.close()
    store = OutputStore(
        str(output), Journal(f"{output}.journal", Filesystem()), Filesystem(), rows=9, seconds=9
    )
    with pytest.raises(BatchOutputError, match="twice"):
        store.recover(Prices())
    store.close()
    assert OK != FAILED


# -- disks that fail -----------------------------------------------------------------------------------


@pytest.mark.parametrize("short", [None, 30])
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
async def test_a_write_that_fails_ends_the_run(client, emulator, tmp_path, short, error):
    source, output = write(tmp_path / "in.jsonl", [line(n) for n in range(300)]), tmp_path / "out"
    files = FaultyFiles(write_at=20, short=short, error=error, only="out")
    with pytest.raises(BatchOutputError) as caught:
        await run(client, source, output, max_concurrency=8, files=files)
    assert os.strerror(error) in str(caught.value)
    assert caught.value.report.done == 20
    assert files.after_failure == []  # nothing was written after it, and no fsync tried
    assert emulator.received < 60
    data = output.read_bytes()
    assert data.count(b"\n") == 20
    assert len(data.splitlines()) == (21 if short else 20)
    report = await run(client, source, output)
    assert (report.resumed, report.left) == (20, 0)
    assert ids(output) == [f"id-{n}" for n in range(300)]


async def test_a_write_cut_short_goes_on(client, tmp_path):
    class Short(Filesystem):
        def write(self, descriptor, data):
            return super().write(descriptor, bytes(data[:40]))

    source, output = write(tmp_path / "in.jsonl", [line(n) for n in range(5)]), tmp_path / "out"
    await run(client, source, output, files=Short())
    assert ids(output) == [f"id-{n}" for n in range(5)]


@pytest.mark.parametrize("only", ["out", "out.journal"])
async def test_a_failed_fsync_ends_the_run_and_is_never_retried(client, emulator, tmp_path, only):
    source, output = write(tmp_path / "in.jsonl", [line(n) for n in range(300)]), tmp_path / "out"
    files = FaultyFiles(fsync_at=4, error=errno.EIO, only=only)
    with pytest.raises(BatchOutputError) as caught:
        await run(client, source, output, max_concurrency=4, files=files, checkpoint_rows=5)
    assert emulator.received < 250  # five checkpoints, each of at most 8 times 5 rows
    assert caught.value.report is not None
    assert [name for what, name in files.after_failure if what == "fsync"] == []
    assert [name for _, name in files.after_failure if name.endswith("journal")] == []
    report = await run(client, source, output)
    assert report.left == 0
    assert ids(output) == [f"id-{n}" for n in range(300)]


@pytest.mark.parametrize("at", range(3))
async def test_a_journal_that_cannot_be_begun(client, emulator, tmp_path, at):
    source, output = write(tmp_path / "in.jsonl", [line(n) for n in range(3)]), tmp_path / "out"
    with pytest.raises(BatchOutputError, match="cannot be written"):
        await run(client, source, output, files=FaultyFiles(write_at=at, only="out.journal"))
    assert emulator.received == (0 if at < 2 else 3)
    assert (await run(client, source, output)).left == 0


async def test_a_full_disk(client, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = shutil.which("mount")
    if mount is None or subprocess.run(
        [mount, "-t", "tmpfs", "-o", "size=64k", "none", str(disk)], check=False, capture_output=True
    ).returncode:  # fmt: skip
        pytest.skip("mounting a tmpfs is not permitted here")
    try:
        source = write(tmp_path / "in.jsonl", [line(n) for n in range(400)])
        with pytest.raises(BatchOutputError, match="No space left"):
            await run(client, source, disk / "out")
        done = (disk / "out").read_bytes().count(b"\n")
        assert done > 20
        subprocess.run([mount, "-o", "remount,size=8m", str(disk)], check=True)
        report = await run(client, source, disk / "out")
        assert (report.resumed, report.left) == (done, 0)
        assert ids(disk / "out") == [f"id-{n}" for n in range(400)]
    finally:
        subprocess.run(["umount", str(disk)], check=True)


# -- rewriting -----------------------------------------------------------------------------------------


class Killed(BaseException):
    """Stands for the death of the process."""


class Dying(Filesystem):
    """Dies at a step: nothing happens after it."""

    def __init__(self, at):
        self.left = at

    def _step(self):
        self.left -= 1
        if self.left < 0:
            raise Killed

    def write(self, descriptor, data):
        self._step()
        return super().write(descriptor, data)

    def fsync(self, descriptor):
        self._step()
        super().fsync(descriptor)

    def truncate(self, descriptor, size):
        self._step()
        super().truncate(descriptor, size)

    def replace(self, source, target):
        self._step()
        super().replace(source, target)


@pytest.mark.parametrize("how", [{"retry_failed": True}, {"on_changed_input": "redo"}])
async def test_death_at_every_step_of_rewriting_the_output(client, emulator, tmp_path, how):
    source, output = write(tmp_path / "in.jsonl", [line(n) for n in range(5)]), tmp_path / "out"
    emulator.always(faults.Status(400), when=lambda record: "row 1" in str(record.body))
    await run(client, source, output)
    emulator.clear()
    if "on_changed_input" in how:
        write(source, [line(n) for n in (1, 0, 3, 2, 4, 7)])
    files = {path: path.read_bytes() for path in (output, Path(f"{output}.journal"))}
    lived = False
    for at in range(100):
        for path, data in files.items():
            path.write_bytes(data)
        emulator._log.clear()
        try:
            await run(client, source, output, files=Dying(at), max_concurrency=1, **how)
            lived = True
        except Killed:
            report = await run(client, source, output, **how)
            assert report.left == 0
        else:
            break
        assert all(count <= 2 for count in asked(emulator).values())
        found = sorted(row["custom_id"] for row in read(output))
        expected = [0, 1, 2, 3, 4, 7] if "on_changed_input" in how else range(5)
        assert found == [f"id-{n}" for n in expected]
        assert not Path(f"{output}.new").exists()
    assert lived
    assert at >= 10


async def test_death_at_every_step_of_a_run(client, emulator, tmp_path):
    rows = [line(0), b"{", line(1), line(1), line(2)]
    source = write(tmp_path / "in.jsonl", rows)
    options = {"skip_invalid": True, "max_concurrency": 1, "checkpoint_rows": 1}
    for at in range(100):
        folder = tmp_path / str(at)
        folder.mkdir()
        emulator._log.clear()
        try:
            await run(client, source, folder / "out", files=Dying(at), **options)
        except Killed:
            await run(client, source, folder / "out", **options)
        else:
            break
        assert max(asked(emulator).values()) <= 2
        assert sum(asked(emulator).values()) <= 4  # one was in flight
        assert sorted(row["id"].rpartition("_")[2] for row in read(folder / "out")) == list("01234")
    assert at > 10


async def test_a_folder_that_loses_a_file_during_the_run(client, emulator, tmp_path):
    folder = tmp_path / "texts"
    folder.mkdir()
    for number in range(30):
        (folder / f"{number:02}.txt").write_text(str(number))
    emulator.latency = 0.005
    task = asyncio.ensure_future(
        run(client, folder, tmp_path / "out", prompt="{text}", model=MODEL, max_concurrency=2)
    )
    await emulator.wait_until(lambda: emulator.received == 5)
    (folder / "29.txt").unlink()
    with pytest.raises(BatchInputError, match=r"changed during the run \(No such file") as caught:
        await task
    assert caught.value.report.done == 29


async def test_an_output_that_cannot_be_rewritten(client, emulator, tmp_path):
    source, output = write(tmp_path / "in.jsonl", [line(n) for n in range(3)]), tmp_path / "out"
    emulator.script(faults.Status(400))
    await run(client, source, output)
    before = output.read_bytes()
    for files in (FaultyFiles(write_at=0, only=".new"), FaultyFiles(fsync_at=0, only=".new")):
        with pytest.raises(BatchOutputError, match=r"\.new cannot be written"):
            await run(client, source, output, retry_failed=True, files=files)
        assert output.read_bytes() == before
    assert (await run(client, source, output, retry_failed=True)).failed == 0


async def test_the_canary_key_is_in_no_file(emulator, tmp_path):
    from konko_async import AsyncKonko

    emulator.always(faults.Status(400), when=lambda record: record.index % 3 == 1)
    emulator.always(faults.Cut(), when=lambda record: record.index % 3 == 2)
    source = write(tmp_path / "in.jsonl", [line(n) for n in range(12)])
    async with AsyncKonko(
        base_url=emulator.base_url, api_key="sk-canary-1234", retry=None
    ) as client:
        await run(client, source, tmp_path / "out")
    for path in tmp_path.iterdir():
        assert b"canary" not in path.read_bytes()


async def test_errors_can_be_pickled(client, tmp_path):
    import pickle

    with pytest.raises(BatchError) as caught:
        await run(client, write(tmp_path / "in.jsonl", [b"{"]), tmp_path / "out")
    copy = pickle.loads(pickle.dumps(caught.value))  # noqa: S301 - our own
    assert (copy.problems, copy.count, str(copy)) == (
        caught.value.problems, 1, str(caught.value)
    )  # fmt: skip


async def test_checkpoints_by_time(client, emulator, tmp_path):
    emulator.latency = 0.01
    source, output = write(tmp_path / "in.jsonl", [line(n) for n in range(40)]), tmp_path / "out"
    task = asyncio.ensure_future(
        run(client, source, output, max_concurrency=2, checkpoint_seconds=0.02)
    )
    await task
    journal = Path(f"{output}.journal").read_bytes()
    assert journal.count(b'"end":') > 3


async def test_many_503s_fail_no_row(client, emulator, tmp_path):
    """There are more of them than the budget of retries pays for; a batch has time."""
    busy = faults.Status(503)
    emulator.always(busy, when=lambda record: record.index % 3 == 1 and record.index < 120)
    source = write(tmp_path / "in.jsonl", [line(number) for number in range(200)])
    report = await run(client, source, tmp_path / "out.jsonl")
    assert (report.done, report.failed, report.retried) == (200, 0, 40)
    assert emulator.received == 240


async def test_a_used_up_credit_is_not_waited_for(client, emulator, tmp_path):
    emulator.always(faults.Status(429, code="insufficient_quota"))
    source = write(tmp_path / "in.jsonl", [line(1)])
    with pytest.raises(BatchError, match="all rows would fail"):
        await run(client, source, tmp_path / "out.jsonl")
    assert emulator.received == 1


def test_a_file_system_without_locks(tmp_path, monkeypatch):
    """A file that names its owner stands for the lock, and that of a dead process does not."""

    def refuse(_descriptor, _operation):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", refuse)
    path = str(tmp_path / "out.journal")
    first = Journal(path, Filesystem())
    with pytest.raises(BatchLockedError, match=rf"by process .* {os.getpid()}: this file system"):
        Journal(path, Filesystem())
    first.close()
    assert not Path(f"{path}.lock").exists()
    child = subprocess.Popen(["true"])
    child.wait()
    Path(f"{path}.lock").write_text(f"{socket.gethostname()} {child.pid}")
    Journal(path, Filesystem()).close()
    Path(f"{path}.lock").write_text(f"another-host {child.pid}")
    with pytest.raises(BatchLockedError, match="another-host"):
        Journal(path, Filesystem())
