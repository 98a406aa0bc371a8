"""The layers around every call, outermost first: fallback, cache, retry, hedging, circuit breaker.

:func:`classify` is what all of them ask about an error: whether a retry may help, whether it passes
by itself, whether it meets every other request too.
"""

from typing import TYPE_CHECKING

from konko_async._core.classification import Classification, classify, classify_status
from konko_async._core.graceful_stop import resting
from konko_async._core.lazy_names import lazy_names
from konko_async.middleware._breaker import CircuitBreakerMiddleware
from konko_async.middleware._budget import RetryBudget
from konko_async.middleware._circuit import CircuitBreaker, CircuitState
from konko_async.middleware._fallback import Fallback, FallbackMiddleware
from konko_async.middleware._retry import RetryMiddleware

if TYPE_CHECKING:
    from konko_async.middleware._cache.answer_cache import AnswerCache, CacheStats
    from konko_async.middleware._hedge import HedgeMiddleware
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {"_cache.answer_cache": "AnswerCache CacheStats", "_hedge": "HedgeMiddleware"},
    )

__all__ = [
    "AnswerCache",
    "CacheStats",
    "CircuitBreaker",
    "CircuitBreakerMiddleware",
    "CircuitState",
    "Classification",
    "Fallback",
    "FallbackMiddleware",
    "HedgeMiddleware",
    "RetryBudget",
    "RetryMiddleware",
    "classify",
    "classify_status",
    "resting",
]
