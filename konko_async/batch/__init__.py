"""Batches: a file of requests in, a file of answers out, and nothing lost. See docs/batch.md.

report = await run_batch(client, "in.jsonl", "out.jsonl")
"""

from konko_async.batch._batch import run_batch
from konko_async.batch._caller import Patience
from konko_async.batch._errors import (
    BatchChangedError,
    BatchError,
    BatchInputError,
    BatchLockedError,
    BatchOutputError,
    WorkerLostError,
)
from konko_async.batch._files import Files
from konko_async.batch._histogram import Histogram
from konko_async.batch._pricing import Price, parse_price
from konko_async.batch._process import Processes
from konko_async.batch._progress import Progress, Sample
from konko_async.batch._report import BatchReport, Estimate
from konko_async.batch._stop import Stop
from konko_async.batch._template import Template
from konko_async.batch._worker import Worker
from konko_async.batch._workers import WorkerLink, Workers

__all__ = [
    "BatchChangedError",
    "BatchError",
    "BatchInputError",
    "BatchLockedError",
    "BatchOutputError",
    "BatchReport",
    "Estimate",
    "Files",
    "Histogram",
    "Patience",
    "Price",
    "Processes",
    "Progress",
    "Sample",
    "Stop",
    "Template",
    "Worker",
    "WorkerLink",
    "WorkerLostError",
    "Workers",
    "parse_price",
    "run_batch",
]
