"""What a run has done."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from konko_async.batch._histogram import Histogram
from konko_async.batch._progress import Progress, Sample

__all__ = ["BatchReport", "Estimate", "StopReason"]

StopReason = Literal["stopped", "cancelled", "limit", "max_cost", "max_tokens_total"]
_INTERRUPTED = 130


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """What a run would take, as far as that can be told without a call.

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
        prompt_tokens: of all rows in the output, as far as servers told.
        completion_tokens: likewise.
        cost: of all rows in the output whose price is known; None if none is.
        unpriced: rows in the output whose price is not known.
        currency: of the cost, such as ``USD``; None if unknown.
        elapsed: seconds that this run took.
        rows_per_second: of this run.
        stopped: why it ended before the last row: ``stopped`` or ``cancelled`` (by ``stop=``),
            ``limit``, ``max_cost`` or ``max_tokens_total``; None if it did not.
        errors: how often each kind of error ended a row in this run.
        latency: of the calls of this run, without their wait for the local limits.
        first_token: likewise, until the first token; of streams only.
        history: samples over the whole run.
        estimate: with ``dry_run``, what it would take; else None.
        repeated: rows given out again in this run, as the worker process that had them died.
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
        return cls(
            input=paths[0],
            output=paths[1],
            rows=progress.rows,
            done=progress.done,
            failed=progress.failed,
            invalid=progress.invalid,
            left=None if progress.rows is None else progress.rows - progress.done,
            resumed=resumed,
            finished=progress.finished,
            retried=progress.retried,
            rate_limited=progress.rate_limited,
            prompt_tokens=progress.prompt_tokens,
            completion_tokens=progress.completion_tokens,
            cost=progress.cost,
            unpriced=progress.unpriced,
            currency=progress.currency,
            elapsed=seconds,
            rows_per_second=progress.finished / seconds if seconds > 0 else 0.0,
            stopped=stopped,
            errors=progress.errors,
            latency=progress.latency,
            first_token=progress.first_token,
            history=progress.history,
            estimate=estimate,
            repeated=progress.repeated,
        )

    @property
    def exit_code(self) -> int:
        """0: all went well; 1: rows failed; 130: the run was interrupted."""
        if self.stopped in {"stopped", "cancelled"}:
            return _INTERRUPTED
        return 1 if self.failed else 0

    def to_dict(self) -> dict[str, Any]:
        """Return it as builtins; histograms as their figures and buckets."""
        found: dict[str, Any] = {}
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if isinstance(value, Histogram):
                value = value.summary()
            found[name] = msgspec.to_builtins(value)
        return found

    def to_json(self) -> str:
        """Return it as JSON."""
        return msgspec.json.format(msgspec.json.encode(self.to_dict()), indent=2).decode()
