"""Standard input and output: from pipe to pipe, and each with a file."""

import asyncio
import contextlib
import json
import os
import threading
from pathlib import Path

import pytest
from batch_kit import MODEL, asked, ids, line, read, run, write

from konko_async import ConfigurationError
from konko_async.batch import BatchChangedError, BatchInputError, BatchOutputError, Filesystem, Stop
from konko_async.testing import faults


class Ends(Filesystem):
    """Stands for standard input and output."""

    def __init__(self, read_from=None, write_to=None):
        self._in, self._out = read_from, write_to

    def stdin(self):
        return self._in

    def stdout(self):
        return self._out


def encoded(rows):
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


@pytest.fixture
def piped():
    """A function that returns the reading end of a pipe into which a thread writes data."""
    threads, ends = [], []

    def make(data):
        reader, writer = os.pipe()

        def feed():
            with contextlib.suppress(BrokenPipeError), os.fdopen(writer, "wb") as file:
                file.write(data)

        thread = threading.Thread(target=feed)
        thread.start()
        threads.append(thread)
        ends.append(reader)
        return reader

    yield make
    for end in ends:
        os.close(end)
    for thread in threads:
        thread.join(60)


@pytest.fixture
def drained():
    """A writing end of a pipe, and a function that returns what was written into it."""
    reader, writer = os.pipe()
    parts = []

    def drain():
        with os.fdopen(reader, "rb") as file:
            parts.extend(iter(lambda: file.read(1000), b""))

    thread = threading.Thread(target=drain)
    thread.start()

    def finish():
        os.close(writer)
        thread.join(60)
        return [json.loads(text) for text in b"".join(parts).splitlines()]

    return writer, finish


async def test_from_pipe_to_pipe(client, piped, drained):
    writer, finish = drained
    source = piped(encoded(line(n) for n in range(500)))
    report = await run(client, "-", "-", files=Ends(source, writer), max_concurrency=32)
    rows = finish()
    assert len(rows) == len({row["custom_id"] for row in rows}) == 500
    assert (report.rows, report.done, report.left, report.failed) == (500, 500, 0, 0)


async def test_rows_are_sent_before_the_input_ends(client, emulator, drained):
    writer, finish = drained
    reader, feed = os.pipe()
    os.write(feed, encoded([line(0)]))
    task = asyncio.ensure_future(run(client, "-", "-", files=Ends(reader, writer)))
    await emulator.wait_until(lambda: emulator.received == 1)
    os.write(feed, encoded([line(1)]))
    await emulator.wait_until(lambda: emulator.received == 2)
    os.close(feed)
    assert (await task).done == 2
    os.close(reader)
    assert len(finish()) == 2


@pytest.mark.parametrize("skip", [False, True])
async def test_bad_rows_of_a_pipe(client, emulator, piped, drained, skip):
    writer, finish = drained
    data = encoded([line(0)]) + b"{\n" + encoded([line(0), line(2)])
    files = Ends(piped(data), writer)
    if skip:
        report = await run(client, "-", "-", files=files, skip_invalid=True)
        assert (report.invalid, report.done) == (2, 4)
        errors = [row["error"] for row in finish() if row["error"]]
        assert "line 2" in errors[0]["message"]
        assert "'id-0' is that of line 1" in errors[1]["message"]
    else:
        with pytest.raises(BatchInputError, match="line 2") as caught:
            await run(client, "-", "-", files=files)
        assert caught.value.report.done == 1
        assert len(finish()) == 1


async def test_a_table_and_a_limit(client, emulator, piped, drained):
    writer, finish = drained
    table = "text,id\r\n" + "".join(f'"a\n{n}",{n}\r\n' for n in range(50))
    report = await run(
        client, "-", "-", files=Ends(piped(table.encode()), writer), format="csv",
        prompt="{text}", model=MODEL, limit=7,
    )  # fmt: skip
    assert (report.done, report.stopped, report.rows) == (7, "limit", None)
    assert {row["custom_id"] for row in finish()} == {str(n) for n in range(7)}


@pytest.mark.parametrize(("data", "message"), [(b"", "no rows"), (b"what\n", "format=")])
async def test_a_pipe_that_cannot_be_read(client, piped, drained, data, message):
    writer, finish = drained
    with pytest.raises(BatchInputError, match=message):
        await run(client, "-", "-", files=Ends(piped(data), writer))
    for form in ("texts", "openai"):
        with pytest.raises(BatchInputError):
            await run(client, "-", "-", files=Ends(piped(b""), writer), format=form)
    assert finish() == []


async def test_a_file_to_a_pipe(client, tmp_path, drained):
    writer, finish = drained
    source = write(tmp_path / "in.jsonl", [line(0), b"{", line(2)])
    files = Ends(None, writer)
    with pytest.raises(BatchInputError):
        await run(client, source, "-", files=files)
    report = await run(client, source, "-", files=files, skip_invalid=True, shuffle=True)
    assert (report.done, report.failed, report.rows) == (3, 1, 3)
    assert len(finish()) == 3


