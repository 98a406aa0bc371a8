"""Measuring a server: throughput and latencies, in the terms of ``vllm bench serve`` and guidellm.

Example::

    result = await run_bench(client, Plan(model=..., requests=200, concurrency=16))
    print(result.ttft.median, result.output_throughput)
"""

import warnings
from typing import Any

from konko_async.bench._plan import Plan, Slo
from konko_async.bench._prompts import Prompt, RandomPrompts, calibrated, read_dataset
from konko_async.bench._record import RequestTimes
from konko_async.bench._result import BenchResult
from konko_async.bench._run import BenchProgress, run_bench
from konko_async.bench._statistics import Distribution, percentile, summarize
from konko_async.bench._watch import ClientCost

__all__ = [
    "BenchProgress",
    "BenchResult",
    "ClientCost",
    "Distribution",
    "Plan",
    "Prompt",
    "RandomPrompts",
    "RequestTimes",
    "Slo",
    "calibrated",
    "percentile",
    "read_dataset",
    "run_bench",
    "summarize",
]

# Names of earlier versions; they leave with 0.2.
_RENAMED = {"RequestRecord": "RequestTimes", "Summary": "Distribution"}


def __getattr__(name: str) -> Any:
    if name in _RENAMED:
        new = _RENAMED[name]
        warnings.warn(
            f"{__name__}.{name} is now {__name__}.{new}", DeprecationWarning, stacklevel=2
        )
        return globals()[new]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
