"""Tables that pyarrow reads: Parquet and Arrow files, and frames of pandas, polars and others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, BinaryIO, Final

from konko_async import ConfigurationError
from konko_async.batch._data.storage import require
from konko_async.batch._errors import BatchInputError

__all__ = ["ArrowTable", "is_arrow_file", "is_frame"]

ROWS: Final = 1024  # of a batch: memory stays flat, however long the table is
_BUFFER: Final = 1 << 20  # bytes of each column that are read at once
_PARQUET: Final = b"PAR1"
_ARROW: Final = b"ARROW1"
_PANDAS_INDEX: Final = "__index_level_"


class ArrowTable:
    """A table that can be read again and again, in batches.

    Args:
        batches: starts reading it anew.
        schema: of its batches.
    """

    def __init__(self, batches: Callable[[], Iterator[Any]], schema: Any) -> None:
        self._batches = batches
        # Of pandas: not a column for the user, and another one for each slice.
        self.names: list[str] = [n for n in schema.names if not n.startswith(_PANDAS_INDEX)]
        self.schema = schema

    def batches(self, columns: Iterable[str] | None = None) -> Iterator[Any]:
        """Read it: ``pyarrow.RecordBatch`` of at most 1024 rows."""
        wanted = self.names if columns is None else [n for n in self.names if n in set(columns)]
        for batch in self._batches():
            for start in range(0, batch.num_rows, ROWS):
                yield batch.slice(start, ROWS).select(wanted)

    @classmethod
    def of_files(cls, files: list[tuple[str, BinaryIO]]) -> ArrowTable:
        """Open Parquet or Arrow files of one schema, as one table.

        Raises:
            BatchInputError: one cannot be read, or has other columns.
            ConfigurationError: pyarrow is missing.
        """
        require("pyarrow", files[0][0])
        parts = [_part(name, file) for name, file in files]
        first = parts[0][0]
        for (name, _), (schema, _) in zip(files, parts, strict=True):
            if schema.names != first.names:
                raise BatchInputError(f"{name}: it has other columns than {files[0][0]}")

        def batches() -> Iterator[Any]:
            for (name, _), (_, read) in zip(files, parts, strict=True):
                try:
                    yield from read()
                except (OSError, ValueError) as error:
                    raise _unreadable(name, error) from None

        return cls(batches, first)

    @classmethod
    def of_frame(cls, frame: Any) -> ArrowTable:
        """Take a frame: of pandas or polars, a ``datasets.Dataset``, a ``pyarrow.Table``, ...

        Raises:
            ConfigurationError: it is none of these, or pyarrow is missing.
        """
        pa = require("pyarrow", f"an input of the type {type(frame).__name__}")
        if hasattr(frame, "collect") and hasattr(frame, "explain"):
            raise ConfigurationError("the input is a LazyFrame; pass frame.collect()")
        if hasattr(frame, "with_format") and hasattr(frame, "iter"):
            shown = frame.with_format("arrow")

            def read() -> Iterator[Any]:
                for table in shown.iter(batch_size=ROWS):
                    yield from table.to_batches()

            first = next(read(), None)
            if first is None:
                raise BatchInputError("the data set has no rows")
            return cls(read, first.schema)
        if not hasattr(frame, "__arrow_c_stream__"):  # pandas before 2.2
            frame = pa.Table.from_pandas(frame)
        if not len(frame):
            raise BatchInputError(f"the {type(frame).__name__} has no rows")

        def stream() -> Any:
            return pa.RecordBatchReader.from_stream(frame)

        return cls(lambda: iter(stream()), stream().schema)


def is_arrow_file(head: bytes) -> bool:
    """Whether a file that begins so is Parquet or Arrow."""
    return head.startswith((_PARQUET, _ARROW))


def is_frame(value: Any) -> bool:
    """Whether a value is a frame or data set, by what it can do."""
    return (
        hasattr(value, "__arrow_c_stream__")
        or (hasattr(value, "with_format") and hasattr(value, "iter"))
        or (hasattr(value, "collect") and hasattr(value, "explain"))
        or (hasattr(value, "to_dict") and hasattr(value, "iloc"))
    )


def _part(name: str, file: BinaryIO) -> tuple[Any, Callable[[], Iterator[Any]]]:
    """Return the schema of a file, and what reads it."""
    file.seek(0)
    head = file.read(8)
    file.seek(0)
    try:
        if head.startswith(_PARQUET):
            # Read ahead, it would hold all that it has read until the end; without a buffer, a
            # column of a whole row group at once.
            parquet = require("pyarrow.parquet", name).ParquetFile(
                file, pre_buffer=False, buffer_size=_BUFFER
            )
            return parquet.schema_arrow, lambda: iter(
                parquet.iter_batches(batch_size=ROWS, use_threads=False)
            )
        reader = require("pyarrow.ipc", name).open_file(file)
        return reader.schema, lambda: (
            reader.get_batch(number) for number in range(reader.num_record_batches)
        )
    except (OSError, ValueError) as error:
        problem = error
    raise _unreadable(name, problem)


def _unreadable(name: str, error: Exception) -> BatchInputError:
    said = " ".join(str(error).split())[:200]
    return BatchInputError(f"{name}: it is damaged, or not whole, and cannot be read: {said}")
