"""Resumes an output: reads what earlier runs did, and what is left to do."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from konko_async.batch._errors import BatchChangedError, BatchOutputError
from konko_async.batch._input.open import Input, Tick, translated
from konko_async.batch._input.record_splitter import Piece
from konko_async.batch._input.row_parser import Row, RowError
from konko_async.batch._input.validate import check_input
from konko_async.batch._options import Options
from konko_async.batch._output.journal import VERSION, Checked, Header, Journal
from konko_async.batch._output.latencies import RowLatencies
from konko_async.batch._output.ledger import Ledger
from konko_async.batch._output.pipe import PipeStore
from konko_async.batch._output.result_lines import invalid_line
from konko_async.batch._output.rewrite import (
    finish_replacing,
    match_rows,
    replace_output,
    without_failed,
)
from konko_async.batch._output.store import OutputStore
from konko_async.batch._pricing import Prices

__all__ = ["check_all", "done_before", "open_journal", "prepare"]


def open_journal(options: Options) -> Journal:
    """Open and lock the journal of the output.

    Raises:
        BatchLockedError: another run has it.
        BatchOutputError: the output cannot be used.
    """
    output = options.output
    if Path(output).is_dir():
        raise BatchOutputError(f"{output} is a folder; the output is one file")
    if options.input != "-" and _same(options.input, output):
        raise BatchOutputError(f"{output} is the input; give another output")
    return Journal(_journal_path(options), options.files)


def _journal_path(options: Options) -> str:
    return f"{options.output}.journal"


def _same(one: str, other: str) -> bool:
    try:
        return Path(one).samefile(other)
    # One of the two does not exist yet.
    except OSError:
        return False


def done_before(options: Options) -> Ledger:
    """Return what the last checkpoint of an earlier run says; changes nothing.

    Raises:
        BatchLockedError: a run has it open.
    """
    if options.output == "-" or options.restart or not Path(_journal_path(options)).exists():
        return Ledger()
    with closing(open_journal(options)) as journal:
        return journal.ledger


def prepare(
    options: Options, found: Input, journal: Journal, prices: Prices, tick: Tick
) -> OutputStore:
    """Resume the output, or begin it; validate the input unless an earlier run did.

    Blocks: it reads the whole input.

    Raises:
        BatchError: the run cannot begin; nothing was sent.
    """
    return translated(options.input, lambda: _prepare(options, found, journal, prices, tick))


def _prepare(
    options: Options, found: Input, journal: Journal, prices: Prices, tick: Tick
) -> OutputStore:
    fingerprint = found.fingerprint(tick)
    # Before a replacement is finished: the emptied journal announces none any more.
    if options.restart:
        _drop(options, journal)
    finish_replacing(options.output, journal, options.files)
    header = Header(VERSION, Path(options.input).name, fingerprint, parts=found.parts)
    # Without a journal, the file may be anybody's.
    if journal.header is None and _size(options.output):
        _refuse_unknown(options)
    elif journal.header is None:
        journal.begin(header)
    if journal.checked is not None:
        # Rows must get the ids under which the earlier run wrote them.
        found.reader.numbered = journal.checked.numbered
    store = _open_store(options, journal, prices)
    options.files.sync_directory(str(Path(options.output).parent))  # both may be new
    try:
        store = _adapt(options, found, store, header, prices=prices, tick=tick)
        if journal.checked is None:
            checked = _check_all(options, found, store, tick)
            # First the invalid rows are on the disk, then the journal says that all of them are.
            store.save()
            journal.check(checked)
    except BaseException:
        store.close_output()
        raise
    return store


def _size(path: str) -> int:
    try:
        return Path(path).stat().st_size
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


def _open_store(
    options: Options,
    journal: Journal,
    prices: Prices,
    *,
    lasts: bool = False,
    latencies: RowLatencies | None = None,
) -> OutputStore:
    store = OutputStore(
        options.output,
        journal,
        options.files,
        rows=options.checkpoint_rows,
        seconds=options.checkpoint_seconds,
    )
    try:
        store.recover(prices, lasts=lasts, latencies=latencies)
    except BaseException:
        store.close_output()
        raise
    return store


def _adapt(
    options: Options,
    found: Input,
    store: OutputStore,
    header: Header,
    *,
    prices: Prices,
    tick: Tick,
) -> OutputStore:
    """Make the output fit an input that has changed, and drop failed rows to be retried."""
    journal, files, path = store.journal, options.files, options.output
    before = journal.header
    if before is None or before.fingerprint != header.fingerprint:
        if store.end == 0:
            journal.begin(header)  # nothing was done: a corrected input does not count as changed
        else:
            _allow_change(options, before, header)
            size = match_rows(path, found.source, found.reader, files=files, tick=tick)
            store = _replaced(options, store, header, size, prices=prices)
    if options.retry_failed and store.ledger.failed:
        # Kept, as replacing the output makes the journal forget it.
        checked = journal.checked
        latencies = RowLatencies(path)
        latencies.advance()
        size = without_failed(path, files, tick)
        store = _replaced(options, store, header, size, prices=prices, latencies=latencies)
        # The lines of invalid rows went with the failed ones, and only a new check writes them
        # again; without any, the input need not be read once more.
        if checked is not None and not checked.invalid:
            journal.check(checked)
    return store


def _replaced(
    options: Options,
    store: OutputStore,
    header: Header,
    size: int,
    *,
    prices: Prices,
    latencies: RowLatencies | None = None,
) -> OutputStore:
    store.close_output()
    replace_output(options.output, store.journal, header, size, options.files)
    # The new file was on the disk as a whole before it took the old one's place.
    return _open_store(options, store.journal, prices, lasts=True, latencies=latencies)


def _allow_change(options: Options, before: Header | None, now: Header) -> None:
    if options.on_changed_input == "redo":
        return
    parts = {} if before is None else before.parts
    # Journals of earlier versions have no parts: what they do not name counts as unchanged.
    changed = [name for name, part in now.parts.items() if parts.get(name, part) != part]
    what = " and the ".join(changed) or "input, prompt, model or parameters"
    begun = "" if before is None else f" (its input was {before.input})"
    raise BatchChangedError(
        f"{options.input}: {options.output} was begun{begun} with another {what}; "
        'on_changed_input="redo" keeps the answers to requests that are the same and makes the '
        "others, restart=True starts anew, another output keeps both"
    )


def check_all(
    options: Options,
    found: Input,
    store: PipeStore | None,
    tick: Tick,
    each: Callable[[Row], object] | None = None,
) -> Checked:
    """Check all rows of an input whose answers go to a pipe, or nowhere. Blocks.

    Raises:
        BatchError: as for :func:`~konko_async.batch.run_batch`.
    """
    return translated(options.input, lambda: _check_all(options, found, store, tick, each))


def _check_all(
    options: Options,
    found: Input,
    store: OutputStore | PipeStore | None,
    tick: Tick,
    each: Callable[[Row], object] | None = None,
) -> Checked:
    """Check all rows; with ``skip_invalid``, invalid ones go to the output as failed."""

    def invalid(index: int, piece: Piece, error: RowError) -> None:
        if store is not None and options.takes(index):
            store.add_invalid(index, invalid_line(index, piece.line, error.custom_id, str(error)))

    checked = check_input(
        found.source,
        found.reader,
        shown=found.shown,
        invalid=invalid if options.skip_invalid else None,
        tick=tick,
        each=each,
    )
    if checked.numbered:
        options.notice(
            'the field "id" is the same in several rows: rows are named by their numbers, row-1 '
            "(id_column= names another field)"
        )
    return checked
