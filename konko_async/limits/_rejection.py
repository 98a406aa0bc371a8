"""The error of a call that cannot be admitted in time, and its reason in words."""

from __future__ import annotations

import enum
import math

from konko_async.errors import RateLimitTimeoutError

__all__ = ["Cause", "refusal"]


class Cause(enum.Enum):
    """What keeps a call waiting."""

    PAUSE = "the pause after a rejection"
    REQUESTS = "the limit on requests"
    TOKENS = "the limit on tokens"
    CONCURRENCY = "the limit on calls in flight"


def refusal(
    model: str | None, cause: Cause, *, wait: float, patience: float, waiting: int
) -> RateLimitTimeoutError:
    """Make the error of a call that cannot be admitted before its deadline.

    Args:
        model: the model's id, if the call names one.
        cause: what is in the way.
        wait: seconds it would have waited in all; ``inf`` if that is unknown.
        patience: seconds between its coming and its deadline.
        waiting: how many others wait.
    """
    name = "" if model is None else f" of {model}"
    # Three digits: it is an estimate, and the least that the wait can be.
    known = f"about {wait:.3g} s" if wait < math.inf else "for an unknown time"
    return RateLimitTimeoutError(
        f"{cause.value}{name} would have kept this call waiting {known}, and its deadline is "
        f"{max(patience, 0.0):.3g} s after it came ({waiting} others wait): nothing was sent; "
        f"wait longer, send less, or raise the limit",
        would_have_waited=wait,
    )
