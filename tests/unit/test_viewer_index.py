"""The viewer's index and searches, without a browser."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from konko_async.batch import RowLatencies
from konko_async.batch._output.filesystem import Filesystem
from konko_async.batch._output.journal import VERSION, Checkpoint, Header, Journal
from konko_async.batch._output.latencies import pack_seconds
from konko_async.batch._output.ledger import pack
from konko_async.viewer import Viewer, ViewerError
from konko_async.viewer._index import LineIndex, Query
from konko_async.viewer._rows import details, facts, needle, summary
from konko_async.viewer._service import InvalidQueryError, OutputService, find_input
from konko_async.viewer._stats import Stats

KEY = "0" * 32


def line(number, text="Hello", *, error=None, reason="stop", cached=False, name=None):
    body = {
        "model": "m",
        "choices": [{"message": {"content": text}, "finish_reason": reason}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 5},
    }
    response = {"status_code": 200, "request_id": "", "body": body, "latency": 0.25}
    if cached:
        response["from_cache"] = True
    entry = {
        "id": f"batch_req_{KEY}_{number}",
        "custom_id": name or f"id-{number}",
        "response": None if error else response,
        "error": {"code": error, "message": "It failed."} if error else None,
    }
    return json.dumps(entry, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"


def opened(path, lines):
    path.write_bytes(b"".join(lines))
    index = LineIndex(str(path))
    index.advance(60)
    return index


@pytest.fixture
def closing():
    made = []
    yield made.append
    for thing in made:
        thing.close()


@given(
    lines=st.lists(st.binary(max_size=40).map(lambda b: b.replace(b"\n", b"")), max_size=30),
    cuts=st.lists(st.integers(0, 1300), max_size=6),
)
def test_whatever_is_written_when_all_whole_lines_are_found(tmp_path_factory, lines, cuts):
    path = tmp_path_factory.mktemp("index") / "out"
    data = b"".join(entry + b"\n" for entry in lines)
    path.write_bytes(b"")
    index = LineIndex(str(path))
    written = 0
    for cut in [*sorted(cuts), len(data)]:
        with path.open("ab") as file:
            file.write(data[written:cut])
        written = max(written, min(cut, len(data)))
        index.advance(60)
        whole = data[:written].count(b"\n")
        assert (index.rows, index.complete) == (whole, True)
    assert index.read(0, len(lines) + 5) == lines
    for place, entry in enumerate(lines):
        assert index.read(place, place + 1) == [entry]
    index.close()


def test_a_file_that_is_replaced_or_cut_is_read_anew(tmp_path, closing):
    index = opened(tmp_path / "out", [line(0), line(1, error="x")])
    closing(index)
    query = Query(index, "failed", b"")
    query.advance(60)
    assert (index.rows, index.failed, query.rows(0, 9)) == (2, 1, [1])
    (tmp_path / "new").write_bytes(line(7, error="x"))
    (tmp_path / "new").replace(tmp_path / "out")
    index.advance(60)
    query.advance(60)
    assert (index.rows, index.failed, index.generation, query.rows(0, 9)) == (1, 1, 1, [0])
    (tmp_path / "out").write_bytes(b"")
    index.advance(60)
    assert (index.rows, index.generation) == (0, 2)
    (tmp_path / "out").unlink()
    index.advance(60)  # what was read can still be looked at


def test_filters_and_searches(tmp_path, closing):
    index = opened(
        tmp_path / "out",
        [
            line(0, 'Say "héllo"'),
            line(1, error="rate_limit"),
            line(2, "HELLO", reason="length"),
            line(3, "x", cached=True),
        ],
    )
    closing(index)

    def found(name, text=""):
        query = Query(index, name, needle(text))
        query.advance(60)
        assert query.complete
        return query.rows(0, 10)

    assert found("all") == [0, 1, 2, 3]
    assert found("ok") == [0, 2, 3]
    assert found("failed") == [1]
    assert found("cut") == [2]
    assert found("cached") == [3]
    assert found("all", '"HÉLLO"'.lower()) == [0]
    assert found("all", "hello") == [2]
    assert found("ok", "rate_limit") == []
    assert found("failed", "RATE_limit") == [1]


@given(data=st.binary(max_size=200) | st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["id", "custom_id", "response", "error", "body", "choices", "message",
                         "content", "usage", "prompt_tokens", "latency", "data"]),
        inner, max_size=4),
    max_leaves=12,
).map(lambda value: json.dumps(value).encode()))  # fmt: skip
def test_whatever_a_line_holds_is_shown(data):
    assert isinstance(facts(data).text, str)
    json.dumps(summary(0, data))
    json.dumps(details(0, data, data))


def test_sums(tmp_path, closing):
    index = opened(tmp_path / "out", [line(0), line(1, error="e"), line(2, cached=True)])
    closing(index)
    stats = Stats(index, RowLatencies(tmp_path / "out"))
    stats.advance(60)
    found = stats.to_dict()
    assert (found["ok"], found["failed"], found["cached"], found["complete"]) == (2, 1, 1, True)
    assert (found["prompt_tokens"], found["billed_prompt_tokens"]) == (6, 3)
    assert found["errors"] == [("e", 1)]
    assert found["reasons"] == [("stop", 2)]
    assert found["latency"] == [("up to 0.5 s", 1)]
    assert found["tokens"] == [("up to 8", 2)]


def test_latencies_come_from_the_journal_while_it_is_written(tmp_path, closing):
    plain = [line(number).replace(b',"latency":0.25', b"") for number in range(4)]
    (tmp_path / "out").write_bytes(b"".join(plain))
    service = OutputService([str(tmp_path / "out")], None)
    closing(service)
    service.state()
    assert service.row(2)["rows"][0]["latency"] is None
    assert service.stats()["files"][0]["latency"] == []
    journal = Journal(str(tmp_path / "out.journal"), Filesystem())
    closing(journal)
    journal.begin(Header(VERSION, "in", "f"))
    journal.append(Checkpoint(10, ok=pack([3, 2]), seconds=pack_seconds([1.5, 0.25])))
    assert service.row(2)["rows"][0]["latency"] == 0.25
    assert service.stats()["files"][0]["latency"] == [
        ("up to 0.5 s", 1), ("up to 1 s", 0), ("up to 2 s", 1),
    ]  # fmt: skip
    journal.append(Checkpoint(20, ok=pack([0, 1]), seconds=pack_seconds([0.3, 0.0])))
    assert service.stats()["files"][0]["latency"][0] == ("up to 0.5 s", 2)
    assert service.row(1)["rows"][0]["latency"] is None


def test_two_outputs_are_joined_by_their_ids(tmp_path, closing):
    (tmp_path / "a").write_bytes(line(0) + line(1, "x") + line(2) + line(3))
    (tmp_path / "b").write_bytes(line(2, error="e") + line(1, "y") + line(0))
    service = OutputService([str(tmp_path / "a"), str(tmp_path / "b")], None)
    closing(service)
    service.state()
    rows = service.rows("all", "", 0, 10)["rows"]
    assert [row["other"] for row in rows] == [True, False, False, None]
    different = service.rows("different", "", 0, 10)
    assert [row["id"] for row in different["rows"]] == ["id-1", "id-2", "id-3"]
    one, two = service.row(1)["rows"]
    assert (one["text"], two["text"]) == ("x", "y")
    assert service.row(3)["rows"][1] == {}
    assert b"".join(service.export("different", "")) == line(1, "x") + line(2) + line(3)
    for bad in (lambda: service.rows("nope", "", 0, 1), lambda: service.row(9)):
        with pytest.raises(InvalidQueryError):
            bad()


def test_the_input_is_found_by_the_journal(tmp_path):
    (tmp_path / "out.journal").write_bytes(b'00000000 {"journal":1,"input":"in.jsonl"}\n')
    assert find_input(str(tmp_path / "out"), None) is None
    (tmp_path / "in.jsonl").write_text("{}\n")
    assert find_input(str(tmp_path / "out"), None) == str(tmp_path / "in.jsonl")
    (tmp_path / "out.journal").write_bytes(b'00000000 {"journal":1,"input":"../../etc/x.jsonl"}\n')
    assert find_input(str(tmp_path / "out"), None) is None
    assert find_input(str(tmp_path / "out"), str(tmp_path / "in.csv")) is None


def test_an_output_that_is_not_there_is_reported(tmp_path):
    with pytest.raises(ViewerError, match="cannot be read"):
        Viewer(tmp_path / "none.jsonl")
