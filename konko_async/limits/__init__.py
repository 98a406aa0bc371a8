"""Admission control: requests, tokens and slots, per model and key.

See ``docs/explanation/limits.md``.
"""

from typing import TYPE_CHECKING

from konko_async._core.lazy_names import lazy_names
from konko_async.limits._adaptive import AdaptiveConcurrency
from konko_async.limits._buckets import Bucket, RequestBucket, TokenBucket
from konko_async.limits._estimate import estimate_tokens
from konko_async.limits._headers import Reported, parse_duration, read_headers
from konko_async.limits._lane import Lane
from konko_async.limits._limiter import Limiter
from konko_async.limits._permit import Outcome, Permit, SharedPermit
from konko_async.limits._stats import LaneLimits, Limits, Quantity, StoreState, WaitingCounts
from konko_async.limits._window import Charge, SlidingSum

if TYPE_CHECKING:
    from konko_async.limits._shared.shared_lane import SharedLane
    from konko_async.limits._shared.store import Reply, Store, StoreReply, StoreRequest, Turn
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "_shared.shared_lane": "SharedLane",
            "_shared.store": "Reply Store StoreReply StoreRequest Turn",
        },
    )

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
