"""How long rows took: kept in the journal, in the order of its rows."""

import asyncio
from array import array

import pytest
from batch_kit import MODEL, line, run, write
from hypothesis import given, settings
from hypothesis import strategies as st

from konko_async import RateLimit
from konko_async.batch import Filesystem, RowLatencies, merge_outputs
from konko_async.batch._output.journal import VERSION, Checkpoint, Header, Journal
from konko_async.batch._output.latencies import pack_seconds, unpack_seconds
from konko_async.batch._output.ledger import pack
from konko_async.testing import faults


def latencies_of(output, rows):
    found = RowLatencies(output)
    found.advance()
    return [found.of(row) for row in range(rows)]


SECONDS = st.floats(0.0, 1e6, width=32)


@given(st.lists(SECONDS))
def test_packed_seconds_are_read_as_they_were(seconds):
    packed = pack_seconds(seconds)
    assert unpack_seconds(packed).tolist() == (seconds if any(seconds) else [])
    assert len(packed) in {0, 4 * len(seconds)}


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_any_journal_is_read_in_any_pieces(tmp_path_factory, data):
    """Rows in any order, with and without latencies, begun anew, and looked at while it grows."""
    output = tmp_path_factory.mktemp("j") / "out"
    journal = Journal(f"{output}.journal", Filesystem())
    journal.begin(Header(VERSION, "in", "f"))
    wanted, left, found = {}, list(range(40)), RowLatencies(output)
    for _ in range(data.draw(st.integers(1, 8))):
        if data.draw(st.integers(0, 6)) == 0:
            journal.begin(Header(VERSION, "in", "g"))
            wanted, left = {}, list(range(40))
        rows = data.draw(st.lists(st.sampled_from(left), unique=True)) if left else []
        left = [row for row in left if row not in rows]
        # 0: not known, as of a row that was taken over behind the last checkpoint.
        took = array("f", data.draw(st.lists(st.floats(0, 9, width=32), min_size=len(rows))))
        took = took[: len(rows)].tolist()
        old = data.draw(st.booleans())  # as earlier versions wrote it
        journal.append(Checkpoint(1, ok=pack(rows), seconds=b"" if old else pack_seconds(took)))
        wanted |= {} if old else {row: each for row, each in zip(rows, took, strict=True) if each}
        if data.draw(st.booleans()):
            found.advance()
    content = (output.parent / "out.journal").read_bytes()
    with (output.parent / "out.journal").open("ab") as file:
        file.write(content[: data.draw(st.integers(0, 30))].removesuffix(b"\n"))  # torn
    found.advance()
    assert {row: found.of(row) for row in wanted} == pytest.approx(wanted, abs=1e-6)
    assert found.known == len(wanted)
    assert [found.of(row) for row in (-1, 99, *left)] == [None] * (2 + len(left))
    assert latencies_of(output, 40) == [found.of(row) for row in range(40)]
    journal.close()


def test_an_output_without_a_journal_and_one_of_somebody_else(tmp_path):
    assert latencies_of(tmp_path / "out", 2) == [None, None]
    (tmp_path / "out.journal").write_bytes(b"something else\n" * 3)
    assert latencies_of(tmp_path / "out", 2) == [None, None]


async def test_rows_have_the_time_of_their_calls_without_local_waits(client, emulator, tmp_path):
    source, output = write(tmp_path / "in", [line(n) for n in range(6)]), tmp_path / "out"
    emulator.script(faults.Status(400), when=lambda r: r.body and "row 4" in str(r.body))
    emulator.script(faults.Delay(0.2), when=lambda r: r.body and "row 1" in str(r.body))
    limited = client.with_options(rate_limit=RateLimit(max_concurrency=1))
    report = await run(limited, source, output)
    found = latencies_of(output, 6)
    assert found[4] is None, "it failed"
    assert all(found[row] > 0 for row in (0, 1, 2, 3, 5))
    assert found[1] >= 0.2
    # One call at a time: if the waits of the others for row 1 counted, it would be more.
    assert sum(filter(None, found)) <= report.elapsed
    # Rows that are kept keep their latency when the failed one is done again.
    await run(client, source, output, retry_failed=True)
    again = latencies_of(output, 6)
    assert again[4] > 0
    assert [again[row] for row in (0, 1, 2, 3, 5)] == [found[row] for row in (0, 1, 2, 3, 5)]


async def test_steps_are_added_up_and_shards_keep_theirs(client, emulator, tmp_path):
    source = write(tmp_path / "in.jsonl", [{"id": n, "text": f"t{n}"} for n in range(4)])
    emulator.script(*[faults.Delay(0.05)] * 8)
    steps, shards = [("one", "{text}"), ("two", "{answer}")], [tmp_path / "1", tmp_path / "2"]
    for number, output in enumerate(shards, 1):
        await run(client, source, output, steps=steps, model=MODEL, shard=(number, 2))
    target = tmp_path / "all"
    await asyncio.to_thread(merge_outputs, shards, target)
    parts = [latencies_of(output, 4) for output in shards]
    assert latencies_of(target, 4) == [one or two for one, two in zip(*parts, strict=True)]
    assert all(each >= 0.1 for each in latencies_of(target, 4))
