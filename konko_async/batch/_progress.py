"""Counts what a run does, and reports its progress."""

from __future__ import annotations

import time
from collections import deque
from typing import Final

import msgspec

from konko_async import Attempt, CallRecord, StoreRecord
from konko_async.batch._histogram import Histogram
from konko_async.batch._output.ledger import Ledger
from konko_async.batch._row_timing import call_seconds, note_seconds

__all__ = ["Progress", "Sample", "Tracker"]

_SAMPLES: Final = 512  # of the history; when it is full, every second one goes
_RECENT: Final = 30.0  # seconds over which the present speed is taken
# Codes come from the server, which may put a new one into each answer: memory has to stay bounded.
_KINDS: Final = 64  # kinds of errors that are distinguished
_TOO_MANY: Final = 429
_NO_FAILURE: Final = frozenset({None, "CancelledError"})


class Sample(msgspec.Struct, frozen=True, gc=False):
    """The state at one moment of a run; the history for plots is made of these.

    Attributes:
        seconds: since the run began.
        done: rows finished in this run, failed ones included.
        failed: of these.
        prompt_tokens: used in this run.
        completion_tokens: of all of them, as far as servers reported it.
        rate_limited: answers with 429 in this run.
        in_flight: calls running.
    """

    seconds: float
    done: int
    failed: int
    prompt_tokens: int
    completion_tokens: int
    rate_limited: int
    in_flight: int


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How a run is going.

    Attributes:
        rows: in the input; None while that is not known (a pipe).
        done: in the output, of earlier runs too, failed ones included.
        failed: of these, rows that failed, invalid ones included.
        invalid: of these, rows that could not be sent.
        finished: rows finished in this run.
        in_flight: rows being worked on.
        retried: attempts after a first one, in this run.
        rate_limited: answers with 429, in this run.
        repeated: rows given out again in this run, as the worker process that had them died.
        prompt_tokens: of all rows in the output, as far as servers reported it.
        completion_tokens: of all of them, as far as servers reported it.
        cached_tokens: of the prompts' tokens, those that servers had in their cache.
        reasoning_tokens: of the answers' tokens, those that are not in their text.
        empty: answers without text, of all rows in the output.
        cut: answers that were cut at ``max_tokens``.
        filtered: answers that a content filter cut or refused.
        from_cache: answers that came from the answer cache, without a call.
        prompt_tokens_per_second: over the last 30 seconds.
        completion_tokens_per_second: over the last 30 seconds.
        rows_per_second: over the last 30 seconds.
        cost: of all rows in the output whose price is known; None if none is.
        unpriced: rows in the output whose price is not known.
        projected_cost: of the whole input, if the rest is like what is done; None if unknown.
        currency: of the costs, such as ``USD``; None if unknown.
        elapsed: seconds since this run began.
        eta: seconds until its end at the present speed; None if unknown.
        stopping: whether no new rows are sent any more.
        errors: how often each kind of error ended a row in this run.
        latency: of the calls of this run, without their wait for the local limits.
        first_token: time until the first token of streamed calls, without that wait.
        history: samples over the whole run, at most 512, evenly spread.
        endpoints: attempts of this run by endpoint, and how many of them failed, where the client
            has several.
    """

    rows: int | None
    done: int
    failed: int
    invalid: int
    finished: int
    in_flight: int
    retried: int
    rate_limited: int
    prompt_tokens: int
    completion_tokens: int
    prompt_tokens_per_second: float
    completion_tokens_per_second: float
    rows_per_second: float
    cost: float | None
    unpriced: int
    projected_cost: float | None
    currency: str | None
    elapsed: float
    eta: float | None
    stopping: bool
    errors: dict[str, int]
    latency: Histogram
    first_token: Histogram
    history: tuple[Sample, ...]
    repeated: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    empty: int = 0
    cut: int = 0
    filtered: int = 0
    from_cache: int = 0
    endpoints: dict[str, tuple[int, int]] = {}


class Tracker:
    """Counts what a run does, at the cost of a few additions for each call.

    An observer of the client that makes them.

    Args:
        ledger: what is in the output.
        rows: in the input, or None.
        currency: of the costs.
    """

    skips_cached = True  # they took no time, and are counted by what is written

    def __init__(self, ledger: Ledger, rows: int | None, currency: str | None) -> None:
        self.rows = rows
        self.in_flight = 0
        self.retried = 0
        self.rate_limited = 0
        self.repeated = 0
        self.stopping = False
        self.errors: dict[str, int] = {}
        self.endpoints: dict[str, tuple[int, int]] = {}
        self.latency = Histogram()
        self.first_token = Histogram()
        self.history: list[Sample] = []
        self._ledger = ledger
        self._currency = currency
        self._began = time.monotonic()
        # The ledger counts earlier runs too; samples and speeds are those of this run alone.
        self._before = (
            ledger.done, ledger.failed, ledger.prompt_tokens, ledger.completion_tokens
        )  # fmt: skip
        self._recent: deque[Sample] = deque()
        self._every = 0.0
        self.sample()

    def observe(self, record: CallRecord | Attempt | StoreRecord) -> None:
        """Count a call or attempt of the client."""
        if isinstance(record, Attempt):
            self.rate_limited += record.status_code == _TOO_MANY
            # A hedge runs beside the first attempt: it repeats nothing that failed.
            self.retried += record.number > 1 and not record.hedge
            if record.endpoint is not None:
                made, failed = self.endpoints.get(record.endpoint, (0, 0))
                failed += record.error_type not in _NO_FAILURE
                self.endpoints[record.endpoint] = made + 1, failed
        elif isinstance(record, CallRecord) and (seconds := call_seconds(record)) is not None:
            # The wait for the client's own limits says nothing about the server.
            self.latency.add(seconds)
            note_seconds(seconds)
            if record.stream and record.time_to_first_token is not None:
                self.first_token.add(record.time_to_first_token - record.queued)

    __call__ = observe

    def retry(self) -> None:
        """Count an attempt after a row's first."""
        self.retried += 1

    def repeat(self) -> None:
        """Count a row that was given out again."""
        self.repeated += 1

    def failed(self, kind: str) -> None:
        """Count a row that failed."""
        if kind not in self.errors and len(self.errors) >= _KINDS:
            kind = "other"
        self.errors[kind] = self.errors.get(kind, 0) + 1

    @property
    def elapsed(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self._began

    def sample(self) -> Sample:
        """Note the state of the moment for the history."""
        ledger = self._ledger
        done, failed, prompt, answer = self._before
        now = Sample(
            self.elapsed,
            ledger.done - done,
            ledger.failed - failed,
            ledger.prompt_tokens - prompt,
            ledger.completion_tokens - answer,
            self.rate_limited,
            self.in_flight,
        )
        recent = self._recent
        recent.append(now)
        # One sample older than the window is kept: the speed is
        # taken over all of the window, not less.
        while len(recent) > 2 and now.seconds - recent[1].seconds > _RECENT:  # noqa: PLR2004 - two make a speed
            recent.popleft()
        if not self.history or now.seconds - self.history[-1].seconds >= self._every:
            self.history.append(now)
            if len(self.history) >= _SAMPLES:
                # Halved, and from now on noted half as often: the samples stay evenly spread, and
                # the first of them, where plots begin, is kept.
                del self.history[1::2]
                self._every = 2 * now.seconds / _SAMPLES
        return now

    def progress(self) -> Progress:
        """Return the state of the moment."""
        now, then, ledger = self.sample(), self._recent[0], self._ledger
        seconds = now.seconds - then.seconds
        speed = (now.done - then.done) / seconds if seconds > 0 else 0.0
        left = None if self.rows is None else self.rows - ledger.done
        priced = ledger.done - ledger.failed - ledger.unpriced
        # A sum of no prices is 0.0, which would read as "free": the cost is unknown then.
        cost = ledger.cost if priced else None
        return Progress(
            rows=self.rows,
            done=ledger.done,
            failed=ledger.failed,
            invalid=ledger.invalid,
            finished=now.done,
            in_flight=self.in_flight,
            retried=self.retried,
            rate_limited=self.rate_limited,
            prompt_tokens=ledger.prompt_tokens,
            completion_tokens=ledger.completion_tokens,
            prompt_tokens_per_second=_rate(then.prompt_tokens, now.prompt_tokens, seconds),
            completion_tokens_per_second=_rate(
                then.completion_tokens, now.completion_tokens, seconds
            ),
            rows_per_second=speed,
            cost=cost,
            unpriced=ledger.unpriced,
            # With rows of unknown price, a projection from the others would be too low.
            projected_cost=None
            if cost is None or left is None or ledger.unpriced
            else cost + cost / priced * left,
            currency=self._currency,
            elapsed=now.seconds,
            eta=left / speed if left is not None and speed > 0 else None,
            stopping=self.stopping,
            # Copies: a caller may keep the Progress that it gets while the run counts on.
            errors=dict(self.errors),
            latency=self.latency.copy(),
            first_token=self.first_token.copy(),
            history=tuple(self.history),
            repeated=self.repeated,
            cached_tokens=ledger.cached_tokens,
            reasoning_tokens=ledger.reasoning_tokens,
            empty=ledger.empty,
            cut=ledger.cut,
            filtered=ledger.filtered,
            from_cache=ledger.from_cache,
            endpoints=dict(self.endpoints),
        )


def _rate(then: int, now: int, seconds: float) -> float:
    return (now - then) / seconds if seconds > 0 else 0.0
