"""Inputs that are not what they should be: clear errors with line numbers, before a call is made."""

import bz2
import gzip
import io
import itertools
import json
import lzma
import os

import pytest
from batch_kit import MODEL, asked, content, ids, line, read, run, write
from hypothesis import example, given, settings
from hypothesis import strategies as st

from konko_async import ConfigurationError
from konko_async.batch import BatchInputError, Template
from konko_async.batch._input.record_splitter import Splitter
from konko_async.batch._input.source import FileSource
from konko_async.batch._input.table import Table, split_fields
from konko_async.batch._input.validate import Ids
from konko_async.batch._order import shuffled

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
        (b"id,text\n1,\xff\n", "line 2: not UTF-8"),
        (
            b'id,text\n1,"never closed\n2,b\n',
            r'line 2: a quote \("\) opens a field and is never closed',
        ),
        (b'id,text\n1,"abc\n2,b\n3,c"\n4,d\n', "line 2: .*would swallow the records up to line 4"),
        (b'id\ttext\n1\t"abc\n2\tb\n3\t"x" y\n', "line 2: .*not closed before line 4"),
        (b"custom_id,text\n1,a\n1,b\n", "custom_id '1' is that of line 2 too"),
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
    with pytest.raises(BatchInputError, match="without files of the format csv"):
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
    splitter = Splitter(max_bytes=1000, table=Table(",", 1))
    pieces = [p for at in range(0, len(data), size) for p in splitter.feed(data[at : at + size])]
    pieces += splitter.flush()
    assert [split_fields(piece.data.decode(), ",") for piece in pieces] == [[v] for v in values]


FIELD = st.text("ab,;\t\" '", max_size=6)


@given(
    st.lists(st.lists(FIELD, min_size=3, max_size=3), min_size=1, max_size=6),
    st.sampled_from(",;\t"),
)
@example([["", "", ""]], "\t")
def test_tables_read_as_the_standard_library_reads_them(rows, delimiter):
    """As far as it agrees that a quote opens a field only at its start."""
    import csv

    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, lineterminator="\n").writerows(rows)
    splitter = Splitter(max_bytes=1000, table=Table(delimiter, 3))
    pieces = [*splitter.feed(text.getvalue().encode()), *splitter.flush()]
    assert [split_fields(piece.data.decode(), delimiter) for piece in pieces] == rows


@given(
    st.lists(
        st.lists(FIELD.map(lambda t: t.strip('" ')), min_size=2, max_size=2), min_size=1, max_size=8
    )
)
def test_no_line_vanishes_whatever_quotes_stand_where(rows):
    """Unquoted text, as most tools write tab-separated files: each line is a row or an error."""
    lines = ["\t".join(field.replace("\t", " ") or "x" for field in row) for row in rows]
    # Stray quotes anywhere, also where they open a field.
    lines = [line if number % 3 else f'"{line}' for number, line in enumerate(lines)]
    splitter = Splitter(max_bytes=1000, table=Table("\t", 2))
    pieces = [*splitter.feed("\n".join(lines).encode()), *splitter.flush()]
    joined = sum((piece.data or b"").count(b"\n") for piece in pieces)
    assert len(pieces) + joined == len(lines)
    for piece in pieces:
        assert piece.problem is None or piece.data.startswith(b'"')


BYTES = st.one_of(st.binary(max_size=9), st.text('a",\n', max_size=9).map(str.encode))


@example([b'\0\n"\0\0', b'\0\0\0\0"""', b""], 3, Table(",", 2))
@given(st.lists(BYTES, max_size=20), st.integers(2, 10), st.sampled_from([None, Table(",", 2)]))
def test_records_can_be_read_by_their_place(tmp_path_factory, parts, limit, table):
    def seen(piece):
        return piece.line, piece.offset, piece.data, piece.problem is None

    path = tmp_path_factory.mktemp("in") / "file"
    path.write_bytes(b"\n".join(parts))
    source = FileSource(path.open("rb", buffering=0), table=table, max_bytes=limit)
    pieces = list(source.pieces())
    assert source.index() == len(pieces)
    assert [seen(source.at(place)) for place in range(len(pieces))] == [seen(p) for p in pieces]
    source.close()


def test_a_record_before_many_blank_lines_can_be_read_by_its_place(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"\xef\xbb\xbfa\n" + b"\n" * 400_000 + b"bb")
    source = FileSource(path.open("rb", buffering=0), table=None, max_bytes=2)
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
    template = Template('{{"a": {text}}} {n} {"json": 1} {} {0} {{as text}}')
    assert template.names == ["text", "n"]
    filled = template.fill({"text": "{n}", "n": [1, "x"]})
    assert filled == '{"a": {n}} [1,"x"] {"json": 1} {} {0} {as text}'
    with pytest.raises(ValueError, match="asks for"):
        template.fill({"text": "x"})
    for bad in ("no field", "{{text}}", 5):
        with pytest.raises(ConfigurationError):
            Template(bad)


def test_names_of_columns_need_not_be_identifiers():
    row = {"Review Text": "nice", "product-id": 7, "1": "one", "Preis (€)": "5", "a:b": "c"}
    template = Template("{product-id}: {Review Text} {1} {Preis (€)} {a:b} {x: 1}")
    template.check(row)
    assert template.fill(row) == "7: nice one 5 c {x: 1}"
    for typo in ("{Review Txt} {1}", "{meta.title} {1}", "{product-id} {Review Text} {x}"):
        with pytest.raises(ConfigurationError, match="asks for"):
            Template(typo).check(row)
        with pytest.raises(ValueError, match="asks for"):
            Template(typo).fill(row)
    with pytest.raises(ValueError, match="no field"):
        Template("{2} {3}").fill(row)


