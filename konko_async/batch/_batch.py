"""``run_batch``."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeVar

from konko_async import AsyncKonko
from konko_async.batch._caller import client_limit
from konko_async.batch._check import Estimator, check_input
from konko_async.batch._errors import BatchError
from konko_async.batch._files import Files
from konko_async.batch._journal import Journal, Ledger
from konko_async.batch._options import Options
from konko_async.batch._pricing import Price, Prices, fetch_prices
from konko_async.batch._progress import Progress, Tracker
from konko_async.batch._report import BatchReport
from konko_async.batch._rows import Format, Row
from konko_async.batch._run import Run
from konko_async.batch._setup import Input, open_input, open_journal, prepare, translated
from konko_async.batch._spending import unpriced
from konko_async.batch._stop import Stop
from konko_async.batch._store import Store

__all__ = ["run_batch"]

T = TypeVar("T")
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
    )
    found = await _aside(options, lambda _tick: open_input(options))
    try:
        if dry_run:
            return await _dry_run(client, options, found)
        return await _run(client, options, found)
    finally:
        found.source.close()


async def _run(client: AsyncKonko, options: Options, found: Input) -> BatchReport:
    journal = open_journal(options)
    try:
        prices = await _prices(client, options)
        store = await _aside(
            options,
            lambda tick: translated(
                options.input, lambda: prepare(options, found, journal, prices, tick)
            ),
        )
    except BaseException:
        journal.close()
        raise
    try:
        _check_prices(options, journal, prices)
        return await Run(client, options, found, store, prices).run()
    finally:
        store.close()


async def _prices(client: AsyncKonko, options: Options) -> Prices:
    if options.prices is not None:
        return Prices(options.prices)
    return await fetch_prices(client)


def _check_prices(options: Options, journal: Journal, prices: Prices) -> None:
    """A limit of cost that cannot be kept is told of before anything is sent."""
    if options.max_cost is None or journal.checked is None:
        return
    missing = [model for model in journal.checked.models if not prices.known(model)]
    if missing:
        raise unpriced(missing)


async def _dry_run(client: AsyncKonko, options: Options, found: Input) -> BatchReport:
    """Check the input and estimate what it would take; writes nothing."""
    prices = await _prices(client, options)
    estimator = Estimator(prices, client_limit(client))
    ledger = Ledger()
    if options.output != "-" and os.path.exists(f"{options.output}.journal"):
        journal = open_journal(options)
        ledger = journal.ledger
        journal.close()

    def each(row: Row) -> None:
        if not ledger.state(row.index):
            estimator.add(row)

    checked = await _aside(
        options,
        lambda tick: translated(
            options.input,
            lambda: check_input(
                found.source,
                found.reader,
                shown=found.shown,
                invalid=(lambda *_: None) if options.skip_invalid else None,
                tick=tick,
                each=each,
            ),
        ),
    )
    return BatchReport.of(
        Tracker(ledger, checked.rows, prices.currency).progress(),
        paths=(options.input, options.output),
        resumed=ledger.done,
        stopped=None,
        estimate=estimator.estimate(),
    )


class _Interrupted(BaseException):
    """Ends work in a thread whose result nobody waits for any more."""


async def _aside(options: Options, work: Callable[[Callable[[], object]], T]) -> T:
    """Do blocking work in a thread; it is ended if the caller is cancelled, or asked to stop."""
    left = False

    def tick() -> None:
        if left:
            raise _Interrupted
        if options.stop.requested:
            raise BatchError("stopped before the first row was sent")

    task = asyncio.create_task(asyncio.to_thread(work, tick))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        left = True
        await asyncio.wait([task])
        task.exception()
        raise


_ = (Any, Store)
