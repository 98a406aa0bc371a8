"""Opens the input: a file, a folder, shards, or standard input."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from hashlib import blake2b
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from konko_async.batch._errors import BatchError, BatchInputError, BatchOutputError
from konko_async.batch._input.detect_format import HEAD_BYTES, sniff, table_columns
from konko_async.batch._input.files import find_files, json_lines, open_shard, unpacked
from konko_async.batch._input.row_parser import Format, Recipe, RowReader
from konko_async.batch._input.source import FileSource, FolderSource, RecordSource, ShardSource
from konko_async.batch._input.table import Table
from konko_async.batch._options import Options
from konko_async.batch._output.pipe import PipeSource, read_pipe

__all__ = ["Input", "Tick", "open_input", "open_pipe", "spool_stdin", "translated"]

T = TypeVar("T")
Tick = Callable[[], object]


class Input:
    """An input that is open.

    Attributes:
        shown: its name, for messages.
        recipe: how its records become rows.
        source: its records.
        reader: makes rows of them.
        places: how many records there are, if they are to be read by place; else 0.
    """

    def __init__(
        self, shown: str, recipe: Recipe, source: RecordSource, reader: RowReader, places: int
    ) -> None:
        self.places = places
        self.table: Any = None  # an ArrowTable, where the records were made of one
        self.more: ExitStack | None = None  # what else is open
        self.parts: dict[str, str] = {}  # hashes that show what has changed; see fingerprint()
        self.shown = shown
        self.recipe = recipe
        self.source = source
        self.reader = reader

    def close(self) -> None:
        """Close what is open for it; idempotent."""
        self.source.close()
        if self.more is not None:
            self.more.close()

    def fingerprint(self, tick: Tick) -> str:
        """Return a hash of the input and the recipe."""
        digest = blake2b(self.recipe.digest(), digest_size=16)
        content = self.source.digest(tick)
        digest.update(content)
        # Eight digits are enough: they only name what has changed, once the fingerprint differs.
        self.parts = {**self.recipe.parts(), "input": content[:4].hex()}
        return digest.hexdigest()


def _recipe_of(options: Options, form: Format) -> Recipe:
    """Return the recipe for rows of a format."""
    return Recipe(
        format=form,
        prompt=options.prompt,
        model=options.model,
        system=options.system,
        params=options.params,
        endpoint=options.endpoint,
        id_column=options.id_column,
        steps=[] if options.plan is None else options.plan.described(),
    )


def translated(shown: str, work: Callable[[], T]) -> T:
    """Run ``work``, and map errors of the input and of temporary files to a BatchError."""
    try:
        return work()
    except OSError as error:
        problem: BatchError = BatchInputError(f"{shown} cannot be read: {error.strerror}")
    # Ids and keys are kept in temporary files of SQLite: a full disk shows as its error.
    except sqlite3.Error as error:
        problem = BatchOutputError(f"a temporary file cannot be written: {error}")
    # Raised outside of the handlers, so that the cause is not shown a second time as its context.
    raise problem


def open_input(options: Options, spool: BinaryIO | None) -> Input:
    """Open the input.

    Args:
        options: of the run.
        spool: what came from standard input, if that is the input.

    Raises:
        BatchInputError: it cannot be read, or holds no rows.
        ConfigurationError: the options do not fit it.
    """
    return translated(options.input, lambda: _open_input(options, spool))


def _open_input(options: Options, spool: BinaryIO | None) -> Input:
    shown, form = options.input, options.format
    paths = [] if spool is not None else find_files(shown, form)
    if not paths and spool is None:
        if form not in {None, "texts"}:
            raise BatchInputError(f"{shown} is a folder without files of the format {form}")
        return _texts(options)
    if form == "texts" and spool is None:
        return _texts(options)
    with ExitStack() as opened:
        shards: list[tuple[str, FileSource]] = []
        first: tuple[Recipe, RowReader, Format, list[str]] | None = None
        for path in paths or [shown]:
            file = open_shard(path, options) if spool is None else unpacked(spool, path, options)
            opened.enter_context(file)
            head = file.read(HEAD_BYTES)
            file = opened.enter_context(json_lines(file, head, path, options))
            file.seek(0)
            # Read again: json_lines() may have put another file in this one's place.
            head = file.read(HEAD_BYTES)
            found = form or sniff(path, head)
            if found == "texts":
                _no_texts(spool)
                return _texts(options)
            recipe, reader, table = _recipe_and_reader(options, found, path, head)
            columns = reader.columns
            if first is None:
                first = recipe, reader, found, columns
            elif (found, columns) != first[2:]:
                raise BatchInputError(
                    f"{path}: it has another format or other columns than {paths[0]}"
                )
            shards.append((path, FileSource(file, table=table, max_bytes=options.max_line_bytes)))
        source = shards[0][1] if len(shards) == 1 else ShardSource(shards)
        # Compared with False, as 0 is a seed.
        places = source.index() if options.shuffle is not False else 0
        # From here on the source closes them.
        opened.pop_all()
    assert first is not None  # noqa: S101 - there is at least one file
    if first[2] == "lines":
        options.notice(f"{shown}: each line is a row (format=texts makes one row of a whole file)")
    return Input(shown, first[0], source, first[1], places)


def _no_texts(spool: BinaryIO | None) -> None:
    if spool is not None:
        raise BatchInputError("-: a pipe cannot be a folder of texts")


def _recipe_and_reader(
    options: Options, form: Format, name: str, head: bytes
) -> tuple[Recipe, RowReader, Table | None]:
    """Return the recipe for an input, and what makes rows by it."""
    columns: list[str] = []
    table = None
    if form == "csv":
        columns, delimiter = table_columns(name, head)
        table = Table(delimiter, len(columns))
    recipe = _recipe_of(options, form)
    reader = RowReader(recipe, columns=columns, delimiter=table.delimiter if table else ",")
    return recipe, reader, table


def _texts(options: Options) -> Input:
    recipe = _recipe_of(options, "texts")
    source = FolderSource(options.input, max_bytes=options.max_line_bytes)
    places = source.index() if options.shuffle is not False else 0
    return Input(options.input, recipe, source, RowReader(recipe), places)


async def spool_stdin(options: Options) -> BinaryIO:
    """Put standard input into a file without a name, beside the output: it can be read again.

    Raises:
        BatchOutputError: there is no room for it.
    """
    folder = None if options.output == "-" else Path(options.output).parent
    try:
        file: BinaryIO = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115 - the ExitStack closes it, or the caller
        with ExitStack() as opened:
            opened.enter_context(file)
            async for data in read_pipe(options.files.stdin()):
                file.write(data)
            file.seek(0)
            opened.pop_all()
    except OSError as error:
        problem = f"standard input cannot be put into a file: {error.strerror}"
    else:
        return file
    raise BatchOutputError(problem)


async def open_pipe(options: Options) -> tuple[PipeSource, RowReader]:
    """Open standard input to be read once, as it comes.

    Raises:
        BatchInputError: it is empty, or of no known format.
    """
    rest = read_pipe(options.files.stdin())
    head = b""
    async for data in rest:
        head += data
        # The first line that is not blank gives the format away. To wait for more would hold back
        # the rows of a program that writes them one by one.
        if b"\n" in head.lstrip() or len(head) >= HEAD_BYTES:
            break
    form = options.format or sniff("-", head)
    if form == "texts":
        raise BatchInputError("-: a pipe cannot be a folder of texts")
    _, reader, table = _recipe_and_reader(options, form, "-", head)
    return PipeSource(head, rest, table=table, max_bytes=options.max_line_bytes), reader
