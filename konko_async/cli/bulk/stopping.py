"""How a command with many calls is limited, stopped, and ended."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import traceback
from collections.abc import Iterator

import click

from konko_async import AnswerCache, AsyncKonko, ConfigurationError, KonkoError, RateLimit
from konko_async.batch import BatchError, BatchInputError, BatchReport, Stop
from konko_async.cli._output import clean, note, redact
from konko_async.cli._runner import on_interrupt, on_terminate
from konko_async.cli.bulk.options import Bulk
from konko_async.cli.bulk.progress import Display

__all__ = [
    "End",
    "TerminalStop",
    "code_after_signal",
    "ended",
    "graceful",
    "limited",
    "spelled",
    "width",
]

_FAILED, _USAGE, _INTERRUPTED = 1, 2, 130
# 143, as shells report a process that SIGTERM has ended.
_TERMINATED = 128 + signal.SIGTERM
_GRACE = 5.0  # seconds between SIGTERM and giving up what is in flight; docker kills after 10
_WIDTH = 256
_LOCAL_WIDTH = 4  # what LocalServer works on at the same time; more would only wait
_STOPPING = "stopping: calls in flight may finish; Ctrl-C again cancels them"
_CANCELLING = "cancelling the calls in flight"
_TERMINATING = f"SIGTERM: calls in flight may finish for {_GRACE:g} s"

# Errors speak of the arguments of run_batch().
# In this order: "max_outage", replaced first, would take the beginning of "max_outage=".
_SPELLING = {
    "response_format=": "--schema ",
    "shard=": "--shard ",
    "steps=": "--step ",
    "workers=": "--processes ",
    "server_side=ServerSide(cancel=True)": "--server-side --cancel",
    "then_live=True": "--then-live",
    "server_side=": "--server-side",
    "rows_per_file=": "--rows-per-file",
    "restart=True": "--restart",
    "retry_failed=True": "--retry-failed",
    "skip_invalid=True": "--skip-invalid",
    'on_changed_input="redo"': "--on-changed-input redo",
    "shuffle=": "--shuffle",
    "columns=": "--columns",
    "ordered=": "--ordered",
    "prompt=": "--prompt ",
    "system=": "--system ",
    "model=": "--model",
    "max_cost": "--max-cost",
    "max_outage=": "--max-outage ",
    "max_outage": "--max-outage",
    'prices={"model": Price(prompt=..., completion=...)}': "--price-in and --price-out",
    "id_column=": "--id-column ",
    "format=": "--format ",
}


def width(bulk: Bulk, *, local: bool) -> int:
    """Return how many rows are worked on at once."""
    if isinstance(bulk.max_concurrency, int):
        return bulk.max_concurrency
    # With "auto" too: the client's own limit adapts below this number.
    return _LOCAL_WIDTH if local else _WIDTH


def limited(client: AsyncKonko, bulk: Bulk, *, local: bool, learn: bool = True) -> AsyncKonko:
    """Return the client with the cache and the limits of the command line.

    Raises:
        ConfigurationError: the cache cannot be used.
    """
    cache = _cache(bulk)
    if cache is not None:
        client = client.with_options(cache=cache)
    requests, tokens = (value if value != "auto" else None for value in (bulk.rpm, bulk.tpm))
    slots = bulk.max_concurrency
    if slots is None and local:
        slots = _LOCAL_WIDTH
    # Nothing was given: the client keeps the limits that it has.
    if requests is None and tokens is None and slots is None and learn:
        return client
    return client.with_options(
        rate_limit=RateLimit(
            requests_per_minute=requests,
            tokens_per_minute=tokens,
            max_concurrency=slots,
            learn=learn,
        )
    )


def _cache(bulk: Bulk) -> AnswerCache | None:
    # An empty variable means that there is none, as after `export KONKO_CACHE=`.
    folder = None if bulk.no_cache else bulk.cache or os.environ.get("KONKO_CACHE") or None
    if folder is None:
        return None
    cache = AnswerCache(folder, every_call=bulk.cache_all, max_age=bulk.cache_max_age)
    # At once: somebody who named a folder expects that it is used.
    cache.check()
    return cache


@contextlib.contextmanager
def graceful(display: Display) -> Iterator[Stop]:
    """Yield a :class:`Stop` that Ctrl-C and SIGTERM request within the block.

    Whoever sends SIGTERM (a spot instance, Slurm, ``docker stop``) kills soon after: what is in
    flight gets a few seconds, and the summary is printed in any case.
    """
    stop, loop = TerminalStop(), asyncio.get_running_loop()
    timers: list[asyncio.TimerHandle] = []

    def request() -> None:
        if stop.level < 2:  # noqa: PLR2004 - nothing is left to ask for
            display.say(_CANCELLING if stop.requested else _STOPPING)
        stop.request()

    def terminate() -> None:
        stop.terminated = True
        if not stop.requested:
            display.say(_TERMINATING)
            stop.request()
        # Also where Ctrl-C came first: the sender of SIGTERM will not wait any longer for that.
        timers.append(loop.call_later(_GRACE, stop.request))

    with on_interrupt(request), on_terminate(terminate):
        try:
            yield stop
        finally:
            for timer in timers:
                timer.cancel()


class TerminalStop(Stop):
    """A :class:`Stop` that knows whether SIGTERM requested it.

    Attributes:
        terminated: whether SIGTERM has come.
    """

    def __init__(self) -> None:
        super().__init__()
        self.terminated = False


def code_after_signal(stop: Stop, code: int) -> int:
    """Return the exit code: 143 where SIGTERM ended the run, else ``code``."""
    interrupted = code == _INTERRUPTED and isinstance(stop, TerminalStop) and stop.terminated
    return _TERMINATED if interrupted else code


class End:
    """How a run has ended.

    Attributes:
        report: what it did; None if it had not started.
    """

    def __init__(self) -> None:
        self.report: BatchReport | None = None
        self.failed = False

    @property
    def code(self) -> int:
        """The exit code."""
        if self.report is None:
            return _USAGE  # nothing was sent: the command has to be put right
        if self.failed:
            # The report may be without a failed row, and the command has failed all the same.
            return self.report.exit_code or _FAILED
        return self.report.exit_code


@contextlib.contextmanager
def ended(*, debug: bool) -> Iterator[End]:
    """Take the report out of an error that ends the block, and show the error."""
    end = End()
    try:
        yield end
    # Others are shown by the command line's runner, and leave no report.
    except (BatchError, ConfigurationError) as error:
        end.report, end.failed = getattr(error, "report", None), True
        if debug:
            text = "".join(traceback.format_exception(error))
            click.echo(clean(redact(text)), err=True, nl=False)
        _show(error)


def spelled(text: str) -> str:
    """Return a text that names arguments of ``run_batch`` with the options in their place."""
    for argument, option in _SPELLING.items():
        text = text.replace(argument, option)
    return text


def _show(error: KonkoError) -> None:
    """Write the error; that of an input has a line for each of its problems."""
    message = spelled(error.message)
    # Only a list of invalid rows has lines of its own; every other error is put on one.
    if not isinstance(error, BatchInputError):
        note(" ".join(message.split()))
        return
    head, *problems = message.splitlines()
    note(head)
    for problem in problems:
        click.echo(clean(redact(problem)), err=True)
