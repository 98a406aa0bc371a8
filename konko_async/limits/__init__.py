"""Admission control: requests, tokens and places, per model and key. See ``docs/limits.md``."""

from konko_async.limits._adaptive import AdaptiveConcurrency
from konko_async.limits._buckets import Bucket, RequestBucket, TokenBucket
from konko_async.limits._estimate import estimate_tokens
from konko_async.limits._lane import Lane
from konko_async.limits._learn import Reported, parse_duration, read_headers
from konko_async.limits._limiter import Limiter
from konko_async.limits._permit import Outcome, Permit, SharedPermit
from konko_async.limits._shared import SharedLane
from konko_async.limits._snapshot import LaneLimits, Limits, Quantity, StoreState, WaitingCounts
from konko_async.limits._store import Reply, Store, Turn
from konko_async.limits._window import Charge, SlidingSum

__all__ = [
    "AdaptiveConcurrency",
    "Bucket",
    "Charge",
    "Lane",
    "LaneLimits",
    "Limiter",
    "Limits",
    "Outcome",
    "Permit",
    "Quantity",
    "Reply",
    "Reported",
    "RequestBucket",
    "SharedLane",
    "SharedPermit",
    "SlidingSum",
    "Store",
    "StoreState",
    "TokenBucket",
    "Turn",
    "WaitingCounts",
    "estimate_tokens",
    "parse_duration",
    "read_headers",
]
