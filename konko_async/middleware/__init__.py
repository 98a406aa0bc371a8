"""The layers around every call, outermost first: fallback, retry, hedging, circuit breaker."""

from konko_async._work import resting
from konko_async.middleware._breaker import CircuitBreakerMiddleware
from konko_async.middleware._budget import RetryBudget
from konko_async.middleware._circuit import CircuitBreaker, CircuitState
from konko_async.middleware._fallback import Fallback, FallbackMiddleware
from konko_async.middleware._hedge import HedgeMiddleware
from konko_async.middleware._retry import RetryMiddleware

__all__ = [
    "CircuitBreaker",
    "CircuitBreakerMiddleware",
    "CircuitState",
    "Fallback",
    "FallbackMiddleware",
    "HedgeMiddleware",
    "RetryBudget",
    "RetryMiddleware",
    "resting",
]
