"""The result of a benchmark run, under the names that vLLM gives to its figures."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, Literal

import msgspec

from konko_async.bench._plan import Plan, Slo
from konko_async.bench._record import RequestTimes
from konko_async.bench._statistics import Distribution, summarize
from konko_async.bench._watch import ClientCost

__all__ = ["BenchResult", "result_of", "token_times"]

_MS: Final = 1000.0
Source = Literal["usage", "chunks", "both", "none"]


class BenchResult(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one run. Times are in seconds, rates per second.

    Attributes:
        plan: the load.
        base_url: the server.
        started_at: wall clock, seconds since 1970.
        duration: from the first request's sending to the end of the last one.
        completed: requests that brought an answer.
        failed: requests that did not; they are in no latency and no throughput.
        cancelled: requests that were in flight when the run was stopped.
        interrupted: whether it was stopped.
        errors: how often each kind of error came.
        messages: the first message of each kind.
        input_tokens: of the prompts of completed requests.
        output_tokens: of their answers.
        token_source: where ``output_tokens`` comes from: the server's ``usage``, the number of
            ``chunks``, ``both``.
        request_throughput: completed requests a second.
        output_throughput: output tokens a second.
        total_token_throughput: input and output tokens a second.
        goodput: completed requests a second that met the plan's objectives; None without any.
        max_output_tokens_per_s: chunks in the busiest second.
        max_concurrent_requests: requests that were in flight in any part of one second, at most.
        peak_in_flight: requests in flight at one moment, at most.
        ttft: time to first token; None if no answer was streamed.
        tpot: time per output token, without the first; None if no answer was streamed.
        itl: inter-token latency; None if no answer was streamed.
        e2el: end-to-end latency; None if nothing was completed.
        queued: from when a request was due to when it was sent; None without a request rate.
        e2el_queued: end-to-end latency from when a request was due: what a user would have
            waited; None without a request rate.
        client: what the measuring took on this side.
        records: of all requests, failed ones too.
    """

    plan: Plan
    base_url: str
    started_at: float
    duration: float
    completed: int
    failed: int
    cancelled: int
    interrupted: bool
    errors: dict[str, int]
    messages: dict[str, str]
    input_tokens: int
    output_tokens: int
    token_source: Source
    request_throughput: float
    output_throughput: float
    total_token_throughput: float
    goodput: float | None
    max_output_tokens_per_s: int
    max_concurrent_requests: int
    peak_in_flight: int
    ttft: Distribution | None
    tpot: Distribution | None
    itl: Distribution | None
    e2el: Distribution | None
    queued: Distribution | None
    e2el_queued: Distribution | None
    client: ClientCost
    records: tuple[RequestTimes, ...]

    @property
    def warnings(self) -> list[str]:
        """Reasons to doubt these figures, one sentence each."""
        return list(_warnings(self))

    def to_dict(self, *, detailed: bool = False) -> dict[str, Any]:
        """Return the result as ``vllm bench serve`` writes it, and what it has beyond that.

        What was not measured is None (vLLM writes 0).

        Args:
            detailed: with the figures of each request.
        """
        return {
            **_traffic(self),
            **_totals(self),
            **(_details(self) if detailed else {}),
            **_latencies(self),
            **_beyond(self),
        }


def result_of(
    plan: Plan,
    records: tuple[RequestTimes, ...],
    *,
    base_url: str,
    started_at: float,
    duration: float,
    peak_in_flight: int,
    interrupted: bool,
    cancelled: int,
    client: ClientCost,
) -> BenchResult:
    """Work out the figures of a run from its records."""
    good = [record for record in records if record.ok]
    inputs = sum(record.input_tokens or 0 for record in good)
    outputs = sum(record.output_tokens for record in good)
    seconds = duration if duration > 0 else math.inf  # a run without requests has no throughput
    kinds = [(record.error, record.message or "") for record in records if record.error]
    busiest, most = _busiest(good)
    return BenchResult(
        plan=plan,
        base_url=base_url,
        started_at=started_at,
        duration=duration,
        completed=len(good),
        failed=len(records) - len(good),
        cancelled=cancelled,
        interrupted=interrupted,
        errors=dict(Counter(kind for kind, _ in kinds)),
        messages=dict(reversed(kinds)),  # reversed: the first message of each kind stays
        input_tokens=inputs,
        output_tokens=outputs,
        token_source=_source(good),
        request_throughput=len(good) / seconds,
        output_throughput=outputs / seconds,
        total_token_throughput=(inputs + outputs) / seconds,
        goodput=None if plan.slo.empty else sum(meets(r, plan.slo) for r in good) / seconds,
        max_output_tokens_per_s=busiest,
        max_concurrent_requests=most,
        peak_in_flight=peak_in_flight,
        client=client,
        records=records,
        **_summaries(plan, good),
    )


def _summaries(plan: Plan, good: Sequence[RequestTimes]) -> dict[str, Distribution | None]:
    def of(values: Iterable[float | None]) -> Distribution | None:
        return summarize((v for v in values if v is not None), plan.percentiles)

    return {
        "ttft": of(record.ttft for record in good),
        "tpot": of(record.tpot for record in good),
        # Over all gaps of all answers, as vLLM does, so a long answer weighs more than a short one.
        "itl": of(gap for record in good for gap in record.itl),
        "e2el": of(record.e2el for record in good),
        "queued": of(record.queued for record in good) if plan.paced else None,
        "e2el_queued": of(r.queued + r.e2el for r in good) if plan.paced else None,
    }


