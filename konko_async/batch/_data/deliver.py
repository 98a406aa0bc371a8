"""Delivers the answers of a run: a table beside the rows' own fields, or lines in input order.

The file of lines and its journal are the truth, and are written as ever: exactly once, resumable.
From them and the input, what is delivered is made when the run has ended: beside its place, then
put there in one step. A crash leaves the old one or none, and the same call delivers again.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from struct import Struct
from typing import Any, BinaryIO, Final

from konko_async import ConfigurationError
from konko_async.batch._data.answer_columns import (
    COLUMNS,
    column_type,
    default_columns,
    read_answer,
    renamed_columns,
    row_of_line,
)
from konko_async.batch._data.storage import is_url, upload
from konko_async.batch._data.target import COMPRESSORS, TableTarget
from konko_async.batch._data.writers import ArrowWriter, TextWriter, infer_types
from konko_async.batch._errors import BatchOutputError
from konko_async.batch._input.open import Input
from konko_async.batch._options import Options
from konko_async.batch._output.store import lines_from

__all__ = ["check_columns", "deliver"]

_ROWS: Final = 1024
_ENTRY: Final = Struct("<QQ")  # where a line is, and how long
Tick = Callable[[], object]
Part = tuple[Any, list[dict[str, Any]]]  # a batch of pyarrow or None, and the same rows as dicts


class _Answers:
    """The lines of a run's output, by the number of their row.

    Where they stand is written into a temporary file, 16 bytes for each row. Rows are asked for in
    their order: a piece of it is in memory.
    """

    def __init__(self, path: str, rows: int, opened: ExitStack, tick: Tick) -> None:
        self._file = os.open(path, os.O_RDONLY)
        opened.callback(os.close, self._file)
        index = opened.enter_context(tempfile.TemporaryFile(dir=Path(path).parent))  # noqa: SIM115 - the stack closes it
        index.truncate(max(rows, 1) * _ENTRY.size)
        self._index = index.fileno()
        self._piece: tuple[int, bytes] = (-1, b"")
        place = 0
        for count, line in enumerate(lines_from(self._file, 0)):
            if count % _ROWS == 0:
                tick()
            entry = _ENTRY.pack(place, len(line))
            os.pwrite(self._index, entry, row_of_line(line) * _ENTRY.size)
            place += len(line)

    def line(self, row: int) -> bytes:
        """Return the line of a row; empty if it has none."""
        number, at = divmod(row, _ROWS)
        if self._piece[0] != number:
            size = _ROWS * _ENTRY.size
            self._piece = number, os.pread(self._index, size, number * size)
        place, length = _ENTRY.unpack_from(self._piece[1], at * _ENTRY.size)
        return os.pread(self._file, length, place) if length else b""


def check_columns(target: TableTarget | None, found: Input) -> None:
    """Refuse columns that there will not be, before anything is sent.

    Raises:
        ConfigurationError: there is no such column.
    """
    if target is None or target.columns is None or found.table is None:
        return
    for name in target.columns:
        if name not in found.table.names and column_type(name) is None:
            raise ConfigurationError(
                f"there is no column {name!r:.60}; the input has {', '.join(found.table.names)}, "
                f"and each answer {', '.join(COLUMNS)}"
            )


def deliver(options: Options, found: Input, target: TableTarget, rows: int, tick: Tick) -> None:
    """Write what the target wants. Blocks.

    Args:
        options: of the run.
        found: the input.
        target: what is written, and where.
        rows: of the input.
        tick: called now and then; what it raises ends the work.

    Raises:
        BatchOutputError: it cannot be written; the answers are safe.
    """
    try:
        with ExitStack() as opened:
            answers = _Answers(target.work, rows, opened, tick)
            local = f"{target.work if is_url(target.path) else target.path}.new"
            descriptor = options.files.create(local)
            opened.callback(_drop, local)
            with os.fdopen(descriptor, "wb", buffering=1 << 20) as file:
                _Delivery(options, found, target, answers, tick).write(file, rows)
                file.flush()
                os.fsync(file.fileno())
            if is_url(target.path):
                upload(local, target.path)
            else:
                options.files.replace(local, target.path)
    except OSError as error:
        problem = error.strerror or type(error).__name__
    else:
        return
    raise BatchOutputError(
        f"{target.shown} cannot be written: {problem}; the answers are safe in {target.work}, and "
        "the same call writes it again"
    )


def _drop(path: str) -> None:
    Path(path).unlink(missing_ok=True)


class _Delivery:
    """What is needed to write one target."""

    def __init__(
        self, options: Options, found: Input, target: TableTarget, answers: _Answers, tick: Tick
    ) -> None:
        self._found = found
        self._target = target
        self._answers = answers
        self._tick = tick
        self._embeddings = options.endpoint.endswith("embeddings")
        # Of typed answers: a column for each field of the value.
        self._values = {} if options.typed is None else options.typed.columns()
        self._own: dict[str, Any] = {}
        self._renamed: dict[str, str] = {}

    def write(self, file: BinaryIO, rows: int) -> None:
        """Write all rows that have an answer, in the order of the input."""
        with ExitStack() as opened:
            target = self._target
            if target.compression:
                file = opened.enter_context(COMPRESSORS[target.compression](file, "wb"))
            if target.as_table:
                self._write_table(file)
                return
            for row in range(rows):
                if row % _ROWS == 0:
                    self._tick()
                file.write(self._answers.line(row))

    def _write_table(self, file: BinaryIO) -> None:
        target, self._own = self._target, self._own_types()
        self._renamed = renamed_columns(self._own)
        names = target.columns or [
            *default_columns(self._own, embeddings=self._embeddings),
            *self._values,
        ]
        # A column that neither the rows nor answers have: empty, as rows of JSON may lack a field.
        types = {**self._values, **self._own}
        columns = {name: types.get(name) or column_type(name) or "null" for name in names}
        writer: Any
        if target.kind in {"parquet", "arrow"}:
            writer = ArrowWriter(file, target.kind, columns)
        else:
            writer = TextWriter(file, target.kind, list(columns))
        for batch, part in self._parts():
            self._tick()
            if batch is None:
                writer.write(part)
            elif isinstance(writer, ArrowWriter):
                writer.write_beside(batch, part)
            else:
                writer.write([{**a, **o} for a, o in zip(part, batch.to_pylist(), strict=True)])
        writer.close()

    def _own_types(self) -> dict[str, Any]:
        """Return the rows' own columns, each with its type."""
        found = self._found
        if found.recipe.format == "openai":
            return {}  # a request is no data
        if found.table is not None:
            return {name: found.table.schema.field(name).type for name in found.table.names}
        if found.reader.columns:
            return dict.fromkeys(found.reader.columns, "string")
        return infer_types(self._fields())

    def _fields(self) -> Iterator[dict[str, Any]]:
        for number, piece in enumerate(self._found.source.pieces()):
            if number % _ROWS == 0:
                self._tick()
            yield self._found.reader.fields(piece)

    def _parts(self) -> Iterator[Part]:
        if self._found.table is not None and self._own:
            yield from self._batches()
            return
        part: list[dict[str, Any]] = []
        reader = self._found.reader
        for number, piece in enumerate(self._found.source.pieces()):
            line = self._answers.line(number)
            if line:
                part.append({**self._read(line), **(reader.fields(piece) if self._own else {})})
            if len(part) == _ROWS:
                yield None, part
                part = []
        if part:
            yield None, part

    def _batches(self) -> Iterator[Part]:
        number = 0
        for batch in self._found.table.batches():
            lines = [self._answers.line(number + place) for place in range(batch.num_rows)]
            number += batch.num_rows
            answered = [place for place, line in enumerate(lines) if line]
            if answered:
                own = batch if len(answered) == len(lines) else batch.take(answered)
                yield own, [self._read(line) for line in lines if line]

    def _read(self, line: bytes) -> dict[str, Any]:
        answer = read_answer(line)
        for name, other in self._renamed.items():
            answer[other] = answer.pop(name, None)
        return answer
