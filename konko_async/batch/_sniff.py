"""What kind of input it is, from its name and its first bytes."""

from __future__ import annotations

import csv
from pathlib import PurePath
from typing import Final

import msgspec

from konko_async.batch._errors import BatchInputError
from konko_async.batch._rows import Format
from konko_async.batch._splitter import Splitter

__all__ = ["HEAD_BYTES", "csv_columns", "sniff"]

HEAD_BYTES: Final = 64 * 1024
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_TEXTS = frozenset({".txt", ".md", ".text", ".rst"})
_decode = msgspec.json.Decoder().decode


def sniff(name: str, head: bytes) -> Format:
    """Return the format of a file.

    Args:
        name: its name; ``-`` for a pipe.
        head: its first bytes.

    Raises:
        BatchInputError: it is empty, in UTF-16, or not to be made out.
    """
    if head.startswith(_UTF16):
        raise BatchInputError(f"{name}: it is in UTF-16; convert it to UTF-8 first")
    ending = PurePath(name).suffix.lower()
    if ending in {".csv", ".tsv"}:
        return "csv"
    if ending in _TEXTS:
        return "texts"
    splitter = Splitter(max_bytes=HEAD_BYTES)
    pieces = splitter.feed(head) or splitter.flush()
    if not pieces:
        raise BatchInputError(f"{name}: the input has no rows")
    first = pieces[0].data or b""
    if not first.lstrip().startswith((b"{", b'"')) and ending not in {".jsonl", ".ndjson", ".json"}:
        raise BatchInputError(
            f"{name}: neither JSON lines nor CSV by its name; say format= "
            '("openai", "jsonl", "csv" or "texts")'
        )
    return "openai" if _is_openai(first) else "jsonl"


def _is_openai(line: bytes) -> bool:
    try:
        value = _decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return b'"body"' in line  # a bad first line should be told of as what it was to be
    return isinstance(value, dict) and ("body" in value or {"custom_id", "url"} <= value.keys())


def csv_columns(name: str, header: bytes | None) -> tuple[list[str], str]:
    """Return the columns of a CSV file and what parts them: a comma, a semicolon or a tab.

    Raises:
        BatchInputError: no header, or one with an empty or repeated name.
    """
    if header is None:
        raise BatchInputError(f"{name}: the input has no rows")
    text = header.decode("utf-8", "replace")
    delimiter = max(",;\t", key=text.count)
    columns = [column.strip() for column in next(csv.reader([text], delimiter=delimiter))]
    for place, column in enumerate(columns):
        if not column or column in columns[:place]:
            what = "is empty" if not column else f"{column!r:.60} comes twice"
            raise BatchInputError(f"{name}: line 1: the header's column {place + 1} {what}")
    return columns, delimiter
