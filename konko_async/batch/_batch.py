"""``run_batch``."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, Literal

from konko_async import AsyncKonko
from konko_async.batch._aside import Stopped, aside, until_stopped
from konko_async.batch._check import Estimator
from konko_async.batch._files import Files
from konko_async.batch._journal import Checked, Journal, Ledger
from konko_async.batch._open import Input, open_input, open_pipe, spool_stdin
from konko_async.batch._options import Options, piped
from konko_async.batch._pipe import PipeStore
from konko_async.batch._pricing import Price, Prices, fetch_prices
from konko_async.batch._progress import Progress, Tracker
from konko_async.batch._report import BatchReport
from konko_async.batch._rows import Format, Row
from konko_async.batch._run import Run
from konko_async.batch._setup import check_all, done_before, open_journal, prepare
from konko_async.batch._spending import unpriced
from konko_async.batch._stop import Stop
from konko_async.batch._workers import Workers

__all__ = ["run_batch"]

Path = str | os.PathLike[str]
_FILES = Files()


async def run_batch(
    client: AsyncKonko,
    input_path: Path,
    output_path: Path,
    *,
    format: Format | None = None,
    prompt: str | None = None,
    model: str | None = None,
    system: str | None = None,
    params: Mapping[str, Any] | None = None,
    endpoint: str = "/v1/chat/completions",
    max_concurrency: int = 256,
    restart: bool = False,
    on_changed_input: Literal["refuse", "redo"] = "refuse",
    retry_failed: bool = False,
    skip_invalid: bool = False,
    limit: int | None = None,
    shuffle: bool | int = False,
    max_cost: float | None = None,
    max_tokens_total: int | None = None,
    prices: Mapping[str, Price] | None = None,
    dry_run: bool = False,
    on_progress: Callable[[Progress], object] | None = None,
    progress_interval: float = 0.5,
    stop: Stop | None = None,
    checkpoint_rows: int = 1000,
    checkpoint_seconds: float = 5.0,
    max_line_bytes: int = 64 * 1024 * 1024,
    max_outage: float = 600.0,
    files: Files = _FILES,
    workers: Workers | None = None,
) -> BatchReport:
    """Make the calls of a file, and write the answers to another; resumable at any time.

    Rows are appended to the output as they finish. Beside it, ``OUTPUT.journal`` keeps what is
    done: the same call after a crash, a stop or a ``SIGKILL`` goes on where it ended, and pays
    again at most for what was in flight. See ``docs/batch.md``.

    Args:
        client: makes the calls, within its limits; they have the priority "batch".
        input_path: OpenAI's batch format, JSON lines, CSV, or a folder of text files; ``-`` is
            standard input.
        output_path: lines in OpenAI's batch result format; ``-`` is standard output, which
            cannot be resumed.
        format: of the input: "openai", "jsonl", "csv" or "texts". Default: by name and content.
        prompt: the user's message, with ``{fields}`` of the row (``{text}`` for text files), for
            rows that are not whole requests.
        model: for rows that name none.
        system: a system message to go before the prompt.
        params: parameters such as ``max_tokens``, for rows that do not set them.
        endpoint: for rows that name none: "/v1/chat/completions", "/v1/completions" or
            "/v1/embeddings".
        max_concurrency: calls in flight at once. Default 256.
        restart: drop what an earlier run has written.
        on_changed_input: what to do if the input, prompt or parameters are not those that the
            output was begun with: "refuse", or "redo" rows whose request has changed and keep
            the answers of the others.
        retry_failed: do failed rows again.
        skip_invalid: run the good rows of an input that has bad ones, which are written as
            failed. Default: bad rows are an error, before anything is sent.
        limit: begin at most so many rows in this run.
        shuffle: begin rows in random order; a number is the seed.
        max_cost: over all runs of this output; rows that might pass it are not begun.
        max_tokens_total: likewise, prompts and answers together.
        prices: by model. Default: those of the server's model list.
        dry_run: only check the input, and estimate.
        on_progress: called with a :class:`Progress` now and then, and at the end.
        progress_interval: seconds between two of these. Default 0.5.
        stop: ends the run early; see :class:`Stop`.
        checkpoint_rows: rows after which what was written is made to last (``fsync``).
            Default 1000.
        checkpoint_seconds: seconds after which it is. Default 5.
        max_line_bytes: length of the longest row. Default 64 MiB.
        max_outage: seconds for which rows wait while the circuit breaker is open; after that the
            run ends. Default 600.
        files: writes; for tests.
        workers: where the calls are made: ``Processes(4)`` for worker processes of this machine.
            Limits, retries and everything that is written stay one. Default: in this process.

    Returns:
        What was done and what is left. Rows that failed are lines of the output with an error,
        and no exception.

    Raises:
        ConfigurationError: an option cannot be used.
        BatchInputError: the input cannot be read, or has invalid rows.
        BatchChangedError: the input has changed since the output was begun.
        BatchLockedError: another run writes to the same output.
        BatchOutputError: the output cannot be written; ``.report`` tells what was done.
        BatchError: all rows would fail (a wrong key, no credit, an outage), or a limit of cost
            cannot be kept.
    """
    options = Options(
        input=os.fspath(input_path),
        output=os.fspath(output_path),
        format=format,
        prompt=prompt,
        model=model,
        system=system,
        params=dict(params or {}),
        endpoint=endpoint,
        max_concurrency=max_concurrency,
        restart=restart,
        on_changed_input=on_changed_input,
        retry_failed=retry_failed,
        skip_invalid=skip_invalid,
        limit=limit,
        shuffle=shuffle,
        max_cost=max_cost,
        max_tokens_total=max_tokens_total,
        prices=prices,
        dry_run=dry_run,
        on_progress=on_progress,
        progress_interval=progress_interval,
        stop=stop or Stop(),
        checkpoint_rows=checkpoint_rows,
        checkpoint_seconds=checkpoint_seconds,
        max_line_bytes=max_line_bytes,
        max_outage=max_outage,
        files=files,
        workers=workers,
    )
    try:
        return await _piped(client, options) if piped(options) else await _filed(client, options)
    except Stopped:
        progress = Tracker(Ledger(), None, None).progress()
        paths = (options.input, options.output)
        return BatchReport.of(progress, paths=paths, resumed=0, stopped="stopped")


async def _filed(client: AsyncKonko, options: Options) -> BatchReport:
    """Run an input that can be read again."""
    # Locked before anything else: whoever comes second is to know at once.
    locked = options.output != "-" and not options.dry_run
    journal = open_journal(options) if locked else None
    try:
        found = await _open(options)
        try:
            if options.dry_run:
                return await _dry_run(client, options, found)
            if journal is None:
                return await _to_pipe(client, options, found)
            return await _to_file(client, options, found, journal)
        finally:
            found.source.close()
    finally:
        if journal is not None:
            journal.close()


async def _open(options: Options) -> Input:
    stop, spool = options.stop, None
    if options.input == "-":
        spool = await until_stopped(spool_stdin(options), stop)
    return await aside(lambda _tick: open_input(options, spool), stop)


async def _to_file(
    client: AsyncKonko, options: Options, found: Input, journal: Journal
) -> BatchReport:
    prices = await _prices(client, options)
    store = await aside(lambda tick: prepare(options, found, journal, prices, tick), options.stop)
    try:
        checked = store.journal.checked
        assert checked is not None  # noqa: S101 - prepare() saw to it
        _check_prices(options, checked, prices)
        run = Run(client, options, store, prices, rows=checked.rows)
        return await run.run(run.feed.from_file(found, store.ledger.states))
    finally:
        store.close()


async def _to_pipe(client: AsyncKonko, options: Options, found: Input) -> BatchReport:
    prices = await _prices(client, options)
    store = PipeStore(options.files, keeps=True)
    checked = await aside(lambda tick: check_all(options, found, store, tick), options.stop)
    _check_prices(options, checked, prices)
    run = Run(client, options, store, prices, rows=checked.rows)
    return await run.run(run.feed.from_file(found, store.ledger.states))


async def _piped(client: AsyncKonko, options: Options) -> BatchReport:
    """Run from pipe to pipe: each row is checked as it comes."""
    prices = await _prices(client, options)
    store = PipeStore(options.files, keeps=False)
    source, reader = await until_stopped(open_pipe(options), options.stop)
    run = Run(client, options, store, prices, rows=None)
    return await run.run(run.feed.from_pipe(source, reader, store))


async def _prices(client: AsyncKonko, options: Options) -> Prices:
    if options.prices is not None:
        return Prices(options.prices)
    return await until_stopped(fetch_prices(client), options.stop)


def _check_prices(options: Options, checked: Checked, prices: Prices) -> None:
    """A limit of cost that cannot be kept is told of before anything is sent."""
    if options.max_cost is None:
        return
    missing = [model for model in checked.models if not prices.known(model)]
    if missing:
        raise unpriced(missing)


async def _dry_run(client: AsyncKonko, options: Options, found: Input) -> BatchReport:
    """Check the input and estimate what it would take; writes nothing."""
    prices = await _prices(client, options)
    estimator = Estimator(prices, client.rate_limit)
    ledger = done_before(options)

    def each(row: Row) -> None:
        if not ledger.state(row.index):
            estimator.add(row)

    checked = await aside(lambda tick: check_all(options, found, None, tick, each), options.stop)
    return BatchReport.of(
        Tracker(ledger, checked.rows, prices.currency).progress(),
        paths=(options.input, options.output),
        resumed=ledger.done,
        stopped=None,
        estimate=estimator.estimate(),
    )
