"""Inputs that are not what they should be: clear errors with line numbers, before a call is made."""

import io
import itertools
import os

import pytest
from batch_kit import MODEL, asked, ids, line, read, run, write
from hypothesis import given, settings
from hypothesis import strategies as st

from konko_async import ConfigurationError
from konko_async.batch import BatchInputError, Template
from konko_async.batch._check import Ids
from konko_async.batch._order import shuffled
from konko_async.batch._source import FileSource
from konko_async.batch._splitter import Splitter

BAD = [
    (b"{broken", "malformed"),
    (b'{"custom_id": "x"', "truncated"),
    (b'{"custom_id":"n","url":"/v1/chat/completions","body":{"model":"m","temperature":NaN}}', "NaN is not JSON"),
    (b'{"custom_id":"n","url":"/v1/chat/completions","body":{"model":"m","top_p":-Infinity}}', "Infinity is not JSON"),
    (b'{"custom_id":"u","url":"/v1/chat/completions","body":{"model":"\xff"}}', "not UTF-8"),
    (b"[1, 2]", "Expected `object`"),
    (b'{"custom_id":"d","url":"/v1/completions","body":{"a":' + b"[" * 200_000, "nested too deeply"),
    (line(1, url="/v1/images"), "url must be one of"),
    (line(1, method="GET"), 'method must be "POST"'),
    ({"url": "/v1/chat/completions", "body": {}}, "custom_id"),
    (line(1, custom_id=5), "Expected `str`"),
    (line(1, body={"messages": [{}]}), "no model"),
    (line(1, body={"model": MODEL, "messages": []}), '"messages"'),
    (line(1, url="/v1/embeddings"), '"input"'),
    (line(0, text="other"), "'id-0' is that of line 1"),
]  # fmt: skip


@pytest.mark.parametrize(("bad", "message"), BAD)
async def test_bad_rows_are_told_of_with_their_line_before_anything_is_sent(
    client, emulator, tmp_path, bad, message
):
    source = write(tmp_path / "in.jsonl", [line(0), b"", bad, line(2)])
    with pytest.raises(BatchInputError) as caught:
        await run(client, source, tmp_path / "out", format="openai")
    assert caught.value.count == 1
    ((number, problem),) = caught.value.problems
    assert number == 3
    assert message in problem
    assert "line 3: " in str(caught.value)
    assert "skip_invalid=True" in str(caught.value)
    assert emulator.received == 0


async def test_all_bad_rows_are_counted_and_the_first_told(client, tmp_path):
    source = write(tmp_path / "in.jsonl", [line(0), *[b"{"] * 300])
    with pytest.raises(BatchInputError, match="300 invalid rows") as caught:
        await run(client, source, tmp_path / "out")
    assert len(caught.value.problems) == 100
    assert "and 290 more" in str(caught.value)


async def test_good_rows_run_when_asked(client, emulator, tmp_path):
    source = write(
        tmp_path / "in.jsonl", [line(0), *[bad for bad, _ in BAD[:-1]], line(0), line(2)]
    )
    output = tmp_path / "out"
    report = await run(client, source, output, format="openai", skip_invalid=True, limit=1)
    assert (report.invalid, report.failed, report.done, report.left) == (15, 15, 16, 1)
    again = await run(client, source, output, format="openai", skip_invalid=True)
    assert (again.invalid, again.failed, again.done, again.left) == (15, 15, 17, 0)
    assert set(asked(emulator).values()) == {1}
    rows = read(output)
    bad = [row for row in rows if row["error"]]
    assert {row["error"]["code"] for row in bad} == {"invalid_row"}
    assert "line 2: " in bad[0]["error"]["message"]
    assert len({row["id"] for row in rows}) == 17
    # Rows that are retried are checked again.
    retried = await run(
        client, source, output, format="openai", skip_invalid=True, retry_failed=True
    )
    assert (retried.invalid, retried.done, retried.finished) == (15, 17, 0)
    assert len(read(output)) == 17


@pytest.mark.parametrize("data", [b"", b"\n\r\n \n", b"\xef\xbb\xbf", b"\xef\xbb\xbf\n"])
@pytest.mark.parametrize("name", ["in.jsonl", "in.csv"])
async def test_an_empty_input(client, tmp_path, data, name):
    source = tmp_path / name
    source.write_bytes(data)
    with pytest.raises(BatchInputError, match="no rows"):
        await run(client, source, tmp_path / "out", prompt="{text}", model=MODEL)


