"""Opening the input, whatever it is."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from hashlib import blake2b
from pathlib import Path
from typing import BinaryIO, TypeVar

from konko_async.batch._errors import BatchError, BatchInputError, BatchOutputError
from konko_async.batch._options import Options
from konko_async.batch._pipe import PipeSource, read_pipe
from konko_async.batch._rows import Format, Recipe, RowReader
from konko_async.batch._sniff import HEAD_BYTES, csv_columns, sniff
from konko_async.batch._source import FileSource, FolderSource, Source
from konko_async.batch._splitter import Splitter

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
        self, shown: str, recipe: Recipe, source: Source, reader: RowReader, places: int
    ) -> None:
        self.places = places
        self.shown = shown
        self.recipe = recipe
        self.source = source
        self.reader = reader

    def fingerprint(self, tick: Tick) -> str:
        """Return what tells the input and the recipe from others."""
        digest = blake2b(self.recipe.digest(), digest_size=16)
        digest.update(self.source.digest(tick))
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
    )


def translated(shown: str, work: Callable[[], T]) -> T:
    """Run ``work``; what the input's or a temporary file's fault is becomes one of our errors."""
    try:
        return work()
    except OSError as error:
        problem: BatchError = BatchInputError(f"{shown} cannot be read: {error.strerror}")
    except sqlite3.Error as error:
        problem = BatchOutputError(f"a temporary file cannot be written: {error}")
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
    if spool is None and Path(shown).is_dir():
        if form not in {None, "texts"}:
            raise BatchInputError(f"{shown} is a folder: its format is texts, not {form}")
        form = "texts"
    if form == "texts" and spool is None:
        return _texts(options)
    with ExitStack() as opened:
        file = spool or Path(shown).open("rb", buffering=0)  # noqa: SIM115 - closed on an error
        opened.enter_context(file)
        head = file.read(HEAD_BYTES)
        form = form or sniff(shown, head)
        if form == "texts":
            _no_texts(spool)
            return _texts(options)
        recipe, reader = _recipe_and_reader(options, form, head)
        source = FileSource(file, quoted=form == "csv", max_bytes=options.max_line_bytes)
        places = source.index() if options.shuffle is not False else 0
        opened.pop_all()
    return Input(shown, recipe, source, reader, places)


def _no_texts(spool: BinaryIO | None) -> None:
    if spool is not None:
        raise BatchInputError("-: a pipe cannot be a folder of texts")


def _recipe_and_reader(options: Options, form: Format, head: bytes) -> tuple[Recipe, RowReader]:
    """Return the recipe for an input, and what makes rows by it."""
    columns: list[str] = []
    delimiter = ","
    if form == "csv":
        columns, delimiter = csv_columns(options.input, _header(head))
    recipe = _recipe_of(options, form)
    return recipe, RowReader(recipe, columns=columns, delimiter=delimiter)


def _texts(options: Options) -> Input:
    recipe = _recipe_of(options, "texts")
    source = FolderSource(options.input, max_bytes=options.max_line_bytes)
    places = source.index() if options.shuffle is not False else 0
    return Input(options.input, recipe, source, RowReader(recipe), places)


def _header(head: bytes) -> bytes | None:
    splitter = Splitter(max_bytes=HEAD_BYTES, quoted=True)
    pieces = splitter.feed(head) or splitter.flush()
    return pieces[0].data if pieces else None


async def spool_stdin(options: Options) -> BinaryIO:
    """Put standard input into a file without a name, beside the output: it can be read again.

    Raises:
        BatchOutputError: there is no room for it.
    """
    folder = None if options.output == "-" else Path(options.output).parent
    try:
        file: BinaryIO = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115
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
        if b"\n" in head.lstrip() or len(head) >= HEAD_BYTES:
            break
    form = options.format or sniff("-", head)
    if form == "texts":
        raise BatchInputError("-: a pipe cannot be a folder of texts")
    _, reader = _recipe_and_reader(options, form, head)
    quoted = form == "csv"
    return PipeSource(head, rest, quoted=quoted, max_bytes=options.max_line_bytes), reader
