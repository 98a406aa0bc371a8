"""Converts inputs that are not text files (Parquet, frames, URLs) to JSON lines, one per row."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO, Final

import msgspec

from konko_async.batch._data.arrow_table import ArrowTable, is_arrow_file, is_frame
from konko_async.batch._data.storage import download
from konko_async.batch._errors import BatchInputError
from konko_async.batch._input.prompt_template import Template
from konko_async.batch._options import Options

__all__ = ["Spool", "open_spool"]

_ROWS: Final = 1024
_REQUEST: Final = ("custom_id", "method", "url", "body")
Tick = Callable[[], object]


def _plain(value: Any) -> Any:
    """Return what JSON can carry, for values of types that msgspec does not know."""
    return value.item() if hasattr(value, "item") else str(value)


_encoder: Final = msgspec.json.Encoder(enc_hook=_plain)


class Spool:
    """What an input was put into.

    Attributes:
        file: without a name; text of a format that is recognised, as any input.
        table: the input itself, if pyarrow reads it.
        opened: what is open for it.
        close: closes that.
    """

    def __init__(self, file: BinaryIO, table: ArrowTable | None, opened: ExitStack) -> None:
        self.file = file
        self.table = table
        self.opened = opened
        self.close = opened.close


def open_spool(options: Options, tick: Tick) -> Spool | None:
    """Put an input into a temporary file beside the output. Blocks.

    Returns:
        That; None where the input can be read as it is.

    Raises:
        BatchInputError: it cannot be read.
        ConfigurationError: what reads it is not installed.
    """
    with ExitStack() as opened:
        found = _open(options, opened, tick)
        if found is None:
            return None
        file, table = found
        file.seek(0)
        return Spool(file, table, opened.pop_all())


def _open(
    options: Options, opened: ExitStack, tick: Tick
) -> tuple[BinaryIO, ArrowTable | None] | None:
    value = options.data
    if value is not None and not isinstance(value, str):
        table = ArrowTable.of_frame(value) if is_frame(value) else None
        return _written(options, opened, _lines(options, table or value, tick)), table
    path = options.input
    if value is not None:
        file = _temporary(options, opened)
        download(value, file, tick)
        if not is_arrow_file(_head(file)):
            return file, None
        table = ArrowTable.of_files([(path, file)])
    else:
        paths = _arrow_files(path)
        if not paths:
            return None
        files = [opened.enter_context(Path(name).open("rb")) for name in paths]  # noqa: SIM115 - the stack closes them
        table = ArrowTable.of_files(list(zip(paths, files, strict=True)))
    return _written(options, opened, _lines(options, table, tick)), table


def _arrow_files(path: str) -> list[str]:
    """Return the Parquet or Arrow files that an input names; none if it is something else."""
    place = Path(path)
    endings = (".parquet", ".pq", ".arrow", ".feather")
    if place.is_dir():
        names = sorted(str(p) for p in place.rglob("*") if p.name.lower().endswith(endings))
        return [name for name in names if Path(name).is_file()]
    if not place.is_file():
        folder, pattern = place.parent, place.name
        if not any(sign in pattern for sign in "*?[") or not pattern.lower().endswith(endings):
            return []
        return sorted(str(found) for found in folder.glob(pattern) if found.is_file())
    with place.open("rb") as file:
        return [path] if is_arrow_file(file.read(8)) else []


def _head(file: BinaryIO) -> bytes:
    file.seek(0)
    return file.read(8)


def _temporary(options: Options, opened: ExitStack) -> BinaryIO:
    # Beside the output, as everything that may be large: /tmp may be in memory.
    folder = None if options.output == "-" else str(Path(options.output).parent)
    file: BinaryIO = opened.enter_context(tempfile.TemporaryFile(dir=folder, buffering=0))  # noqa: SIM115 - the stack closes it
    return file


def _written(options: Options, opened: ExitStack, lines: Iterator[bytes]) -> BinaryIO:
    file = _temporary(options, opened)
    for data in lines:
        view = memoryview(data)
        while view:
            view = view[file.write(view) :]
    return file


def _lines(options: Options, rows: Any, tick: Tick) -> Iterator[bytes]:
    """Yield lines of JSON, many at a time."""
    count = 0
    for part in _parts(options, rows):
        tick()
        count += len(part)
        try:
            yield _encoder.encode_lines(part)
        except (TypeError, ValueError) as error:
            problem = f"a row of the {count - len(part) + 1}th to {count}th cannot be JSON: {error}"
            raise BatchInputError(f"{options.input}: {problem}") from None
    if not count:
        raise BatchInputError(f"{options.input}: the input has no rows")


def _parts(options: Options, rows: Any) -> Iterator[list[Any]]:
    if not isinstance(rows, ArrowTable):
        part: list[Any] = []
        for row in rows:
            part.append(row)
            if len(part) == _ROWS:
                yield part
                part = []
        if part:
            yield part
        return
    columns, change = _columns(options, rows)
    for batch in rows.batches(columns):
        part = batch.to_pylist()
        yield part if change is None else [change(row) for row in part]


def _columns(
    options: Options, table: ArrowTable
) -> tuple[list[str] | None, Callable[[dict[str, Any]], Any] | None]:
    """Return the columns that rows are made of, and what has to be done to a row."""
    if options.prompt is not None:
        # The prompt's fields, and what names a row: the others would be written for nothing.
        template = Template(options.prompt)
        template.check(table.names)
        names = {*template.candidates, "custom_id", "id", options.id_column}
        return [name for name in table.names if name in names], None
    if "body" in table.names:
        return [name for name in _REQUEST if name in table.names], _request
    return None, _without_nulls


def _request(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row of OpenAI's batch format; its body may be a struct, or JSON as text."""
    body = row["body"]
    if isinstance(body, (str, bytes)):
        # What is no JSON is reported with its line when the input is checked.
        with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError):
            body = msgspec.json.decode(body)
    return _without_nulls({"url": "/v1/chat/completions", **row, "body": body})  # type: ignore[no-any-return]  # a dict gives one


def _without_nulls(value: Any) -> Any:
    """Return a value without fields that are null: a column has a value for each of its rows."""
    if isinstance(value, dict):
        return {name: _without_nulls(v) for name, v in value.items() if v is not None}
    return [_without_nulls(v) for v in value] if isinstance(value, list) else value
