"""The policies a user sets: frozen values, checked when they are made."""

from __future__ import annotations

import math
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from typing import Any, Literal, Protocol, TypeAlias, Union

import msgspec

from konko_async._core.classification import RETRY_STATUSES
from konko_async.errors import ConfigurationError

__all__ = ["Priority", "RateLimit", "RetryPolicy", "Timeout"]

TimeoutLike: TypeAlias = Union[float, "Timeout", "HttpxTimeout"]
Priority = Literal["interactive", "batch"]
StoreChoice = Literal["local_share", "open", "closed"]
STORE_CHOICES: tuple[str, ...] = ("local_share", "open", "closed")


def _check_number(
    owner: str, name: str, value: object, *, low: float, integer: bool = False
) -> None:
    kinds = (int,) if integer else (int, float)
    # bool is an int in Python: max_attempts=True would pass for 1. The comparison also refuses NaN.
    if isinstance(value, bool) or not isinstance(value, kinds) or not low <= value < math.inf:
        kind = "an integer" if integer else "a number"
        raise ConfigurationError(
            f"{owner}: {name} must be {kind} of at least {low:g}, not {value!r}"
        )


def _is_positive(value: object) -> bool:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_number and 0 < value < math.inf  # type: ignore[operator]  # a number


def _check_callable(owner: str, name: str, value: object) -> None:
    if value is not None and not callable(value):
        raise ConfigurationError(
            f"{owner}: {name} must be callable or None, not {type(value).__name__}"
        )


def _check_statuses(value: object) -> None:
    if not isinstance(value, (AbstractSet, tuple, list)) or not all(type(s) is int for s in value):
        raise ConfigurationError(
            f"RetryPolicy: statuses must be a set of HTTP statuses, not {value!r:.100}"
        )


# Named, as Timeout.of() compares with them: a value that differs was chosen by the user.
_FIRST_TOKEN, _IDLE = 120.0, 60.0


class HttpxTimeout(Protocol):
    """The deadlines of ``httpx``: ``httpx.Timeout`` and ``openai.Timeout``."""

    connect: float | None
    read: float | None
    write: float | None
    pool: float | None


class Timeout(msgspec.Struct, frozen=True):
    """Deadlines of a call, in seconds; None switches one off.

    Attributes:
        connect: DNS, TCP and TLS of a new connection. Default 5. At most 128 are made to a host at
            once; others wait for as long as some are made, and not longer than this after that.
        first_token: from the start of an attempt (once the local limits let it through) to the
            first delta of a stream, or to the head of a whole answer, which servers send when all
            of it has been generated. Default 120.
        idle: the longest silence between tokens while the caller is waiting for one; comments and
            empty keep-alives do not count as tokens. Default 60.
        total: the whole call with its waiting, attempts and the reading of its stream. Default
            None.

    Raises:
        ConfigurationError: a value is not a positive finite number.
    """

    connect: float | None = 5.0
    first_token: float | None = _FIRST_TOKEN
    idle: float | None = _IDLE
    total: float | None = None

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            # 0 is refused, too: in some libraries it means "at once", in others "never".
            if value is not None and not _is_positive(value):
                raise ConfigurationError(
                    f"Timeout: {name} must be a number of seconds above 0, not {value!r:.40}; None "
                    "switches it off"
                )

    @classmethod
    def of(cls, value: TimeoutLike | None, default: Timeout) -> Timeout:
        """Read an argument: a number is a total, None is the default; httpx.Timeout is known.

        A total beyond the usual 120 s to the first token, or 60 s of silence, is meant for slow
        answers: these two then do not cut them short. Values that were chosen stay.

        Raises:
            ConfigurationError: neither a number, a Timeout nor None.
        """
        if value is None:
            return default
        if isinstance(value, Timeout):
            return value
        foreign: Any = value
        if all(hasattr(value, part) for part in ("connect", "read", "write", "pool")):
            # httpx.Timeout, known by its parts: `read` is the longest silence.
            return cls(foreign.connect, foreign.read, foreign.read, default.total)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ConfigurationError(
                f"timeout must be seconds or a Timeout, not {type(value).__name__}"
            )
        first_token, idle = default.first_token, default.idle
        # Without this, timeout=600 would still fail after 120 s without a token.
        if first_token == _FIRST_TOKEN:
            first_token = max(first_token, float(value))
        if idle == _IDLE:
            idle = max(idle, float(value))
        return cls(default.connect, first_token, idle, float(value))


class RetryPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """When and how an attempt is repeated; never once a delta has reached the caller.

    The wait before attempt k + 1 is drawn evenly from 0 to ``min(max_delay, base_delay·2^(k-1))``
    ("full jitter", M. Brooker, "Exponential Backoff And Jitter", AWS 2015). If the server names a
    wait (``retry-after-ms``, ``retry-after``), it is ``max(that, the backoff)`` plus 0-20 %.

    Attributes:
        max_attempts: attempts in all, the first included. Default 3.
        base_delay: seconds, the cap of the first wait. Default 0.5.
        max_delay: seconds, the cap of every wait that the server did not ask for. Default 8.
        max_retry_after: seconds; a server that asks for more is not waited for: its error is
            raised at once, with ``.retry_after``. Default 120.
        statuses: HTTP statuses that are repeated. Default 408, 409, 425, 429 and every 5xx except
            501 and 505. Whatever they are, an account without credit is not asked again, a 5xx that
            blames the request only once, and ``x-should-retry`` goes before them.
        attempt_timeout: seconds for one attempt, once the limits let it through, up to the first
            delta or the whole answer. Default None: only ``Timeout`` bounds it.
        budget_ratio: retries stay under this share of the calls, in outages and in partial ones
            (gRPC A6 ``tokenRatio``; a call that ends well earns ``ratio / (1 + ratio)``). A retry
            after a 429 that named a wait was invited, and costs nothing, nor does one after a 503
            or 529 that did while most attempts are answered. Default 0.1; None: no budget.
        budget_size: retries that the budget saves up for a burst of failures. Default 10.
        on_retry: called with the failed :class:`~konko_async.Attempt` before each wait.

    Raises:
        ConfigurationError: a value is out of its range.
    """

    max_attempts: int = 3
    base_delay: float = 0.5
    max_delay: float = 8.0
    max_retry_after: float = 120.0
    statuses: frozenset[int] = RETRY_STATUSES
    attempt_timeout: float | None = None
    budget_ratio: float | None = 0.1
    budget_size: float = 10.0
    on_retry: Callable[[Any], object] | None = None

    def __post_init__(self) -> None:
        _check_number("RetryPolicy", "max_attempts", self.max_attempts, low=1, integer=True)
        for name in ("base_delay", "max_delay", "max_retry_after", "budget_size"):
            _check_number("RetryPolicy", name, getattr(self, name), low=0)
        for name in ("attempt_timeout", "budget_ratio"):
            if getattr(self, name) is not None:
                _check_number("RetryPolicy", name, getattr(self, name), low=0)
        _check_statuses(self.statuses)
        _check_callable("RetryPolicy", "on_retry", self.on_retry)


class RateLimit(msgspec.Struct, frozen=True, kw_only=True):
    """What one key may ask of one model. Every limit is kept per model and key; None is no limit.

    Attributes:
        requests_per_minute: requests in any window of ``window`` seconds: a strict sliding window.
        tokens_per_minute: prompt and answer tokens in any such window.
        max_concurrency: calls in flight at once; a stream holds its slot until it is closed.
            ``"auto"`` finds the server's capacity by itself.
        burst: requests that may leave back to back. Whatever it is, the window holds: a larger
            burst lowers the steady rate (``burst - 1 + rate·window ≤ limit``). Tokens may burst
            by the same share of their limit. Default None: 1 % of the limit, at least 1.
        estimate_tokens: ``f(params: dict) -> int``, the tokens reserved for a call before it is
            sent, such as tiktoken's count plus max_tokens. Default None: UTF-8 bytes of the
            messages / 4, plus ``max_tokens`` (or 256 where it is not given) per choice.
        window: seconds. Default 60.
        learn: lower the limits to what the server's ``x-ratelimit-*`` headers and 429s show.
            Default True.
        store: where several processes keep these limits together, such as
            :class:`konko_async.integrations.redis.RedisStore`; slots (``max_concurrency``) stay
            each process's own. Default None: this client keeps them alone.
        on_store_failure: what is done while the store is unavailable, decided within half a
            second. ``"local_share"``: each process keeps the limits divided by how many took part
            last. ``"open"``: each process keeps all of the limits by itself. ``"closed"``: calls
            fail with :class:`~konko_async.RateLimitStoreError`. Default ``"local_share"``.

    Raises:
        ConfigurationError: a value is out of its range.
    """

    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    max_concurrency: int | Literal["auto"] | None = None
    burst: int | None = None
    estimate_tokens: Callable[[dict[str, Any]], int] | None = None
    window: float = 60.0
    learn: bool = True
    store: Any = None
    on_store_failure: StoreChoice = "local_share"

    def __post_init__(self) -> None:
        for name in ("requests_per_minute", "tokens_per_minute"):
            if getattr(self, name) is not None:
                _check_number("RateLimit", name, getattr(self, name), low=1)
        if self.max_concurrency is not None and self.max_concurrency != "auto":
            _check_number("RateLimit", "max_concurrency", self.max_concurrency, low=1, integer=True)
        if self.burst is not None:
            _check_number("RateLimit", "burst", self.burst, low=1, integer=True)
            if self.requests_per_minute is not None and self.burst > self.requests_per_minute:
                raise ConfigurationError(
                    f"RateLimit: burst ({self.burst}) is above requests_per_minute "
                    f"({self.requests_per_minute:g}): no window could hold it"
                )
        # A millisecond at least, as the window is divided by, and sent to stores in whole
        # microseconds.
        _check_number("RateLimit", "window", self.window, low=0.001)
        _check_callable("RateLimit", "estimate_tokens", self.estimate_tokens)
        # By what it can do, not by its type: a store is a Protocol that users may implement.
        if self.store is not None and not callable(getattr(self.store, "exchange", None)):
            raise ConfigurationError(
                "RateLimit: store must be a store of shared limits, such as RedisStore(url), not "
                f"{type(self.store).__name__}"
            )
        if self.on_store_failure not in STORE_CHOICES:
            raise ConfigurationError(
                f"RateLimit: on_store_failure must be one of {', '.join(STORE_CHOICES)}, not "
                f"{self.on_store_failure!r:.100}"
            )
