"""How a command with many calls is limited, stopped, and ended."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Iterator

import click

from konko_async import AsyncKonko, ConfigurationError, KonkoError, RateLimit
from konko_async.batch import BatchError, BatchInputError, BatchReport, Stop
from konko_async.cli._bulk import Bulk
from konko_async.cli._output import clean, note, redact
from konko_async.cli._progress import Display
from konko_async.cli._run import on_interrupt

__all__ = ["End", "ended", "graceful", "limited", "width"]

_FAILED, _USAGE = 1, 2
_WIDTH = 256
_LOCAL_WIDTH = 4  # what LocalServer works on at the same time; more would only wait
_STOPPING = "stopping: what is in flight is let finish; Ctrl-C again cancels it"
_CANCELLING = "cancelling what is in flight"

# Errors speak of the arguments of run_batch().
_SPELLING = {
    "restart=True": "--restart",
    "retry_failed=True": "--retry-failed",
    "skip_invalid=True": "--skip-invalid",
    'on_changed_input="redo"': "--on-changed-input redo",
    "shuffle=": "--shuffle",
    "prompt=": "--prompt ",
    "system=": "--system ",
    "model=": "--model",
    "max_cost": "--max-cost",
}


def width(bulk: Bulk, *, local: bool) -> int:
    """Return how many rows are worked on at once."""
    if isinstance(bulk.max_concurrency, int):
        return bulk.max_concurrency
    return _LOCAL_WIDTH if local else _WIDTH


def limited(client: AsyncKonko, bulk: Bulk, *, local: bool) -> AsyncKonko:
    """Return the client with the limits of the command line."""
    requests, tokens = (value if value != "auto" else None for value in (bulk.rpm, bulk.tpm))
    places = bulk.max_concurrency
    if places is None and local:
        places = _LOCAL_WIDTH
    if requests is None and tokens is None and places is None:
        return client
    return client.with_options(
        rate_limit=RateLimit(
            requests_per_minute=requests, tokens_per_minute=tokens, max_concurrency=places
        )
    )


@contextlib.contextmanager
def graceful(display: Display) -> Iterator[Stop]:
    """Within the block, Ctrl-C asks the :class:`Stop` that it gives."""
    stop = Stop()

    def request() -> None:
        if stop.level < 2:  # noqa: PLR2004 - nothing is left to ask for
            display.say(_CANCELLING if stop.requested else _STOPPING)
        stop.request()

    with on_interrupt(request):
        yield stop


class End:
    """How a run has ended.

    Attributes:
        report: what it did; None if it had not begun.
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
            return self.report.exit_code or _FAILED
        return self.report.exit_code


@contextlib.contextmanager
def ended(*, debug: bool) -> Iterator[End]:
    """Take the report out of an error that ends the block, and show the error."""
    end = End()
    try:
        yield end
    except (BatchError, ConfigurationError) as error:
        end.report, end.failed = getattr(error, "report", None), True
        if debug:
            text = "".join(traceback.format_exception(error))
            click.echo(clean(redact(text)), err=True, nl=False)
        _show(error)


def _show(error: KonkoError) -> None:
    """Write the error; that of an input has a line for each of its problems."""
    message = error.message
    for argument, option in _SPELLING.items():
        message = message.replace(argument, option)
    if not isinstance(error, BatchInputError):
        note(" ".join(message.split()))
        return
    head, *problems = message.splitlines()
    note(head)
    for problem in problems:
        click.echo(clean(redact(problem)), err=True)