async def prompts(client, emulator, source, tmp_path, **options):
    """Run an input, and return what was asked, in the order of the ids."""
    emulator._log.clear()
    output = tmp_path / "prompts-out"
    report = await run(client, source, output, model=MODEL, restart=True, **options)
    assert (report.failed, report.left) == (0, 0)
    return {row["custom_id"]: content(row).removeprefix("re: ") for row in read(output)}


@pytest.mark.parametrize("pack", [None, gzip.compress, lzma.compress, bz2.compress])
@pytest.mark.parametrize("indent", [None, 2])
async def test_arrays_and_compressed_files(client, emulator, tmp_path, pack, indent):
    rows = [{"text": f"a\n\t{number}", "n": 1.5} for number in range(5)]
    data = json.dumps(rows, indent=indent).encode()
    source = tmp_path / "in.json.gz"  # its content decides, not its name
    source.write_bytes(pack(data) if pack else data)
    notices = []
    found = await prompts(
        client, emulator, source, tmp_path, prompt="{text}", on_notice=notices.append
    )
    assert found == {f"row-{n + 1}": f"a\n\t{n}" for n in range(5)}
    assert "array of 5 elements" in notices[0]


async def test_damaged_and_foreign_files_are_refused(client, tmp_path):
    for name, data, message in (
        ("a.jsonl.gz", gzip.compress(b'{"a": 1}' * 999)[:-20], "cannot be unpacked"),
        ("a.parquet", b"PAR1" + bytes(99), "Parquet"),
        ("a.xlsx", b"PK\x03\x04" + bytes(99), "as CSV"),
        ("a.json", b'[{"a": 1}, ', "array that cannot be read"),
    ):
        source = tmp_path / name
        source.write_bytes(data)
        with pytest.raises(BatchInputError, match=message):
            await run(client, source, tmp_path / "out", prompt="{a}", model=MODEL)


async def test_a_prompt_on_each_line(client, emulator, tmp_path):
    source = tmp_path / "prompts.txt"
    source.write_text("What is 1?\n\nWhat is {2}?\r\n")
    found = await prompts(client, emulator, source, tmp_path)
    assert found == {"row-1": "What is 1?", "row-2": "What is {2}?"}


async def test_folders_and_globs_of_shards(client, emulator, tmp_path):
    shards = tmp_path / "shards"
    shards.mkdir()
    write(shards / "a.jsonl", [{"text": "0"}, {"text": "1"}])
    (shards / "b.jsonl.gz").write_bytes(gzip.compress(b'{"text": "2"}\n'))
    for source in (shards, f"{shards}/*.jsonl*"):
        found = await prompts(client, emulator, source, tmp_path, prompt="{text}", shuffle=3)
        assert found == {f"row-{n + 1}": str(n) for n in range(3)}
    write(shards / "c.jsonl", [b"{"])
    with pytest.raises(BatchInputError, match=r"line 1: .*c\.jsonl"):
        await run(client, shards, tmp_path / "out", prompt="{text}", model=MODEL)
    (shards / "c.jsonl").unlink()
    (shards / "d.csv").write_text("text\na\n")
    with pytest.raises(BatchInputError, match="another format"):
        await run(client, shards, tmp_path / "out", prompt="{text}", model=MODEL)
    (shards / "readme.txt").write_text("text")
    with pytest.raises(BatchInputError, match="3 data files"):
        await run(client, f"{shards}", tmp_path / "out", prompt="{text}", model=MODEL)
    with pytest.raises(BatchInputError, match="no file fits"):
        await run(client, f"{shards}/*.tsv", tmp_path / "out", prompt="{text}", model=MODEL)


async def test_an_id_that_is_not_unique_names_no_row(client, emulator, tmp_path):
    source = write(tmp_path / "in.jsonl", [{"id": n // 2, "key": n, "text": n} for n in range(6)])
    found = await prompts(client, emulator, source, tmp_path, prompt="{text}")
    assert found == {f"row-{n + 1}": str(n) for n in range(6)}
    again = await run(client, source, tmp_path / "prompts-out", model=MODEL, prompt="{text}")
    assert (again.resumed, again.finished) == (6, 0)
    found = await prompts(client, emulator, source, tmp_path, prompt="{text}", id_column="key")
    assert set(found) == set("012345")
    with pytest.raises(BatchInputError, match="which id_column= names"):
        await run(client, source, tmp_path / "out", model=MODEL, prompt="{text}", id_column="no")


def test_a_long_cell_is_a_cell_like_any_other():
    """The csv module takes 128 KiB at most, unless a global setting is changed."""
    text = "word, " * 40_000
    data = f'1,"{text}"\n2,short\n'.encode()
    pieces = Splitter(max_bytes=10**6, table=Table(",", 2)).feed(data)
    assert [split_fields(p.data.decode(), ",") for p in pieces] == [["1", text], ["2", "short"]]


async def test_a_lone_surrogate_is_named(client, tmp_path):
    source = write(tmp_path / "in.jsonl", [b'{"text": "cut \\ud83d"}'])
    with pytest.raises(BatchInputError, match=r"lone surrogate \(\\ud83d\)"):
        await run(client, source, tmp_path / "out", prompt="{text}", model=MODEL)


async def test_an_input_that_was_only_touched_is_the_same(client, emulator, tmp_path):
    source, output = write(tmp_path / "in.jsonl", [line(n) for n in range(40)]), tmp_path / "out"

    def touch(progress):
        if progress.done:
            os.utime(source)

    emulator.latency = 0.005
    report = await run(
        client, source, output, max_concurrency=2, on_progress=touch, progress_interval=0.01
    )
    assert (report.done, report.left) == (40, 0)
