"""Opening the input and the output, and finding out what is left to do."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import sys
import tempfile
from collections.abc import Callable
from hashlib import blake2b
from typing import BinaryIO, TypeVar

from konko_async.batch._check import Ids, check_input
from konko_async.batch._errors import (
    BatchChangedError,
    BatchError,
    BatchInputError,
    BatchOutputError,
)
from konko_async.batch._journal import VERSION, Header, Journal
from konko_async.batch._lines import invalid_line
from konko_async.batch._options import Options
from konko_async.batch._pricing import Prices
from konko_async.batch._rewrite import (
    finish_replacing,
    match_rows,
    replace_output,
    without_failed,
)
from konko_async.batch._rows import Format, Recipe, RowError, RowReader
from konko_async.batch._sniff import HEAD_BYTES, csv_columns, sniff
from konko_async.batch._source import FileSource, FolderSource, Source
from konko_async.batch._splitter import Piece, Splitter
from konko_async.batch._store import Store

__all__ = ["Ids", "Input", "open_input", "open_journal", "prepare", "recipe_of", "translated"]

T = TypeVar("T")
Tick = Callable[[], object]


class Input:
    """An input that is open.

    Attributes:
        shown: its name, for messages.
        recipe: how its records become rows.
        source: its records.
        reader: makes rows of them.
    """

    def __init__(self, shown: str, recipe: Recipe, source: Source, reader: RowReader) -> None:
        self.shown = shown
        self.recipe = recipe
        self.source = source
        self.reader = reader

    def fingerprint(self, tick: Tick) -> str:
        """Return what tells the input and the recipe from others."""
        digest = blake2b(self.recipe.digest(), digest_size=16)
        digest.update(self.source.digest(tick))
        return digest.hexdigest()


def recipe_of(options: Options, form: Format) -> Recipe:
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


def open_input(options: Options) -> Input:
    """Open the input; a pipe is put into a temporary file first.

    Raises:
        BatchInputError: it cannot be read, or holds no rows.
        ConfigurationError: the options do not fit it.
    """
    return translated(options.input, lambda: _open_input(options))


def _open_input(options: Options) -> Input:
    shown, form = options.input, options.format
    if shown != "-" and os.path.isdir(shown):
        if form not in {None, "texts"}:
            raise BatchInputError(f"{shown} is a folder: its format is texts, not {form}")
        form = "texts"
    if form == "texts" and shown != "-":
        return _texts(options)
    file = _spool(options) if shown == "-" else open(shown, "rb", buffering=0)  # noqa: SIM115
    try:
        head = file.read(HEAD_BYTES)
        form = form or sniff(shown, head)
        if form == "texts":
            if shown == "-":
                raise BatchInputError("a pipe cannot be a folder of texts")
            file.close()
            return _texts(options)
        source = FileSource(file, quoted=form == "csv", max_bytes=options.max_line_bytes)
        columns, delimiter = csv_columns(shown, _header(head)) if form == "csv" else ([], ",")
        recipe = recipe_of(options, form)
        reader = RowReader(recipe, columns=columns, delimiter=delimiter)
    except BaseException:
        file.close()
        raise
    return Input(shown, recipe, source, reader)


def _texts(options: Options) -> Input:
    recipe = recipe_of(options, "texts")
    source = FolderSource(options.input, max_bytes=options.max_line_bytes)
    return Input(options.input, recipe, source, RowReader(recipe))


def _header(head: bytes) -> bytes | None:
    splitter = Splitter(max_bytes=HEAD_BYTES, quoted=True)
    pieces = splitter.feed(head) or splitter.flush()
    return pieces[0].data if pieces else None


def _spool(options: Options) -> BinaryIO:
    """Put standard input into a file without a name, beside the output: it can be read again."""
    folder = None if options.output == "-" else os.path.dirname(options.output) or "."
    file: BinaryIO = tempfile.TemporaryFile(dir=folder, buffering=0)  # type: ignore[assignment]  # noqa: SIM115
    place = sys.stdin.fileno()
    while data := os.read(place, HEAD_BYTES):
        if options.stop.requested:
            break
        file.write(data)
    file.seek(0)
    return file


def open_journal(options: Options) -> Journal:
    """Open and lock the journal of the output.

    Raises:
        BatchLockedError: another run has it.
        BatchOutputError: the output cannot be used.
    """
    output = options.output
    if os.path.isdir(output):
        raise BatchOutputError(f"{output} is a folder; the output is one file")
    with contextlib.suppress(OSError):
        if os.path.samefile(options.input, output):
            raise BatchOutputError(f"{output} is the input; give another output")
    return Journal(f"{output}.journal", options.files)


def prepare(options: Options, found: Input, journal: Journal, prices: Prices, tick: Tick) -> Store:
    """Take up what was done before, or begin; check the input if that was not done yet.

    Blocks: it reads the whole input.

    Raises:
        BatchError: the run cannot begin; nothing was sent.
    """
    fingerprint = found.fingerprint(tick)
    if options.restart:
        _drop(options, journal)
    finish_replacing(options.output, journal, options.files)
    header = Header(VERSION, os.path.basename(options.input), fingerprint)
    if journal.header is None and _size(options.output):
        _refuse_unknown(options)
    elif journal.header is None:
        journal.begin(header)
    store = _open_store(options, journal, prices)
    try:
        store = _adapt(options, found, store, header, prices, tick)
        if store.journal.checked is None:
            _check_all(options, found, store, tick)
    except BaseException:
        store.close_output()
        raise
    return store


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0


def _drop(options: Options, journal: Journal) -> None:
    """Empty the output before the journal: what a crash leaves between is never taken for ours."""
    files, output = options.files, options.output
    try:
        descriptor = files.open(output, os.O_RDWR | os.O_CREAT)
        try:
            files.truncate(descriptor, 0)
            files.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise BatchOutputError(f"{output} cannot be emptied: {error.strerror}") from None
    journal.reset()


def _refuse_unknown(options: Options) -> None:
    if options.on_changed_input == "redo":
        return
    raise BatchOutputError(
        f"{options.output} exists and has no journal ({options.output}.journal): give another "
        'output, or on_changed_input="redo" to take over its rows, or restart=True to write it anew'
    )


def _open_store(options: Options, journal: Journal, prices: Prices) -> Store:
    store = Store(
        options.output,
        journal,
        options.files,
        rows=options.checkpoint_rows,
        seconds=options.checkpoint_seconds,
    )
    try:
        store.recover(prices)
    except BaseException:
        store.close_output()
        raise
    return store


def _adapt(
    options: Options, found: Input, store: Store, header: Header, prices: Prices, tick: Tick
) -> Store:
    """Make the output fit an input that has changed, and drop failed rows to be retried."""
    journal, files, path = store.journal, options.files, options.output
    before = journal.header
    if before is None or before.fingerprint != header.fingerprint:
        if store.end == 0:
            journal.begin(header)  # nothing was done: a mended input is no change
        else:
            _allow_change(options, before)
            size = match_rows(path, found.source, found.reader, files=files, tick=tick)
            store = _replaced(options, store, header, size, prices)
    if options.retry_failed and store.ledger.failed:
        checked = journal.checked
        size = without_failed(path, files, tick)
        store = _replaced(options, store, header, size, prices)
        if checked is not None and not checked.invalid:
            journal.check(checked)
    return store


def _replaced(options: Options, store: Store, header: Header, size: int, prices: Prices) -> Store:
    store.close_output()
    replace_output(options.output, store.journal, header, size, options.files)
    return _open_store(options, store.journal, prices)


def _allow_change(options: Options, before: Header | None) -> None:
    if options.on_changed_input == "redo":
        return
    begun = "" if before is None else f" (it was {before.input})"
    raise BatchChangedError(
        f"{options.input}: the input, or the prompt or parameters, are not what {options.output} "
        f'was begun with{begun}; on_changed_input="redo" keeps the answers to requests that are '
        "the same and makes the others, restart=True starts anew, another output keeps both"
    )


def _check_all(options: Options, found: Input, store: Store, tick: Tick) -> None:
    """Check all rows; with ``skip_invalid`` those that are none go to the output as failed."""

    def invalid(index: int, piece: Piece, error: RowError) -> None:
        store.add_invalid(index, invalid_line(index, piece.line, error.custom_id, str(error)))

    checked = check_input(
        found.source,
        found.reader,
        shown=found.shown,
        invalid=invalid if options.skip_invalid else None,
        tick=tick,
    )
    store.save()
    store.journal.check(checked)
