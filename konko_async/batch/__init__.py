"""Batches: a file of requests in, a file of answers out, and nothing lost.

See docs/how-to/batch.md.

report = await run_batch(client, "in.jsonl", "out.jsonl")

Nothing is imported before it is used: a chat in a terminal wants a `Price`, and no more.
"""

from typing import TYPE_CHECKING

from konko_async._core.lazy_names import lazy_names

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

    Files = Filesystem
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "_calls.patience": "Patience",
            "_errors": (
                "AnswerError BatchChangedError BatchError BatchInputError BatchLockedError "
                "BatchOutputError BatchStoppedError WorkerLostError"
            ),
            "_histogram": "Histogram",
            "_input.prompt_template": "Template",
            "_output.filesystem": "Filesystem",
            "_output.latencies": "RowLatencies",
            "_output.merge": "MergeReport merge_outputs",
            "_output.row_results": "RowResult",
            "_pricing": "Price parse_price",
            "_progress": "Progress Sample",
            "_report": "BatchReport Estimate",
            "_run_batch": "run_batch",
            "_server.settings": "ServerSide",
            "_steps.plan": "Step",
            "_stop": "Stop",
            "_workers.protocol": "WorkerLink Workers",
            "_workers.subprocess": "Processes",
            "_workers.worker": "Worker",
        },
        {"Files": "Filesystem"},  # names of earlier versions; they leave with 0.2
    )

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
