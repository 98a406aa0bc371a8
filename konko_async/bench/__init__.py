"""Measuring a server: throughput and latencies, in the terms of ``vllm bench serve`` and guidellm.

Example::

    result = await run_bench(client, Plan(model=..., requests=200, concurrency=16))
    print(result.ttft.median, result.output_throughput)
"""

from konko_async._core.lazy_names import lazy_names
from konko_async.bench._plan import Plan, Slo
from konko_async.bench._prompts import Prompt, RandomPrompts, calibrated, read_dataset
from konko_async.bench._record import RequestTimes
from konko_async.bench._result import BenchResult
from konko_async.bench._run import BenchProgress, run_bench
from konko_async.bench._statistics import Distribution, percentile, summarize
from konko_async.bench._watch import ClientCost

__getattr__, __dir__ = lazy_names(
    __name__,
    {},
    # Names of earlier versions; they leave with 0.2.
    {"RequestRecord": "RequestTimes", "Summary": "Distribution"},
)

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