def meets(record: RequestTimes, slo: Slo) -> bool:
    """Whether a request met the objectives; an answer of one token has a ``tpot`` of 0."""
    pairs = ((slo.ttft, record.ttft), (slo.tpot, record.tpot), (slo.e2el, record.e2el))
    return all(limit is None or (value or 0.0) <= limit for limit, value in pairs)


def _source(good: Sequence[RequestTimes]) -> Source:
    told = sum(record.told for record in good)
    if not good:
        return "none"
    return "usage" if told == len(good) else "both" if told else "chunks"


def token_times(records: Iterable[RequestTimes]) -> Iterator[float]:
    """Yield when each chunk with a token came, in seconds after the run began."""
    for record in records:
        for seconds in record.times:
            yield record.started + seconds


def _busiest(good: Sequence[RequestTimes]) -> tuple[int, int]:
    """Return the most chunks, and the most requests in flight, in one second of the run."""
    if not good:
        return 0, 0
    # Whole seconds from the first departure, as vLLM counts them (calculate_metrics).
    zero = min(record.started for record in good)
    chunks = Counter(int(when - zero) for when in token_times(good))
    flights: Counter[int] = Counter()
    for record in good:
        flights.update(
            range(int(record.started - zero), int(record.started + record.e2el - zero) + 1)
        )
    return max(chunks.values()), max(flights.values())


def _traffic(result: BenchResult) -> dict[str, Any]:
    plan = result.plan
    return {
        "date": time.strftime("%Y%m%d-%H%M%S", time.localtime(result.started_at)),
        # The names and values of vLLM's result files, so that what reads those reads ours.
        "backend": "openai-chat",
        "model_id": plan.model,
        "num_prompts": plan.requests,
        "request_rate": plan.request_rate if plan.paced else "inf",
        "burstiness": "inf" if plan.burstiness == math.inf else plan.burstiness,
        "max_concurrency": plan.concurrency,
    }


def _totals(result: BenchResult) -> dict[str, Any]:
    return {
        "duration": result.duration,
        "completed": result.completed,
        "failed": result.failed,
        "total_input_tokens": result.input_tokens,
        "total_output_tokens": result.output_tokens,
        "request_throughput": result.request_throughput,
        "request_goodput": result.goodput,
        "output_throughput": result.output_throughput,
        "total_token_throughput": result.total_token_throughput,
        "max_output_tokens_per_s": result.max_output_tokens_per_s,
        "max_concurrent_requests": result.max_concurrent_requests,
    }


def _details(result: BenchResult) -> dict[str, Any]:
    records = result.records
    return {
        "input_lens": [record.input_tokens for record in records],
        "output_lens": [record.output_tokens for record in records],
        "start_times": [record.started for record in records],
        "ttfts": [record.ttft for record in records],
        "itls": [record.itl for record in records],
        "latencies": [record.e2el if record.times else None for record in records],
        "queue_times": [record.queued for record in records],
        "errors": [f"{r.error}: {r.message}" if r.error else "" for r in records],
    }


_NAMES: Final = {
    "ttft": "ttft",
    "tpot": "tpot",
    "itl": "itl",
    "e2el": "e2el",
    "client_queue_time": "queued",
    "e2el_including_client_queue": "e2el_queued",
}


def _latencies(result: BenchResult) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, attribute in _NAMES.items():
        summary: Distribution | None = getattr(result, attribute)
        # Without a rate no request was ever due, so there is nothing of which null could be the
        # value.
        if attribute.endswith("queued") and not result.plan.paced:
            continue
        for part in ("mean", "median", "std"):
            value = None if summary is None else getattr(summary, part) * _MS
            found[f"{part}_{name}_ms"] = value
        for percent in result.plan.percentiles:
            value = None if summary is None else summary.percentiles[percent] * _MS
            found[f"p{percent:g}_{name}_ms"] = value
    return found


def _beyond(result: BenchResult) -> dict[str, Any]:
    """Return the figures that vLLM does not report."""
    plan, client = result.plan, result.client
    per_chunk = client.cpu_per_chunk
    return {
        "base_url": result.base_url,
        "stream": plan.stream,
        "seed": plan.seed,
        "num_warmups": plan.warmup,
        "output_token_source": result.token_source,
        "peak_in_flight": result.peak_in_flight,
        "errors_by_class": result.errors,
        "error_messages": result.messages,
        "goodput_slo_ms": {
            name: value * _MS
            for name in plan.slo.__struct_fields__
            if (value := getattr(plan.slo, name)) is not None
        },
        "interrupted": result.interrupted,
        "cancelled": result.cancelled,
        "client_cpu_share": client.cpu_share,
        "client_cpu_us_per_chunk": None if per_chunk is None else per_chunk * 1e6,
        "client_loop_lag_p99_ms": client.loop_lag * _MS,
        "warnings": result.warnings,
    }


def _warnings(result: BenchResult) -> Iterator[str]:
    plan, client = result.plan, result.client
    if client.is_bottleneck:
        yield (
            f"this client was busy for {client.cpu_share:.0%} of the time: it measured itself; "
            "run several at once, or on another machine"
        )
    if plan.paced and result.queued is not None and result.duration > 0:
        sent = len(result.records) / result.duration
        # With a cap on concurrency, waiting here is what was asked for.
        if plan.concurrency is None and result.queued.median > 1 / plan.request_rate:
            yield f"requests left late: this client reached {sent:.3g} requests/s"
    if result.interrupted:
        yield f"stopped early; {result.cancelled} requests in flight were cancelled"
    if result.completed and result.token_source in {"chunks", "both"}:
        yield "the server reported no usage for some answers: their chunks are counted as tokens"
