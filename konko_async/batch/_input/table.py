"""Splits tables into fields, with quotes as spreadsheets and as people write them. No I/O.

A quote opens a field only at its start, and closes it only before a delimiter or the line's end
(RFC 4180, 2). Any other quote stands for itself: most tools that write tab-separated text do not
quote at all, and 5" is an inch mark.
"""

from __future__ import annotations

from typing import AnyStr, Literal

import msgspec

__all__ = ["Table", "line_state", "split_fields", "swallows"]

State = Literal["closed", "open", "broken"]
_FEW_COLUMNS = 2


class Table(msgspec.Struct, frozen=True):
    """How a table is written.

    Attributes:
        delimiter: between fields.
        columns: how many fields a record has; 0: not known yet.
    """

    delimiter: str
    columns: int = 0


def _closing(text: AnyStr, start: int, quote: AnyStr) -> int:
    """Return where the quote is that closes a field; -1 if there is none. Doubled ones are text."""
    while True:
        place = text.find(quote, start)
        if place < 0 or text[place + 1 : place + 2] != quote:
            return place
        start = place + 2


def line_state(line: bytes, delimiter: bytes, *, inside: bool) -> State:
    """Return what the quotes of a line do to the record that it belongs to.

    Args:
        line: without its line feed.
        delimiter: between fields.
        inside: whether a quoted field of an earlier line is open.

    Returns:
        ``closed``: the record ends with the line; ``open``: a quoted field goes on in the next;
        ``broken``: the open field is closed in the middle of other text, so it was none.
    """
    # Most lines, which need no search for the ends of their fields.
    if not inside and b'"' not in line:
        return "closed"
    # In a file with CRLF, a quote at the end of the line stands before this byte.
    line = line.removesuffix(b"\r")
    place = 0
    if inside:
        end = _closing(line, 0, b'"')
        if end < 0:
            return "open"
        if end + 1 < len(line) and line[end + 1 : end + 2] != delimiter:
            return "broken"
        place = end + 2
    while place < len(line):
        if line[place : place + 1] == b'"':
            end = _closing(line, place + 1, b'"')
            if end < 0:
                return "open"
            if end + 1 == len(line) or line[end + 1 : end + 2] == delimiter:
                place = end + 2
                continue
        place = line.find(delimiter, place) + 1
        if not place:
            break
    return "closed"


def split_fields(record: str, delimiter: str) -> list[str]:
    """Return the fields of a whole record."""
    if '"' not in record:
        return record.split(delimiter)
    fields = []
    place = 0
    while True:
        if record[place : place + 1] == '"':
            end = _closing(record, place + 1, '"')
            if end >= 0 and record[end + 1 : end + 2] in {"", delimiter}:
                fields.append(record[place + 1 : end].replace('""', '"'))
                if end + 1 >= len(record):
                    return fields
                place = end + 2
                continue
        end = record.find(delimiter, place)
        if end < 0:
            fields.append(record[place:])
            return fields
        fields.append(record[place:end])
        place = end + 1


def swallows(lines: list[bytes], table: Table) -> bool:
    """Whether a record of several lines looks like several records that stray quotes joined.

    So it does if each line after the first has all columns by itself, and begins as the record
    does: with a number, where there are only two columns, as prose may hold a comma.
    """
    if table.columns < _FEW_COLUMNS:
        return False
    delimiter = table.delimiter.encode()
    counts = {line.count(delimiter) for line in lines}
    if counts != {table.columns - 1}:
        return False
    firsts = [line.split(delimiter, 1)[0].strip(b'" ') for line in lines]
    return table.columns > _FEW_COLUMNS or all(first.isdigit() for first in firsts)
