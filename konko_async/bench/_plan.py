"""The load of a benchmark: a frozen value, validated when it is made."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import msgspec

from konko_async import ConfigurationError

__all__ = ["Plan", "Slo"]

_WHOLE = 100.0


def _check(
    name: str, value: object, *, low: float, integer: bool = False, above: bool = True
) -> None:
    """Refuse what is not a number, is below ``low``, or (floats with ``above``) equals it."""
    if value is None:
        return
    kinds = (int,) if integer else (int, float)
    # NaN fails the comparison, whichever bound is given; bool is an int in Python.
    good = isinstance(value, kinds) and not isinstance(value, bool) and low <= value < math.inf
    if not good or (above and not integer and value == low):
        kind = "an integer of at least" if integer else "a number above" if above else "at least"
        raise ConfigurationError(f"{name} must be {kind} {low:g}, not {value!r:.40}")


class Slo(msgspec.Struct, frozen=True, kw_only=True):
    """Latency objectives that a request must meet to count as goodput; None: no objective.

    Attributes:
        ttft: seconds to the first token, at most.
        tpot: seconds per output token after the first, at most.
        e2el: seconds to the last token, at most.

    Raises:
        ConfigurationError: one is negative or no number.
    """

    ttft: float | None = None
    tpot: float | None = None
    e2el: float | None = None

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            _check(f"Slo: {name}", getattr(self, name), low=0, above=False)

    @property
    def empty(self) -> bool:
        """Whether there is no objective."""
        return self.ttft is None and self.tpot is None and self.e2el is None


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """One load, and how it is measured.

    Attributes:
        model: the model's id.
        requests: how many to send; None: until ``duration`` is over.
        duration: seconds during which requests are sent; those in flight then finish. With both,
            whichever is reached first ends the run.
        concurrency: requests in flight at once, at most. Without a rate, a new one is sent as
            soon as one has ended; None is then as many as there are requests.
        request_rate: requests a second, whatever the server does. Default ``inf``: no rate.
        burstiness: shape of the gamma distribution of the gaps between arrivals: 1, the default,
            is a Poisson process, less comes in bursts, ``inf`` evenly.
        seed: of the arrivals.
        warmup: requests that are sent before, and not counted. Default 0.
        stream: whether answers are streamed; without it there is no first token to measure.
        ask_usage: whether to request token counts from the server
            (``stream_options.include_usage``); some older servers refuse it.
        output_tokens: maximum output tokens, where a prompt sets none.
        ignore_eos: ask for exactly so many tokens, by vLLM's ``ignore_eos`` in the body.
        params: further parameters of the calls, such as ``temperature`` or ``extra_body``.
        timeout: seconds for one request, after which it has failed; None: no end. Default 600.
        percentiles: which ones to report. Default 90, 95, 99.
        slo: objectives of the goodput.

    Raises:
        ConfigurationError: an option is out of its range, or two of them contradict.
    """

    model: str
    requests: int | None = None
    duration: float | None = None
    concurrency: int | None = None
    request_rate: float = math.inf
    burstiness: float = 1.0
    seed: int = 0
    warmup: int = 0
    stream: bool = True
    ask_usage: bool = True
    output_tokens: int | None = None
    ignore_eos: bool = False
    params: Mapping[str, Any] = msgspec.field(default_factory=dict)
    timeout: float | None = 600.0
    percentiles: tuple[float, ...] = (90.0, 95.0, 99.0)
    slo: Slo = Slo()

    def __post_init__(self) -> None:
        for name in ("requests", "concurrency", "output_tokens"):
            _check(f"Plan: {name}", getattr(self, name), low=1, integer=True)
        _check("Plan: warmup", self.warmup, low=0, integer=True)
        for name in ("duration", "timeout"):
            _check(f"Plan: {name}", getattr(self, name), low=0)
        # inf is a value of both: no rate, and gaps all alike.
        for name in ("request_rate", "burstiness"):
            if getattr(self, name) != math.inf:
                _check(f"Plan: {name}", getattr(self, name), low=0)
        for percent in self.percentiles:
            _check("Plan: percentiles", percent, low=0, above=False)
            if percent > _WHOLE:
                raise ConfigurationError(f"Plan: there is no {percent:g}th percentile")
        if not self.stream and (self.slo.ttft is not None or self.slo.tpot is not None):
            raise ConfigurationError("Plan: a whole answer has no first token; ask for e2el only")
        if self.requests is None and self.duration is None:
            raise ConfigurationError("Plan: say how many requests to send, or for how long")
        if self.requests is None and self.concurrency is None and not self.paced:
            raise ConfigurationError(
                "Plan: a duration alone would send without end; say the concurrency, or a rate"
            )

    @property
    def paced(self) -> bool:
        """Whether requests are sent at a rate, not one after the other."""
        return self.request_rate != math.inf
