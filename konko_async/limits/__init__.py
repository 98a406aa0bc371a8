"""Admission control: requests, tokens and slots, per model and key.

See ``docs/explanation/limits.md``.
"""

from konko_async.limits._adaptive import AdaptiveConcurrency
from konko_async.limits._buckets import Bucket, RequestBucket, TokenBucket
from konko_async.limits._estimate import estimate_tokens
from konko_async.limits._headers import Reported, parse_duration, read_headers
from konko_async.limits._lane import Lane
from konko_async.limits._limiter import Limiter
from konko_async.limits._permit import Outcome, Permit, SharedPermit
from konko_async.limits._shared.shared_lane import SharedLane
from konko_async.limits._shared.store import Store, StoreReply, StoreRequest
from konko_async.limits._stats import LaneLimits, Limits, Quantity, StoreState, WaitingCounts
from konko_async.limits._window import Charge, SlidingSum

# Their names of before; kept for stores that were written against them.
Turn = StoreRequest
Reply = StoreReply

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
    "StoreReply",
    "StoreRequest",
    "StoreState",
    "TokenBucket",
    "Turn",
    "WaitingCounts",
    "estimate_tokens",
    "parse_duration",
    "read_headers",
]
