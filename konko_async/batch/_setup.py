"""Taking up what was done before, and finding out what is left to do."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from konko_async.batch._check import check_input
from konko_async.batch._errors import BatchChangedError, BatchOutputError
from konko_async.batch._journal import VERSION, Checked, Header, Journal, Ledger
from konko_async.batch._lines import invalid_line
from konko_async.batch._open import Input, Tick, translated
from konko_async.batch._options import Options
from konko_async.batch._pipe import PipeStore
from konko_async.batch._pricing import Prices
from konko_async.batch._rewrite import (
    finish_replacing,
    match_rows,
    replace_output,
    without_failed,
)
from konko_async.batch._rows import Row, RowError
from konko_async.batch._splitter import Piece
from konko_async.batch._store import Store

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


def prepare(options: Options, found: Input, journal: Journal, prices: Prices, tick: Tick) -> Store:
    """Take up what was done before, or begin; check the input if that was not done yet.

    Blocks: it reads the whole input.

    Raises:
        BatchError: the run cannot begin; nothing was sent.
    """
    return translated(options.input, lambda: _prepare(options, found, journal, prices, tick))


def _prepare(options: Options, found: Input, journal: Journal, prices: Prices, tick: Tick) -> Store:
    fingerprint = found.fingerprint(tick)
    if options.restart:
        _drop(options, journal)
    finish_replacing(options.output, journal, options.files)
    header = Header(VERSION, Path(options.input).name, fingerprint)
    if journal.header is None and _size(options.output):
        _refuse_unknown(options)
    elif journal.header is None:
        journal.begin(header)
    store = _open_store(options, journal, prices)
    options.files.sync_directory(str(Path(options.output).parent))  # both may be new
    try:
        store = _adapt(options, found, store, header, prices=prices, tick=tick)
        if journal.checked is None:
            checked = _check_all(options, found, store, tick)
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
    options: Options, journal: Journal, prices: Prices, *, lasts: bool = False
) -> Store:
    store = Store(
        options.output,
        journal,
        options.files,
        rows=options.checkpoint_rows,
        seconds=options.checkpoint_seconds,
    )
    try:
        store.recover(prices, lasts=lasts)
    except BaseException:
        store.close_output()
        raise
    return store


def _adapt(
    options: Options, found: Input, store: Store, header: Header, *, prices: Prices, tick: Tick
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
    return _open_store(options, store.journal, prices, lasts=True)


def _allow_change(options: Options, before: Header | None) -> None:
    if options.on_changed_input == "redo":
        return
    begun = "" if before is None else f" (it was {before.input})"
    raise BatchChangedError(
        f"{options.input}: the input, or the prompt or parameters, are not what {options.output} "
        f'was begun with{begun}; on_changed_input="redo" keeps the answers to requests that are '
        "the same and makes the others, restart=True starts anew, another output keeps both"
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
    store: Store | PipeStore | None,
    tick: Tick,
    each: Callable[[Row], object] | None = None,
) -> Checked:
    """Check all rows; with ``skip_invalid`` those that are none go to the output as failed."""

    def invalid(index: int, piece: Piece, error: RowError) -> None:
        if store is not None:
            store.add_invalid(index, invalid_line(index, piece.line, error.custom_id, str(error)))

    return check_input(
        found.source,
        found.reader,
        shown=found.shown,
        invalid=invalid if options.skip_invalid else None,
        tick=tick,
        each=each,
    )
