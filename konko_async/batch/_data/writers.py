"""Writes tables: Parquet, Arrow, CSV, tab-separated, JSON lines."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from typing import Any, BinaryIO, Final

import msgspec

from konko_async.batch._data.storage import require

__all__ = ["ArrowWriter", "TextWriter", "infer_types"]

_encode: Final = msgspec.json.Encoder(enc_hook=str).encode
_GROUP: Final = 64 * 1024  # rows of a row group
_INT64: Final = range(-(2**63), 2**63)


class TextWriter:
    """Writes rows as text.

    Args:
        file: takes the bytes.
        kind: ``csv``, ``tsv`` or ``jsonl``.
        columns: their names, in order.
    """

    def __init__(self, file: BinaryIO, kind: str, columns: list[str]) -> None:
        self._file = file
        self._columns = columns
        self._lines = kind == "jsonl"
        self._text = io.StringIO(newline="")
        # RFC 4180, 2: lines end with CRLF; nearly all that reads CSV takes a line feed, too.
        self._table = csv.writer(
            self._text, delimiter="\t" if kind == "tsv" else ",", lineterminator="\n"
        )
        if not self._lines:
            self._table.writerow(columns)
            self._flush()

    def write(self, rows: list[dict[str, Any]]) -> None:
        """Write rows; a column that a row does not have is empty there."""
        names = self._columns
        if self._lines:
            lines = (_encode({name: row.get(name) for name in names}) for row in rows)
            self._file.write(b"\n".join([*lines, b""]))
            return
        self._table.writerows([_cell(row.get(name)) for name in names] for row in rows)
        self._flush()

    def _flush(self) -> None:
        self._file.write(self._text.getvalue().encode("utf-8", "surrogatepass"))
        self._text.seek(0)
        self._text.truncate()

    def close(self) -> None:
        """Do nothing: the file is the caller's."""


def _cell(value: Any) -> Any:
    if value is None or isinstance(value, (str, int, float)):
        return value
    text = _encode(value)
    # A date or a decimal: its text, without the quotes of JSON.
    return msgspec.json.decode(text) if text.startswith(b'"') else text.decode()


class ArrowWriter:
    """Writes batches of pyarrow to Parquet or to an Arrow file.

    Args:
        file: takes the bytes.
        kind: ``parquet`` or ``arrow``.
        columns: names, each with its type: one of pyarrow's, or the name of one.
    """

    def __init__(self, file: BinaryIO, kind: str, columns: dict[str, Any]) -> None:
        self._pa = pa = require("pyarrow", kind)
        named = {
            "embedding": pa.list_(pa.float64()), "string": pa.string(), "int64": pa.int64(),
            "float64": pa.float64(), "bool": pa.bool_(), "null": pa.null(),
        }  # fmt: skip
        fields = [
            (name, named[kind_] if isinstance(kind_, str) else kind_)
            for name, kind_ in columns.items()
        ]
        self._schema = pa.schema(fields)
        if kind == "parquet":
            writer = require("pyarrow.parquet", kind).ParquetWriter
            self._writer = writer(file, self._schema, compression="zstd")
        else:
            self._writer = require("pyarrow.ipc", kind).new_file(file, self._schema)
        self._waiting: list[Any] = []
        self._rows = 0

    def write(self, rows: list[dict[str, Any]]) -> None:
        """Write rows."""
        arrays = [
            self._pa.array([_fitting(row.get(f.name), f.type) for row in rows], type=f.type)
            for f in self._schema
        ]
        self._put(self._pa.RecordBatch.from_arrays(arrays, schema=self._schema))

    def write_beside(self, own: Any, answers: list[dict[str, Any]]) -> None:
        """Write rows that are a batch already, with the columns of their answers."""
        arrays = []
        for field in self._schema:
            place = own.schema.get_field_index(field.name)
            if place >= 0:
                arrays.append(own.column(place).cast(field.type))
            else:
                values = [answer.get(field.name) for answer in answers]
                arrays.append(self._pa.array(values, type=field.type))
        self._put(self._pa.RecordBatch.from_arrays(arrays, schema=self._schema))

    def _put(self, batch: Any) -> None:
        # Row groups of some size: each costs its own statistics and pages.
        self._waiting.append(batch)
        self._rows += batch.num_rows
        if self._rows >= _GROUP:
            self._flush()

    def _flush(self) -> None:
        if self._waiting:
            self._writer.write_table(self._pa.Table.from_batches(self._waiting))
            self._waiting.clear()
            self._rows = 0

    def close(self) -> None:
        """Write the rest and the footer."""
        self._flush()
        self._writer.close()


def _fitting(value: Any, kind: Any) -> Any:
    """Return a value as its column has it: JSON where a column of texts holds something else."""
    if value is not None and str(kind) == "string" and not isinstance(value, str):
        return _encode(value).decode()
    return value


def infer_types(rows: Iterable[dict[str, Any]]) -> dict[str, str]:
    """Return the type of each column that rows of JSON have, in the order in which they appear."""
    seen: dict[str, set[str]] = {}
    for row in rows:
        for name, value in row.items():
            seen.setdefault(name, set()).add(_kind(value))
    return {name: _common(kinds - {"null"}) for name, kinds in seen.items()}


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "int64" if value in _INT64 else "string"
    return "float64" if isinstance(value, float) else "string"


def _common(kinds: set[str]) -> str:
    if len(kinds) == 1:
        return next(iter(kinds))
    return "float64" if kinds == {"int64", "float64"} else "string"