async def test_bom_crlf_blank_lines_and_no_last_line_end(client, tmp_path):
    data = b"\xef\xbb\xbf" + b"\r\n\r\n".join(
        (tmp_path / "x").read_bytes().strip() for n in range(3) if write(tmp_path / "x", [line(n)])
    )
    source = tmp_path / "in.jsonl"
    source.write_bytes(data)
    report = await run(client, source, tmp_path / "out")
    assert (report.done, report.failed) == (3, 0)
    assert ids(tmp_path / "out") == ["id-0", "id-1", "id-2"]


async def test_a_line_of_100_mb(client, emulator, tmp_path):
    source = tmp_path / "in.jsonl"
    with source.open("wb") as file:
        file.write(write(tmp_path / "x", [line(0)]).read_bytes())
        file.truncate(file.tell() + 100 * 1024 * 1024)  # zeros, without the disk they would take
        file.seek(0, os.SEEK_END)
        file.write(b"\n" + write(tmp_path / "x", [line(1)]).read_bytes())
    with pytest.raises(BatchInputError, match="line 2: it is longer than max_line_bytes"):
        await run(client, source, tmp_path / "out")
    report = await run(client, source, tmp_path / "out", skip_invalid=True, shuffle=True)
    assert (report.done, report.failed) == (3, 1)


async def test_utf_16_and_unknown_content(client, tmp_path):
    source = tmp_path / "in.jsonl"
    source.write_text('{"a": 1}', "utf-16")
    with pytest.raises(BatchInputError, match="UTF-16"):
        await run(client, source, tmp_path / "out")
    other = tmp_path / "in.dat"
    other.write_bytes(b"what, is, this\n")
    with pytest.raises(BatchInputError, match="format="):
        await run(client, other, tmp_path / "out")
    with pytest.raises(BatchInputError, match="cannot be read"):
        await run(client, tmp_path / "missing.jsonl", tmp_path / "out")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (b"text,text\na,b\n", "comes twice"),
        (b"text,\na,b\n", "column 2 is empty"),
        (b"id,text\n1,a\n2\n", "line 3: 1 fields, where the header has 2"),
        (b'id,text\n1,"a"b\n', "not CSV"),
        (b"id,text\n1,\xff\n", "line 2: not UTF-8"),
        (b'id,text\n1,"never closed\n2,b\n', "line 2: not CSV"),
        (b"id,text\n1,a\n1,b\n", "custom_id '1' is that of line 2 too"),
    ],
)
async def test_bad_tables(client, tmp_path, table, message):
    source = tmp_path / "in.csv"
    source.write_bytes(table)
    with pytest.raises(BatchInputError, match=message):
        await run(client, source, tmp_path / "out", prompt="{text}", model=MODEL)


async def test_tables_with_other_delimiters_and_columns(client, emulator, tmp_path):
    source = tmp_path / "in.csv"
    source.write_bytes(b"id;text\n1;a,b\n")
    assert (await run(client, source, tmp_path / "out", prompt="{text}", model=MODEL)).failed == 0
    assert emulator.requests[-1].body["messages"][0]["content"] == "a,b"
    with pytest.raises(ConfigurationError, match=r"asks for \{other\}; the columns are id, text"):
        await run(client, source, tmp_path / "out2", prompt="{other}", model=MODEL)
    with pytest.raises(ConfigurationError, match="needs a prompt"):
        await run(client, source, tmp_path / "out2", model=MODEL)


async def test_missing_fields_and_empty_files(client, tmp_path):
    source = write(tmp_path / "in.jsonl", [{"text": "a"}, {"txt": "b"}, b"5"])
    with pytest.raises(BatchInputError) as caught:
        await run(client, source, tmp_path / "out", prompt="{text}", model=MODEL)
    assert [number for number, _ in caught.value.problems] == [2, 3]
    assert "the row has txt" in str(caught.value)
    with pytest.raises(BatchInputError, match='no "messages"'):
        await run(client, source, tmp_path / "out", model=MODEL)
    folder = tmp_path / "texts"
    folder.mkdir()
    with pytest.raises(BatchInputError, match="no text files"):
        await run(client, folder, tmp_path / "out", prompt="{text}", model=MODEL)
    (folder / "a.txt").write_text(" \n")
    (folder / "b.txt").write_bytes(b"\xff\xff")
    with pytest.raises(BatchInputError, match=r"a\.txt: the file is empty"):
        await run(client, folder, tmp_path / "out", prompt="{text}", model=MODEL)
    with pytest.raises(BatchInputError, match="its format is texts"):
        await run(client, folder, tmp_path / "out", format="csv")


