"""The process that reads documents: its messages, what it replies, and how the parent keeps it.

The functions of the child are called in this process, too, where a change of them can be noticed.
"""

import io
import os
import select
import signal
import subprocess
import sys
import types
from pathlib import Path

import msgspec
import pypdfium2
import pytest

from konko_async.documents import Document, DocumentError
from konko_async.documents import _child as child
from konko_async.documents._readers import Readers

PDF = b"%PDF-1.4 one that only a library can judge"


@pytest.fixture
def request_for(tmp_path):
    def make(data, kind, name="a file", **more):
        path = tmp_path / "file\udcff.bin"  # a name that is not UTF-8
        path.write_bytes(data)
        return child.ReadRequest(os.fsencode(path), name, kind, **more)

    return make


# -- messages ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [b"", b"x", b"y" * 300, b"z" * 70_000])
def test_messages_arrive_whole_and_in_order(body):
    stream = io.BytesIO()
    for each in (body, b"next"):
        child.write_frame(stream, each)
    data = stream.getvalue()
    stream.seek(0)
    assert [child.read_frame(stream) for _ in range(3)] == [body, b"next", None]
    size = len(body) + 4
    assert data[:4] == len(body).to_bytes(4, "big")
    for cut in {0, 1, 3, 4, size - 1}:
        if cut < size:
            assert child.read_frame(io.BytesIO(data[:cut])) is None, "whoever wrote it has died"


# -- replies -----------------------------------------------------------------------------------------


def test_a_reply_holds_the_documents_in_their_order(request_for):
    lines = b'{"note": "one"}\n[]\n{"note": "two"}\n'
    reply = child._answer(request_for(lines, "jsonl", field="note"))
    first, second, third = reply.documents
    assert [first[0].text, third[0].text] == ["one", "two"]
    assert isinstance(first[0], Document)
    assert first[1] is third[1] is second[0] is None
    assert (second[1].code, second[1].name) == ("broken", "a file#2")
    assert "a file#2" in second[1].message
    assert reply.missing is None
    latin = child._answer(request_for("Grüße".encode("latin-1"), "text", encoding="latin-1"))
    assert [found.text for found, _ in latin.documents] == ["Grüße"]


def test_a_file_that_is_not_there_or_empty_is_refused_by_name(request_for):
    (pair,) = child._answer(request_for(b" \n", "text", "the name")).documents
    assert pair == (None, child.ReadFailure("the name is empty", "the name", "empty"))
    gone = child.ReadRequest(b"/nowhere/at/all.txt", "another name", "text")
    (pair,) = child._answer(gone).documents
    assert pair == (
        None,
        child.ReadFailure("another name does not exist", "another name", "missing"),
    )


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (MemoryError(), "too_large", "a file needs more memory than is allowed"),
        (RuntimeError("odd\n  object  7"), "broken", "a file cannot be read as pdf: odd object 7"),
        (KeyError(), "broken", "a file cannot be read as pdf: KeyError"),
        (ValueError("x" * 999), "broken", f"a file cannot be read as pdf: {'x' * 200}"),
    ],
)
def test_whatever_a_library_raises_is_one_document_that_is_refused(
    error, code, said, request_for, monkeypatch
):
    def fails(_):
        raise error

    monkeypatch.setattr(pypdfium2, "PdfDocument", fails)
    reply = child._answer(request_for(PDF, "pdf"))
    assert reply.documents == [(None, child.ReadFailure(said, "a file", code))]
    assert reply.missing is None


def test_a_library_that_is_not_installed_is_named(request_for, monkeypatch):
    monkeypatch.delitem(sys.modules, "konko_async.documents._pdf", raising=False)
    monkeypatch.setitem(sys.modules, "pypdfium2", None)
    reply = child._answer(request_for(PDF, "pdf"))
    assert (reply.documents, reply.missing) == ([], "pypdfium2")


# -- the process -------------------------------------------------------------------------------------


