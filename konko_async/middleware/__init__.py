"""The layers around every call, outermost first: fallback, retry, hedging, circuit breaker."""

from konko_async.middleware._budget import RetryBudget
from konko_async.middleware._retry import RetryMiddleware

__all__ = ["RetryBudget", "RetryMiddleware"]
