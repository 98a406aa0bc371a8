"""Calls on a Ray cluster (extra ``ray``): columns for a Ray Data set, and workers for batches.

    ds = ray.data.read_parquet("documents/")
    ds = chat_completions(ds, prompt="Summarise: {text}", model="...", actors=8)
    ds.write_parquet("summaries/")

See ``docs/explanation/scaling.md`` for what each of the two is good for.
"""

from __future__ import annotations

from konko_async.integrations._ray_data import chat_completions
from konko_async.integrations._ray_workers import RayWorkers

__all__ = ["RayWorkers", "chat_completions"]
