"""The report that a run returns, and the estimate of a dry run."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from konko_async.batch._histogram import Histogram
from konko_async.batch._progress import Progress, Sample

__all__ = ["BatchReport", "Estimate", "StopReason"]

StopReason = Literal[
    "stopped",
    "cancelled",
    "limit",
    "max_cost",
    "max_tokens_total",
    "max_failures",
    "ended",
    "jobs_cancelled",
]
# 130 is what shells report for a command that was ended by Ctrl-C: 128 + SIGINT.
_ENDED, _INTERRUPTED = 3, 130


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """What a run would take, as far as that can be estimated without a call.

    Attributes:
        rows: to be sent; those that are done or invalid are not counted.
        prompt_tokens: guessed: UTF-8 bytes / 4.
        max_tokens: the longest answers allowed (256 where a row does not say).
        cost: if all answers were that long; None if a price is not known.
        currency: of the cost.
        unpriced_models: models without a known price.
        seconds: at the client's limits of requests and tokens per minute; None without limits.
        models: rows by model.
    """

    rows: int
    prompt_tokens: int
    max_tokens: int
    cost: float | None
    currency: str | None
    unpriced_models: tuple[str, ...]
    seconds: float | None
    models: dict[str, int]


class BatchReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a run has done, and what is left.

    Attributes:
        input: the input's path.
        output: the output's path.
        rows: in the input; None if that is not known (a pipe that was not read to its end).
        done: in the output, of earlier runs too, failed ones included.
        failed: of these, rows that failed, invalid ones included.
        invalid: of these, rows that could not be sent.
        left: rows that are not in the output; None if that is not known.
        resumed: rows that earlier runs had done.
        finished: rows finished by this run.
        retried: attempts after a first one, in this run.
        rate_limited: answers with 429, in this run.
        prompt_tokens: of all rows in the output, as far as servers reported it.
        completion_tokens: of all rows in the output, as far as servers reported it.
        cached_tokens: of the prompts' tokens, those that servers had in their cache.
        reasoning_tokens: of the answers' tokens, those that are not in their text.
        empty: answers without text, of all rows in the output.
        cut: answers that were cut at ``max_tokens``.
        filtered: answers that a content filter cut or refused.
        from_cache: answers that came from the answer cache, without a call and at no cost.
        cost: of all rows in the output whose price is known; None if none is.
        unpriced: rows in the output whose price is not known.
        currency: of the cost, such as ``USD``; None if unknown.
        elapsed: seconds that this run took.
        rows_per_second: of this run.
        stopped: why it ended before the last row: ``stopped`` or ``cancelled`` (by ``stop=``),
            ``limit``, ``max_cost``, ``max_tokens_total``, ``max_failures``, ``jobs_cancelled`` (the
            jobs of the server, by ``ServerSide(cancel=True)``), or ``ended``: by an error that
            all rows would meet; None if it did not.
        errors: how often each kind of error ended a row in this run.
        latency: of the calls of this run, without their wait for the local limits.
        first_token: time until the first token of streamed calls, without that wait.
        history: samples over the whole run.
        estimate: with ``dry_run``, what it would take; else None.
        repeated: rows given out again in this run, as the worker process that had them died.
        endpoints: attempts of this run by endpoint, and how many of them failed, where the client
            has several.
    """

    input: str
    output: str
    rows: int | None
    done: int
    failed: int
    invalid: int
    left: int | None
    resumed: int
    finished: int
    retried: int
    rate_limited: int
    prompt_tokens: int
    completion_tokens: int
    cost: float | None
    unpriced: int
    currency: str | None
    elapsed: float
    rows_per_second: float
    stopped: StopReason | None
    errors: dict[str, int]
    latency: Histogram
    first_token: Histogram
    history: tuple[Sample, ...]
    estimate: Estimate | None = None
    repeated: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    empty: int = 0
    cut: int = 0
    filtered: int = 0
    from_cache: int = 0
    endpoints: dict[str, tuple[int, int]] = {}

    @classmethod
    def of(
        cls,
        progress: Progress,
        *,
        paths: tuple[str, str],
        resumed: int,
        stopped: StopReason | None,
        estimate: Estimate | None = None,
    ) -> BatchReport:
        """Make the report of a run from its last progress."""
        seconds = progress.elapsed
        # In a Progress, rows_per_second is that of the last 30 seconds;
        # here it is that of the whole run.
        shared = {
            name: getattr(progress, name)
            for name in cls.__struct_fields__
            if name in progress.__struct_fields__ and name != "rows_per_second"
        }
        return cls(
            **shared,
            input=paths[0],
            output=paths[1],
            left=None if progress.rows is None else progress.rows - progress.done,
            resumed=resumed,
            rows_per_second=progress.finished / seconds if seconds > 0 else 0.0,
            stopped=stopped,
            estimate=estimate,
        )

    @property
    def answered(self) -> int:
        """Rows in the output whose answer says something."""
        return self.done - self.failed - self.empty

    @property
    def exit_code(self) -> int:
        """0: all went well; 1: rows failed; 3: ended early; 130: interrupted by the user."""
        # The other limits (of rows, cost, tokens) were set by the user: reaching one is no failure.
        if self.stopped in {"ended", "max_failures"}:
            return _ENDED
        if self.stopped in {"stopped", "cancelled"}:
            return _INTERRUPTED
        return 1 if self.failed else 0

    def to_dict(self) -> dict[str, Any]:
        """Return it as builtins; histograms as their figures and buckets."""
        found: dict[str, Any] = {}
        for name in self.__struct_fields__:
            value = getattr(self, name)
            # A plain class, which to_builtins() refuses.
            if isinstance(value, Histogram):
                value = value.summary()
            found[name] = msgspec.to_builtins(value)
        return found

    def to_json(self) -> str:
        """Return it as JSON."""
        return msgspec.json.format(msgspec.json.encode(self.to_dict()), indent=2).decode()