async def test_rows_in_a_pipe_cannot_steer_a_terminal(client, emulator, tmp_path):
    said = "\x1b]\x9b2J\x7f \xe9\u0107"
    emulator.answer = lambda _: said
    source, out = write(tmp_path / "in.jsonl", [line(0)]), tmp_path / "out"
    with out.open("wb") as file:
        await run(client, source, "-", files=Ends(None, file.fileno()))
    text = out.read_text("utf-8")
    assert not {"\x1b", "\x9b", "\x7f"} & set(text)
    (row,) = map(json.loads, text.splitlines())
    assert row["response"]["body"]["choices"][0]["message"]["content"] == said
    assert "\xe9\u0107" in text, "what is harmless is left as it is"


async def test_a_pipe_to_a_file_can_be_resumed(client, emulator, tmp_path, piped):
    data, output = encoded(line(n) for n in range(30)), tmp_path / "out"
    await run(client, "-", output, files=Ends(piped(data)), limit=10)
    report = await run(client, "-", output, files=Ends(piped(data)))
    assert (report.resumed, report.left) == (10, 0)
    assert set(asked(emulator).values()) == {1}
    assert ids(output) == [f"id-{n}" for n in range(30)]
    with pytest.raises(BatchChangedError):
        await run(client, "-", output, files=Ends(piped(data + encoded([line(77)]))))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "out.journal"]
    dry = await run(client, "-", "-", files=Ends(piped(data)), dry_run=True)
    assert dry.estimate.rows == 30


async def test_redirected_files(client, tmp_path):
    source = write(tmp_path / "in.jsonl", [line(n) for n in range(20)])
    with source.open("rb") as reader, (tmp_path / "out").open("wb") as writer:
        files = Ends(reader.fileno(), writer.fileno())
        assert (await run(client, "-", "-", files=files)).done == 20
    assert len(read(tmp_path / "out")) == 20


async def test_the_null_device(client, tmp_path):
    source = write(tmp_path / "in.jsonl", [line(n) for n in range(5)])
    with Path("/dev/null").open("r+b", buffering=0) as null:
        files = Ends(null.fileno(), null.fileno())
        assert (await run(client, source, "-", files=files)).done == 5
        with pytest.raises(BatchInputError, match="no rows"):
            await run(client, "-", "-", files=files)


async def test_nobody_reads(client, emulator, piped):
    reader, writer = os.pipe()
    os.close(reader)
    files = Ends(piped(encoded(line(n) for n in range(300))), writer)
    with pytest.raises(BatchOutputError, match="standard output: Broken pipe"):
        await run(client, "-", "-", files=files, max_concurrency=4)
    assert emulator.received < 30
    os.close(writer)


async def test_a_reader_that_is_slow_holds_up_the_calls(client, emulator, piped):
    reader, writer = os.pipe()
    files = Ends(piped(encoded(line(n) for n in range(2000))), writer)
    task = asyncio.ensure_future(run(client, "-", "-", files=files, max_concurrency=4))
    await emulator.wait_until(lambda: emulator.received > 50)
    before = -1
    while before != emulator.received:  # until nothing moves any more
        before = emulator.received
        await emulator.wait_until(lambda: emulator.in_flight == 0)
        for _ in range(500):
            await asyncio.sleep(0)
    assert emulator.received < 600
    parts = []

    def drain():
        with os.fdopen(reader, "rb") as file:
            parts.extend(iter(lambda: file.read(4096), b""))

    thread = threading.Thread(target=drain)
    thread.start()
    report = await task
    os.close(writer)
    thread.join(60)
    assert report.done == 2000 == b"".join(parts).count(b"\n")


async def test_stopping_while_the_input_is_silent(client, emulator, tmp_path, drained):
    writer, finish = drained
    for output in ("-", tmp_path / "out"):
        reader, feed = os.pipe()
        os.write(feed, encoded([line(0)]))
        stop = Stop()
        files = Ends(reader, writer)
        before = emulator.received
        task = asyncio.ensure_future(run(client, "-", output, files=files, stop=stop))
        if output == "-":
            await emulator.wait_until(lambda before=before: emulator.received > before)
        else:
            await asyncio.sleep(0)
        stop.request()
        report = await task
        assert report.stopped == "stopped"
        assert report.done == (1 if output == "-" else 0)
        os.close(feed)
        os.close(reader)
    assert len(finish()) == 1


async def test_cancelled_while_a_line_is_half_written(client, emulator, piped):
    """What was begun is ended: the last line at the other end is whole."""
    reader, writer = os.pipe()
    emulator.answer = lambda _body: "x" * 100_000
    files = Ends(
        piped(encoded(line(n, body=line(n)["body"] | {"max_tokens": 10**6}) for n in range(50))),
        writer,
    )
    stop = Stop()
    task = asyncio.ensure_future(run(client, "-", "-", files=files, stop=stop, max_concurrency=4))
    await emulator.wait_until(lambda: emulator.received > 6)
    stop.request()
    stop.request()
    parts = []

    def drain():
        with os.fdopen(reader, "rb") as file:
            parts.extend(iter(lambda: file.read(4096), b""))

    thread = threading.Thread(target=drain)
    thread.start()
    report = await task
    os.close(writer)
    thread.join(60)
    data = b"".join(parts)
    assert data.endswith(b"\n")
    assert data.count(b"\n") == report.done > 0


async def test_what_pipes_cannot_do(client, piped, emulator):
    for options in ({"restart": True}, {"retry_failed": True}, {"shuffle": True}):
        with pytest.raises(ConfigurationError):
            await run(client, "-", "-", **options)
    emulator.always(faults.Status(500))
    assert emulator.received == 0
