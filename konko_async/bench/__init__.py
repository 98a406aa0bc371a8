"""Measuring a server: throughput and latencies, in the terms of ``vllm bench serve`` and guidellm.

Example::

    result = await run_bench(client, Plan(model=..., requests=200, concurrency=16))
    print(result.ttft.median, result.output_throughput)
"""

from konko_async.bench._plan import Plan, Slo
from konko_async.bench._prompts import Prompt, RandomPrompts, calibrated, read_dataset
from konko_async.bench._record import RequestRecord
from konko_async.bench._result import BenchResult
from konko_async.bench._run import BenchProgress, run_bench
from konko_async.bench._statistics import Summary, percentile, summarize
from konko_async.bench._watch import ClientCost

__all__ = [
    "BenchProgress",
    "BenchResult",
    "ClientCost",
    "Plan",
    "Prompt",
    "RandomPrompts",
    "RequestRecord",
    "Slo",
    "Summary",
    "calibrated",
    "percentile",
    "read_dataset",
    "run_bench",
    "summarize",
]
