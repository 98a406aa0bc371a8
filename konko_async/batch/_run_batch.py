"""``run_batch``: checks the options, opens input and output, and runs the batch."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Literal

import msgspec

from konko_async import AsyncKonko
from konko_async.batch._data.deliver import check_columns, deliver
from konko_async.batch._data.spool import open_spool
from konko_async.batch._errors import BatchOutputError
from konko_async.batch._input.open import Input, open_input, open_pipe, spool_stdin
from konko_async.batch._input.row_parser import Format, Row
from konko_async.batch._input.validate import Estimator
from konko_async.batch._options import Options, piped
from konko_async.batch._output.filesystem import Filesystem
from konko_async.batch._output.journal import Checked, Journal
from konko_async.batch._output.ledger import Ledger
from konko_async.batch._output.pipe import PipeStore
from konko_async.batch._output.resume import check_all, done_before, open_journal, prepare
from konko_async.batch._output.row_results import RowResult
from konko_async.batch._output.store import OutputStore
from konko_async.batch._pricing import Price, Prices, fetch_prices
from konko_async.batch._progress import Progress, Tracker
from konko_async.batch._report import BatchReport
from konko_async.batch._run import BatchRun
from konko_async.batch._server.run import ServerRun
from konko_async.batch._server.settings import ServerSide
from konko_async.batch._spending import unpriced
from konko_async.batch._steps.plan import Step
from konko_async.batch._stop import Stop
from konko_async.batch._wait_for_stop import RunStopped, aside, until_stopped
from konko_async.batch._workers.protocol import Workers

__all__ = ["run_batch"]

Path = str | os.PathLike[str]
_FILES = Filesystem()


async def run_batch(
    client: AsyncKonko,
    input_path: Path | Any,
    output_path: Path,
    *,
    columns: Collection[str] | None = None,
    ordered: bool = False,
    format: Format | None = None,
    prompt: str | None = None,
    model: str | None = None,
    system: str | None = None,
    params: Mapping[str, Any] | None = None,
    endpoint: str = "/v1/chat/completions",
    id_column: str | None = None,
    fail_on: Collection[str] = (),
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
    max_attempts: int | None = None,
    max_failures: int | str | None = None,
    max_failures_in_a_row: int | None = 100,
    on_notice: Callable[[str], object] | None = None,
    files: Filesystem = _FILES,
    workers: Workers | None = None,
    server_side: bool | ServerSide = False,
    response_format: Any = None,
    max_reasks: int = 1,
    shard: str | tuple[int, int] | None = None,
    on_row: Callable[[RowResult], object] | None = None,
    steps: Sequence[Step | tuple[str, str]] | None = None,
) -> BatchReport:
    """Make the calls of a file, and write the answers to another; resumable at any time.

    Rows are appended to the output as they finish. Beside it, ``OUTPUT.journal`` keeps what is
    done: the same call after a crash, a stop or a ``SIGKILL`` resumes the run, and pays again at
    most for what was in flight. See ``docs/how-to/batch.md``.

    Args:
        client: makes the calls, within its limits; they have the priority "batch".
        input_path: OpenAI's batch format, JSON lines, CSV, Parquet, Arrow, or a folder of text
            files; ``-`` is standard input. Or a URL that fsspec knows (``s3://``, ``https://``),
            a frame of pandas or polars, a ``datasets.Dataset``, a ``pyarrow.Table``, or an
            iterable of dicts. It must give the same rows each time if the run is to be resumed.
        output_path: lines in OpenAI's batch result format; ``-`` is standard output, which
            cannot be resumed. A table if it ends with ``.parquet``, ``.arrow``, ``.csv`` or
            ``.tsv``: then a run writes to ``OUTPUT.work.jsonl``, and the table when it has ended.
            A URL is written then, too.
        columns: of the output, if it is to be a table (of JSON lines, where its name says nothing
            else): fields of the rows, and any of ``custom_id``, ``answer``, ``error``,
            ``finish_reason``, ``model``, ``prompt_tokens``, ``completion_tokens``, ``request_id``,
            ``response``, ``embedding``. Default for tables: all fields, and most of these.
        ordered: write the lines in the order of the input when the run has ended. Tables always
            are.
        format: of the input: "openai", "jsonl", "csv" or "texts". Default: by name and content.
        prompt: the user's message, with ``{fields}`` of the row (``{text}`` for text files), for
            rows that are not whole requests.
        model: for rows that name none.
        system: a system message to go before the prompt.
        params: parameters such as ``max_tokens``, for rows that do not set them.
        endpoint: for rows that name none: "/v1/chat/completions", "/v1/completions" or
            "/v1/embeddings".
        id_column: field or column that names a row. Default: ``custom_id``, else ``id`` where no
            two rows have the same, else rows are numbered: ``row-1``.
        fail_on: answers that count as failed, any of ``empty``, ``length`` (cut at
            ``max_tokens``), ``content_filter`` and ``refusal``. Without it they are answers, and
            are counted in the report. An answer without choices, or whose ``finish_reason`` is
            ``error``, always counts as failed.
        max_concurrency: calls in flight at once; fewer where this process cannot open so many
            connections. Default 256.
        restart: drop what an earlier run has written.
        on_changed_input: what to do if the input, prompt or parameters are not those that the
            output was begun with: "refuse", or "redo" rows whose request has changed and keep
            the answers of the others.
        retry_failed: do failed rows again.
        skip_invalid: run the good rows of an input that has bad ones, which are written as
            failed. Default: bad rows are an error, before anything is sent.
        limit: process at most so many rows in this run.
        shuffle: process rows in random order; a number is the seed.
        max_cost: over all runs of this output; rows that might exceed it are not sent.
        max_tokens_total: tokens of prompts and answers over all runs of this output.
        prices: by model. Default: those of the server's model list.
        dry_run: only check the input, and estimate.
        on_progress: called with a :class:`Progress` now and then, and at the end.
        progress_interval: seconds between two of these. Default 0.5.
        stop: ends the run early; see :class:`Stop`.
        checkpoint_rows: rows after which the output is flushed to the disk (``fsync``) and a
            checkpoint is written. Default 1000.
        checkpoint_seconds: seconds after which a checkpoint is written. Default 5.
        max_line_bytes: length of the longest row. Default 64 MiB.
        max_outage: seconds for which rows wait while none is finished, because the server is
            away, overloaded or limits the rate; then the run ends, and can be resumed. Default 600.
        max_attempts: attempts after which a row counts as failed, even if its failure may pass.
            Default None: only if it fails again and again while others are answered.
        max_failures: failed rows of this run above which it ends: a number, or a share such as
            ``"5%"`` (of at least 50 rows).
        max_failures_in_a_row: failed rows without an answer between them after which the run
            ends. Default 100; None: never.
        on_notice: called with a line for the user, such as "the server answers again". Default:
            they are logged as warnings.
        files: writes; for tests.
        workers: where the calls are made: ``Processes(4)`` for processes of this machine.
            Limits, retries and everything that is written stay one. Default: in this process.
        server_side: the server runs the rows by itself, as jobs over uploaded files, at half the
            price where it offers that; True or a :class:`ServerSide`. ``stop`` leaves the jobs
            running, and the same call takes their answers.
        response_format: what the answer of each chat row is to be: a type, a ResponseFormat or a
            JSON Schema. Rows with a ``response_format`` of their own keep it. The value stands in
            the output as ``value``; an answer that does not fit is a failure, its text kept.
        max_reasks: how often an answer that does not fit is requested again, with what was wrong
            with it. Default 1. Jobs of the server submit the row anew instead.
        shard: process only the rows of one shard, such as ``"3/16"``: every 16th, from the third
            on. Each shard has an output of its own; :func:`merge_outputs` makes one of them.
        on_row: called (awaited, if it is async) with a :class:`RowResult` once a row is in the
            output, one at a time; rows are held back while it works. At most once for each row:
            a run that was killed may have written rows without calling it. What it raises ends
            the run, resumable. Records that could not be sent are not handed to it.
        steps: several prompts for each row, each a :class:`Step` or ``(name, prompt)``: a prompt
            may use the row's fields, ``{answer}`` of the step before, and all results by name. A
            row is written with the last answer, and with ``steps``; results are kept in
            ``OUTPUT.steps`` until then, so that no step is paid twice.

    Returns:
        What was done and what is left. Rows that failed are lines of the output with an error,
        and no exception.

    Raises:
        ConfigurationError: an option cannot be used.
        BatchInputError: the input cannot be read, or has invalid rows.
        BatchChangedError: the input has changed since the output was begun.
        BatchLockedError: another run writes to the same output.
        BatchOutputError: the output cannot be written; ``.report`` holds what was done.
        BatchStoppedError: no row can be answered now: a wrong key, no credit, a daily limit, an
            outage; the same call resumes the run.
        BatchError: a limit of cost cannot be kept, or workers cannot be started.
    """
    # Has to be the first statement: a local set before it would be taken for an option.
    arguments = dict(locals())  # Options takes them by their names
    del arguments["client"]
    options = Options.of(**arguments)
    try:
        return await _piped(client, options) if piped(options) else await _filed(client, options)
    # Stopped while the input was opened or checked: nothing was sent and nothing failed, so the
    # caller gets a report of no rows rather than an error.
    except RunStopped:
        progress = Tracker(Ledger(), None, None).progress()
        paths = (options.input, options.output)
        return BatchReport.of(progress, paths=paths, resumed=0, stopped="stopped")


async def _filed(client: AsyncKonko, options: Options) -> BatchReport:
    """Run an input that can be read again."""
    # Locked before anything else: a second run is refused at once.
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
            found.close()
    finally:
        # Also where the input was refused; after a run it is closed
        # already, and close() is idempotent.
        if journal is not None:
            journal.close()


async def _open(options: Options) -> Input:
    stop, spool = options.stop, None
    if options.input == "-" and options.data is None:
        # Waits for the writer of the pipe, so it must be cancellable;
        # opening blocks, in a thread.
        spool = await until_stopped(spool_stdin(options), stop)
        return await aside(lambda _tick: open_input(options, spool), stop)
    spooled = await aside(lambda tick: open_spool(options, tick), stop)
    if spooled is None:
        return await aside(lambda _tick: open_input(options, None), stop)
    try:
        found = await aside(lambda _tick: open_input(options, spooled.file), stop)
        found.table, found.more = spooled.table, spooled.opened
        check_columns(options.target, found)
    except BaseException:
        spooled.close()
        raise
    return found


async def _to_file(
    client: AsyncKonko, options: Options, found: Input, journal: Journal
) -> BatchReport:
    # Before prepare(), which prices the rows that it finds behind the last checkpoint.
    prices = await _prices(client, options)
    store = await aside(lambda tick: prepare(options, found, journal, prices, tick), options.stop)
    try:
        checked = store.journal.checked
        assert checked is not None  # noqa: S101 - prepare() saw to it
        _check_prices(options, checked, prices)
        if options.server_side is not None:
            early = await _on_server(client, options, store, prices, found=found)
            if early is not None:
                return await _delivered(options, found, checked.rows, early)
        rows = options.own_rows(checked.rows)
        run = BatchRun(client, options, store, prices, rows=rows)
        report = await run.run(run.feed.from_file(found, store.ledger.states))
        return await _delivered(options, found, checked.rows, report)
    finally:
        store.close()


async def _delivered(options: Options, found: Input, rows: int, report: BatchReport) -> BatchReport:
    """Write the table that the output is, if it is one; a run that was stopped leaves none."""
    target = options.target
    if target is None:
        return report
    report = msgspec.structs.replace(report, output=target.shown)
    if report.stopped not in {"stopped", "cancelled", "jobs_cancelled"}:
        try:
            await aside(lambda tick: deliver(options, found, target, rows, tick), options.stop)
        except RunStopped:
            report = msgspec.structs.replace(report, stopped="stopped")
        except BatchOutputError as error:
            error.report = report
            raise
        else:
            return report
    options.notice(f"{target.shown} was not written: the same call resumes the run, and writes it")
    return report


async def _on_server(
    client: AsyncKonko, options: Options, store: OutputStore, prices: Prices, *, found: Input
) -> BatchReport | None:
    """Have the server run the rows; None if calls of this process are to follow."""
    settings, checked = options.server_side, store.journal.checked
    assert settings is not None  # noqa: S101 - the caller saw to it
    assert checked is not None  # noqa: S101 - prepare() saw to it
    half = prices.scaled(settings.price_factor)
    run = ServerRun(client, options, settings, store, half, found=found, rows=checked.rows)
    report = await run.run()
    return None if run.live and report.left else report


async def _to_pipe(client: AsyncKonko, options: Options, found: Input) -> BatchReport:
    prices = await _prices(client, options)
    # The check writes invalid rows and notes them in the ledger: the feed must know to skip them.
    store = PipeStore(options.files, keeps=True)
    checked = await aside(lambda tick: check_all(options, found, store, tick), options.stop)
    _check_prices(options, checked, prices)
    run = BatchRun(client, options, store, prices, rows=checked.rows)
    return await run.run(run.feed.from_file(found, store.ledger.states))


async def _piped(client: AsyncKonko, options: Options) -> BatchReport:
    """Run from pipe to pipe: each row is checked as it comes."""
    prices = await _prices(client, options)
    # A stream may have no end: a byte for each of its rows would grow forever.
    store = PipeStore(options.files, keeps=False)
    source, reader = await until_stopped(open_pipe(options), options.stop)
    run = BatchRun(client, options, store, prices, rows=None)
    return await run.run(run.feed.from_pipe(source, reader, store))


async def _prices(client: AsyncKonko, options: Options) -> Prices:
    if options.prices is not None:
        return Prices(options.prices)
    return await until_stopped(fetch_prices(client), options.stop)


def _check_prices(options: Options, checked: Checked, prices: Prices) -> None:
    """Refuse a limit of cost that cannot be kept before anything is sent."""
    if options.max_cost is None:
        return
    missing = [model for model in checked.models if not prices.known(model)]
    if missing:
        raise unpriced(missing)


async def _dry_run(client: AsyncKonko, options: Options, found: Input) -> BatchReport:
    """Check the input and estimate what it would take; writes nothing."""
    prices = await _prices(client, options)
    estimator = Estimator(prices, client.rate_limit)
    # Reads the journal and closes it: a dry run must neither hold the lock nor write.
    ledger = done_before(options)

    def each(row: Row) -> None:
        if not ledger.state(row.index) and options.takes(row.index):
            estimator.add(row)

    checked = await aside(lambda tick: check_all(options, found, None, tick, each), options.stop)
    return BatchReport.of(
        Tracker(ledger, options.own_rows(checked.rows), prices.currency).progress(),
        paths=(options.input, options.output),
        resumed=ledger.done,
        stopped=None,
        estimate=estimator.estimate(),
    )
