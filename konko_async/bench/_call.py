"""Sends one request of a benchmark and times it."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from typing import Any

from konko_async import (
    APIStatusError,
    AsyncKonko,
    ChatCompletion,
    ChatCompletionChunk,
    ChunkBatch,
    ConfigurationError,
    KonkoError,
    RateLimit,
    Timeout,
    Usage,
)
from konko_async.bench._plan import Plan
from konko_async.bench._prompts import Prompt
from konko_async.bench._record import RequestTimes

__all__ = ["BenchCaller"]

# Connecting may be slow under load, and that is part of what is measured: a client's usual 5 s
# would turn it into errors.
_CONNECT = 60.0  # seconds
_MESSAGE = 300  # characters of an error that a record keeps: there may be a million records
_EMPTY = b'""'
_REJECTED = frozenset({429, 503, 529})  # after these a client backs off; 529: overloaded
_NOTHING = "the answer brought no token"


class BenchCaller:
    """Sends requests without retries, limits or circuit breaker, and with one deadline.

    Args:
        client: whose connections and key are used.
        plan: how to ask.
        clock: in seconds; the source of all times.

    Attributes:
        chunks: that have arrived so far.
        on_first: called with the time to the first token of each answer.
    """

    def __init__(self, client: AsyncKonko, plan: Plan, clock: Callable[[], float]) -> None:
        # No limit but the total: a late first token or a stall is a result to be reported, not an
        # error to be raised.
        timeout = Timeout(connect=_CONNECT, first_token=None, idle=None, total=plan.timeout)
        self._client = client.with_options(
            timeout=timeout,
            retry=None,
            # Not learned either: limits that the server announces would slow the load down.
            rate_limit=RateLimit(learn=False),
            fallback_models=(),
            hedge_after=None,
            circuit_breaker=None,
            verify_models=False,
        )
        self._plan = plan
        self._clock = clock
        self._params = _params(plan)
        self.chunks = 0
        self.on_first: Callable[[float], object] | None = None

    async def send(self, prompt: Prompt, zero: float, intended: float | None) -> RequestTimes:
        """Send one request and read its answer.

        Args:
            prompt: the prompt to send.
            zero: start of the run, by the clock.
            intended: when it was due, in seconds after that.

        Raises:
            ConfigurationError: it could not be sent at all.
        """
        plan, clock = self._plan, self._clock
        times = array("d")
        usage: Usage | None = None
        kind = message = None
        # After the request was built, before it is sent: what a user would wait for.
        started = clock()
        try:
            if plan.stream:
                usage = await self._stream(prompt, times, started)
            else:
                usage = await self._whole(prompt, times, started)
            if not times:
                # As in vLLM. It would have no latency, and would raise the throughput of requests.
                kind, message = "NoToken", _NOTHING
        # A KonkoError too, but no finding about the server: every further request would fail in the
        # same way.
        except ConfigurationError:
            raise
        except KonkoError as error:
            kind, message = self._failed(error)
        return RequestTimes(
            started=started - zero,
            ended=clock() - zero,
            times=times,
            intended=intended,
            streamed=plan.stream,
            input_tokens=prompt.input_tokens if usage is None else usage.prompt_tokens,
            output_tokens=_output_tokens(usage, len(times)),
            told=usage is not None and usage.completion_tokens > 0,
            error=kind,
            message=message,
        )

    async def _stream(self, prompt: Prompt, times: array[float], started: float) -> Usage | None:
        clock = self._clock
        async with self._client.chat.completions.stream(**self._ask(prompt)) as stream:
            while (batch := await stream.read()) is not None:
                # One time for all that arrived together: they were readable at the same moment.
                now = clock() - started
                number = _tokens_brought(batch)
                if not number:
                    continue
                if not times and self.on_first is not None:
                    self.on_first(now)
                self.chunks += number
                times.extend([now] * number)
            usage: Usage | None = stream.usage
            return usage

    async def _whole(self, prompt: Prompt, times: array[float], started: float) -> Usage | None:
        answer: ChatCompletion = await self._client.chat.completions.create(**self._ask(prompt))
        if answer.choices:
            times.append(self._clock() - started)
            self.chunks += 1
        return answer.usage

    def _ask(self, prompt: Prompt) -> dict[str, Any]:
        ask = {"model": self._plan.model, "messages": prompt.messages, **self._params}
        length = prompt.output_tokens or self._plan.output_tokens
        if length is not None:
            ask["max_tokens"] = length
        return ask

    def _failed(self, error: KonkoError) -> tuple[str, str]:
        kind = type(error).__name__
        if isinstance(error, APIStatusError):
            kind = f"{kind} {error.status_code}"
            if error.status_code in _REJECTED:
                # A client cools down after these, even one without limits; a fresh copy does not.
                self._client = self._client.with_options(rate_limit=RateLimit(learn=False))
        return kind, " ".join(error.message.split())[:_MESSAGE]


def _params(plan: Plan) -> dict[str, Any]:
    params = dict(plan.params)
    if plan.ignore_eos:
        # The caller's fields come last, so that they win.
        params["extra_body"] = {"ignore_eos": True, **(params.get("extra_body") or {})}
    if plan.stream and plan.ask_usage:
        params.setdefault("stream_options", {"include_usage": True})
    return params


def _output_tokens(usage: Usage | None, chunks: int) -> int:
    return chunks if usage is None or usage.completion_tokens <= 0 else usage.completion_tokens


def _tokens_brought(batch: ChunkBatch[ChatCompletionChunk]) -> int:
    """Count the chunks that bring a token."""
    # Chunks of one shape differ in their text only, and need not be decoded to be counted.
    shape = batch.shape
    if shape is None:
        return sum(map(_brings_token, batch.chunks()))
    if shape.choices[0].delta.role is None:
        return len(batch)
    # With a role in the template, an empty text is the opening chunk (see _brings_token); strings
    # are the texts as raw JSON.
    return sum(string != _EMPTY for string in batch.strings)


def _brings_token(chunk: ChatCompletionChunk) -> bool:
    """Whether a chunk brings a token, by vLLM's rule.

    A token may decode to no text, such as a special one: an empty content counts, unless it comes
    with the role, in the chunk that opens the answer.
    """
    if not chunk.choices:
        return False
    delta = chunk.choices[0].delta
    return bool(
        delta.content
        or delta.reasoning
        or delta.reasoning_content
        or delta.tool_calls
        or delta.function_call
        or (delta.content == "" and delta.role is None)
    )
