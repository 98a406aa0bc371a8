"""Detects the format of an input, from its name and its first bytes."""

from __future__ import annotations

from pathlib import PurePath
from typing import Final

import msgspec

from konko_async.batch._errors import BatchInputError
from konko_async.batch._input.record_splitter import Splitter
from konko_async.batch._input.row_parser import Format
from konko_async.batch._input.table import Table, split_fields

__all__ = ["HEAD_BYTES", "sniff", "table_columns"]

HEAD_BYTES: Final = 64 * 1024
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_COMPRESSIONS = frozenset({".gz", ".xz", ".bz2", ".zst"})
_TEXTS = frozenset({".txt", ".md", ".text", ".rst"})
_decode = msgspec.json.Decoder().decode


def sniff(name: str, head: bytes) -> Format:
    """Return the format of a file.

    Args:
        name: its name; ``-`` for a pipe.
        head: its first bytes.

    Raises:
        BatchInputError: it is empty, in UTF-16, or its format cannot be recognised.
    """
    _refuse_known(name, head)
    ending = _ending(name)
    if ending in {".csv", ".tsv", ".tab"}:
        return "csv"
    # Before the other endings of text: a lone .txt holds a prompt
    # on each line, a lone .md is one text.
    if ending == ".txt":
        return "lines"
    if ending in _TEXTS:
        return "texts"
    splitter = Splitter(max_bytes=HEAD_BYTES)
    # A first line that is longer than the head does not end in it: flush() gives its beginning.
    pieces = splitter.feed(head) or splitter.flush()
    if not pieces:
        raise BatchInputError(f"{name}: the input has no rows")
    first = pieces[0].data or b""
    if not first.lstrip().startswith((b"{", b'"')) and ending not in {".jsonl", ".ndjson", ".json"}:
        raise BatchInputError(
            f"{name}: neither JSON lines nor CSV by its name; say format= "
            '("openai", "jsonl", "csv", "lines" or "texts")'
        )
    return "openai" if _is_openai(first) else "jsonl"


def _ending(name: str) -> str:
    """The ending of a name, without that of a compression."""
    path = PurePath(name)
    if path.suffix.lower() in _COMPRESSIONS:
        path = path.with_suffix("")
    return path.suffix.lower()


def _is_openai(line: bytes) -> bool:
    try:
        value = _decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return b'"body"' in line  # a damaged first line is reported as what it was meant to be
    return isinstance(value, dict) and ("body" in value or {"custom_id", "url"} <= value.keys())


def table_columns(name: str, head: bytes) -> tuple[list[str], str]:
    """Return the columns of a table and what parts them: a comma, a semicolon or a tab.

    Raises:
        BatchInputError: no header, or one with an empty or repeated name.
    """
    found: list[str] = []
    best = ","
    # The one that gives most columns; the comma comes first and so wins a tie.
    for delimiter in ",;\t":
        splitter = Splitter(max_bytes=HEAD_BYTES, table=Table(delimiter))
        pieces = splitter.feed(head) or splitter.flush()
        if not pieces:
            raise BatchInputError(f"{name}: the input has no rows")
        header = (pieces[0].data or b"").decode("utf-8", "replace")
        fields = [field.strip() for field in split_fields(header, delimiter)]
        if len(fields) > len(found):
            found, best = fields, delimiter
    for place, column in enumerate(found):
        if not column or column in found[:place]:
            what = "is empty" if not column else f"{column!r:.60} comes twice"
            raise BatchInputError(f"{name}: line 1: the header's column {place + 1} {what}")
    return found, best


def _refuse_known(name: str, head: bytes) -> None:
    """Refuse formats that are known and cannot be read, and say what to do."""
    if head.startswith(_UTF16):
        raise BatchInputError(f"{name}: it is in UTF-16; convert it to UTF-8 first")
    if head.startswith((b"PAR1", b"ARROW1")):
        raise BatchInputError(
            f"{name}: this is Parquet or Arrow, which can be read from a file, and not from a pipe"
        )
    if head.startswith(b"PK\x03\x04"):
        raise BatchInputError(
            f"{name}: this is a spreadsheet (or another zip file), which cannot be read; save it "
            "as CSV in UTF-8, or give run_batch() a frame: pandas.read_excel(...)"
        )
