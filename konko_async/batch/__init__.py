"""Batches: a file of requests in, a file of answers out, and nothing lost.

See docs/how-to/batch.md.

report = await run_batch(client, "in.jsonl", "out.jsonl")

Nothing is imported before it is used: a chat in a terminal wants a `Price`, and no more.
"""

import sys
import warnings
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from konko_async.batch._calls.patience import Patience
    from konko_async.batch._errors import (
        AnswerError,
        BatchChangedError,
        BatchError,
        BatchInputError,
        BatchLockedError,
        BatchOutputError,
        BatchStoppedError,
        WorkerLostError,
    )
    from konko_async.batch._histogram import Histogram
    from konko_async.batch._input.prompt_template import Template
    from konko_async.batch._output.filesystem import Filesystem
    from konko_async.batch._output.latencies import RowLatencies
    from konko_async.batch._output.merge import MergeReport, merge_outputs
    from konko_async.batch._output.row_results import RowResult
    from konko_async.batch._pricing import Price, parse_price
    from konko_async.batch._progress import Progress, Sample
    from konko_async.batch._report import BatchReport, Estimate
    from konko_async.batch._run_batch import run_batch
    from konko_async.batch._server.settings import ServerSide
    from konko_async.batch._steps.plan import Step
    from konko_async.batch._stop import Stop
    from konko_async.batch._workers.protocol import WorkerLink, Workers
    from konko_async.batch._workers.subprocess import Processes
    from konko_async.batch._workers.worker import Worker

# Where each name comes from; a test holds this against the imports above.
_EXPORTS = {
    "AnswerError": "_errors",
    "BatchChangedError": "_errors",
    "BatchError": "_errors",
    "BatchInputError": "_errors",
    "BatchLockedError": "_errors",
    "BatchOutputError": "_errors",
    "BatchReport": "_report",
    "BatchStoppedError": "_errors",
    "Estimate": "_report",
    "Filesystem": "_output.filesystem",
    "Histogram": "_histogram",
    "MergeReport": "_output.merge",
    "Patience": "_calls.patience",
    "Price": "_pricing",
    "Processes": "_workers.subprocess",
    "Progress": "_progress",
    "RowLatencies": "_output.latencies",
    "RowResult": "_output.row_results",
    "Sample": "_progress",
    "ServerSide": "_server.settings",
    "Step": "_steps.plan",
    "Stop": "_stop",
    "Template": "_input.prompt_template",
    "Worker": "_workers.worker",
    "WorkerLink": "_workers.protocol",
    "WorkerLostError": "_errors",
    "Workers": "_workers.protocol",
    "merge_outputs": "_output.merge",
    "parse_price": "_pricing",
    "run_batch": "_run_batch",
}

__all__ = [
    "AnswerError",
    "BatchChangedError",
    "BatchError",
    "BatchInputError",
    "BatchLockedError",
    "BatchOutputError",
    "BatchReport",
    "BatchStoppedError",
    "Estimate",
    "Filesystem",
    "Histogram",
    "MergeReport",
    "Patience",
    "Price",
    "Processes",
    "Progress",
    "RowLatencies",
    "RowResult",
    "Sample",
    "ServerSide",
    "Step",
    "Stop",
    "Template",
    "Worker",
    "WorkerLink",
    "WorkerLostError",
    "Workers",
    "merge_outputs",
    "parse_price",
    "run_batch",
]


# Names of earlier versions; they leave with 0.2.
_RENAMED = {"Files": "Filesystem"}


def __getattr__(name: str) -> Any:
    if name in _RENAMED:
        new = _RENAMED[name]
        warnings.warn(
            f"{__name__}.{name} is now {__name__}.{new}", DeprecationWarning, stacklevel=2
        )
        return getattr(sys.modules[__name__], new)
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(f"{__name__}.{_EXPORTS[name]}"), name)
    # Once found it is an attribute like any other.
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