def test_the_child_answers_until_its_input_ends_and_prints_nothing_among_replies(
    request_for, monkeypatch, capfd
):
    def prints(_):
        os.write(1, b"a library talks")
        raise RuntimeError("no")

    requests = io.BytesIO()
    for kind in ("pdf", "text"):
        data = PDF if kind == "pdf" else b"Text."
        child.write_frame(requests, msgspec.msgpack.encode(request_for(data, kind)))
    requests.seek(0)
    monkeypatch.setattr(pypdfium2, "PdfDocument", prints)
    monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(buffer=requests))
    monkeypatch.setattr(sys, "argv", ["child", "-1"])  # no limit for the process of the tests
    reader, writer = os.pipe()
    kept = os.dup(1)
    try:
        os.dup2(writer, 1)
        child.main()
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(writer)
    with os.fdopen(reader, "rb") as replies:
        found = [child.read_frame(replies) for _ in range(3)]
    assert found[2] is None
    one, two = (msgspec.msgpack.decode(body, type=child.ReadReply) for body in found[:2])
    # The same file: only the second request finds what was written last.
    assert [one.documents[0][1].code, two.documents[0][0].text] == ["broken", "Text."]
    assert "a library talks" in capfd.readouterr().err


def until_asked(pid):
    """Wait until a request is in the standard input of a process, which reads nothing."""
    with Path(f"/proc/{pid}/fd/0").open("rb", buffering=0) as pipe:
        assert select.select([pipe], [], [], 60)[0]


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such limits")
def test_memory_is_bounded_for_good_and_a_lower_bound_is_no_error():
    child._limit_memory(-1)
    code = """
import os, resource
from konko_async.documents._child import _limit_memory
_limit_memory(2**34)
print(resource.getrlimit(resource.RLIMIT_AS))
if os.geteuid() == 0:
    os.setuid(65534)  # root may raise it again
_limit_memory(2**35)
print(resource.getrlimit(resource.RLIMIT_AS))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == f"({2**34}, {2**34})\n" * 2, done.stderr


def test_readers_fit_the_machine():
    with Readers() as usual, Readers(3) as given:
        assert usual.workers == min(os.cpu_count(), 8)
        assert given.workers == 3


@pytest.mark.skipif(
    sys.platform != "linux", reason="/proc shows the pipes of a process on Linux only"
)
def test_a_worker_keeps_its_process_and_replaces_one_that_died(tmp_path):
    page = tmp_path / "a.txt"
    page.write_text("Text.")

    def read(name):
        return readers.submit(page, name, "text", field=None, encoding=None)

    with Readers(workers=1) as readers:
        pids = []
        for _ in range(2):
            (found,) = read("a").result()
            assert found.text == "Text."
            (reader,) = readers._readers
            pids.append(reader._process.pid)
        assert len(set(pids)) == 1, "starting one takes longer than most documents"
        # Not by the clock: the parent must not say that it took too long.
        os.kill(pids[0], signal.SIGSTOP)
        os.waitid(os.P_PID, pids[0], os.WSTOPPED)  # else it might still read what comes
        lost = read("b")
        until_asked(pids[0])
        os.kill(pids[0], signal.SIGKILL)
        (error,) = lost.result()
        assert isinstance(error, DocumentError)
        assert (error.code, error.name) == ("broken", "b")
        (found,) = read("c").result()
        assert found.text == "Text."
        assert reader._process.pid != pids[0]
    assert reader._process is None


def test_field_and_encoding_reach_the_child(tmp_path):
    rows = tmp_path / "a.jsonl"
    rows.write_bytes('{"text": "no", "note": "Grüße"}\n'.encode("latin-1"))
    with Readers(workers=1) as readers:
        (found,) = readers.submit(rows, "a", "jsonl", field="note", encoding="latin-1").result()
    assert found.text == "Grüße"


def test_a_document_that_takes_too_long_is_told_from_one_that_is_broken(tmp_path):
    page = tmp_path / "a.txt"
    page.write_text("Text.")
    with Readers(workers=1, seconds=0.001) as readers:  # starting a process takes longer
        (error,) = readers.submit(page, "a", "text", field=None, encoding=None).result()
    assert (error.code, error.name) == ("timeout", "a")


def test_what_waits_is_not_read_any_more_once_nobody_wants_it(tmp_path):
    page = tmp_path / "a.txt"
    page.write_text("Text.")
    with Readers(workers=1) as readers:
        futures = [readers.submit(page, "a", "text", field=None, encoding=None) for _ in range(30)]
        futures[0].result()
    assert futures[-1].cancelled()


def test_a_reader_that_was_stopped_starts_no_process(tmp_path):
    """Its thread may have gone on to the next file at this moment."""
    page = tmp_path / "a.txt"
    page.write_text("Text.")
    with Readers(workers=1) as readers:
        readers.submit(page, "a", "text", field=None, encoding=None).result()
        (reader,) = readers._readers
        reader.stop()
        assert readers.submit(page, "b", "text", field=None, encoding=None).result() == []
        assert reader._process is None