async def test_one_text_file(client, tmp_path):
    source = tmp_path / "one.md"
    source.write_text("hello")
    await run(client, source, tmp_path / "out", prompt="{text}", model=MODEL)
    assert read(tmp_path / "out")[0]["custom_id"] == "one.md"


async def test_an_input_changed_during_the_run(client, emulator, tmp_path):
    source = write(tmp_path / "in.jsonl", [line(n) for n in range(200)])
    emulator.latency = 0.005
    import asyncio

    task = asyncio.ensure_future(run(client, source, tmp_path / "out", max_concurrency=4))
    await emulator.wait_until(lambda: emulator.received == 20)
    with source.open("ab") as file:
        file.write(b"\n")
    with pytest.raises(BatchInputError, match="changed during the run") as caught:
        await task
    assert caught.value.report.done == 200


# -- the parts ---------------------------------------------------------------------------------------

LINES = st.lists(st.binary(max_size=12).filter(lambda data: b"\n" not in data), max_size=12)


@given(LINES, st.lists(st.integers(1, 9), min_size=1, max_size=9), st.integers(1, 12))
def test_lines_are_the_same_however_they_are_cut(lines, cuts, limit):
    data = b"\n".join(lines)
    whole = Splitter(max_bytes=limit)
    expected = [*whole.feed(data), *whole.flush()]
    parts, found, place, turn = Splitter(max_bytes=limit), [], 0, 0
    while place < len(data):
        size = cuts[turn % len(cuts)]
        found += parts.feed(data[place : place + size])
        place, turn = place + size, turn + 1
    found += parts.flush()
    assert found == expected
    for piece in expected:
        assert piece.data is None or len(piece.data) <= limit
        start = data[piece.offset :].split(b"\n")[0]
        assert piece.data is None or piece.data in start


@given(st.lists(st.text('ab"\n,', max_size=8), min_size=1, max_size=8), st.integers(1, 7))
def test_csv_records_may_hold_line_breaks(values, size):
    import csv

    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\r\n").writerows([v] for v in values)
    data = text.getvalue().encode()
    splitter = Splitter(max_bytes=1000, quoted=True)
    pieces = [p for at in range(0, len(data), size) for p in splitter.feed(data[at : at + size])]
    pieces += splitter.flush()
    assert [next(csv.reader([piece.data.decode()])) for piece in pieces] == [[v] for v in values]


@given(st.lists(st.binary(max_size=9), max_size=20), st.integers(2, 10), st.booleans())
def test_records_can_be_read_by_their_place(tmp_path_factory, parts, limit, quoted):
    path = tmp_path_factory.mktemp("in") / "file"
    path.write_bytes(b"\n".join(parts))
    source = FileSource(path.open("rb", buffering=0), quoted=quoted, max_bytes=limit)
    pieces = list(source.pieces())
    assert source.index() == len(pieces)
    assert [source.at(place) for place in range(len(pieces))] == pieces
    source.close()


def test_a_record_before_many_blank_lines_can_be_read_by_its_place(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"\xef\xbb\xbfa\n" + b"\n" * 400_000 + b"bb")
    source = FileSource(path.open("rb", buffering=0), quoted=False, max_bytes=2)
    assert source.index() == 2
    assert [source.at(0).data, source.at(1).data] == [b"a", b"bb"]
    source.close()


@settings(deadline=None)
@given(st.integers(1, 600), st.integers(0, 2**64))
def test_shuffled_is_a_permutation(count, seed):
    assert sorted(shuffled(count, seed)) == list(range(count))


def test_shuffled_looks_random():
    order = list(shuffled(10_000, 3))
    halves = sum(value < 5000 for value in order[:5000])
    assert 2300 < halves < 2700
    near = sum(abs(a - b) < 100 for a, b in itertools.pairwise(order))
    assert 100 < near < 350  # about 200 by chance


def test_ids():
    ids = Ids()
    assert ids.first("a", 1) is None
    assert ids.first("b", 2) is None
    assert ids.first("a", 9) == 1
    assert ids.first("\ud800", 3) is None
    ids.close()


def test_templates():
    template = Template('{{"a": {text}}} {n} {"json": 1} {} {0}')
    assert template.names == ["text", "n"]
    assert template.fill({"text": "{n}", "n": [1, "x"]}) == '{"a": {n}} [1,"x"] {"json": 1} {} {0}'
    with pytest.raises(ValueError, match="asks for"):
        template.fill({"text": "x"})
    for bad in ("no field", "{text.__class__}", 5):
        with pytest.raises(ConfigurationError):
            Template(bad)
