"""Records of what a call did, for errors and observers, and its HTTP response."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal, Protocol

import msgspec

__all__ = [
    "Attempt", "CallRecord", "HTTPResponse", "Observer", "PoolStats", "Priced", "RequestParams",
]  # fmt: skip


# gc=False: numbers and texts only, so that no cycle can form, and nothing is to be collected.
class Attempt(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One attempt of a call: when, what, how long.

    Attributes:
        number: 1 for the first attempt.
        model: the model asked, which fallbacks may change.
        base_url: where it was sent, without credentials; fallbacks may change it.
        started: seconds after the call began.
        duration: seconds from the attempt's start (after any back-off) to its end; for a stream
            that was opened, to its first delta.
        queued: seconds of it spent waiting for the local limits.
        connect: seconds that making a new connection took, its wait for a slot included; None if a
            pooled one served.
        first_token: seconds from the attempt's start to the first delta, or None.
        status_code: the HTTP status, if an answer arrived.
        error_type: name of the exception class, or None if the attempt succeeded.
        error: its message, cut to 500 characters.
        retry_delay: seconds waited after it before the next one.
        hedge: True for a second attempt started because the first was slow.
        endpoint: the name of the endpoint that it went to; None: the client has one server, or it
            never got that far.
    """

    number: int
    started: float
    duration: float
    model: str | None = None
    base_url: str | None = None
    queued: float = 0.0
    connect: float | None = None
    first_token: float | None = None
    status_code: int | None = None
    error_type: str | None = None
    # Cut, as servers quote whole prompts in their messages, and records are kept.
    error: str | None = None
    retry_delay: float | None = None
    hedge: bool = False
    endpoint: str | None = None


class RequestParams(
    msgspec.Struct, frozen=True, omit_defaults=True, repr_omit_defaults=True, gc=False
):
    """What a request said beside its prompt; None is "not given".

    OpenTelemetry's names for the fields are in brackets.

    Attributes:
        max_tokens: maximum output tokens [gen_ai.request.max_tokens].
        max_completion_tokens: the same under its newer name [gen_ai.request.max_tokens].
        temperature: [gen_ai.request.temperature].
        top_p: [gen_ai.request.top_p].
        top_k: [gen_ai.request.top_k].
        min_p: no name there.
        n: how many choices [gen_ai.request.choice.count].
        seed: [gen_ai.request.seed].
        stop: text or texts that end the answer [gen_ai.request.stop_sequences].
        presence_penalty: [gen_ai.request.presence_penalty].
        frequency_penalty: [gen_ai.request.frequency_penalty].
        repetition_penalty: no name there.
        reasoning_effort: such as ``low`` [gen_ai.request.reasoning.level].
        dimensions: of embeddings [gen_ai.embeddings.dimension.count].
        encoding_format: of embeddings on the wire [gen_ai.request.encoding_formats].
    """

    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    n: int | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    reasoning_effort: str | None = None
    dimensions: int | None = None
    encoding_format: str | None = None


class Priced(Protocol):
    """What prices tokens; :class:`konko_async.batch.Price` does."""

    def cost(
        self, prompt_tokens: int, completion_tokens: int, cached_tokens: int = 0
    ) -> float | None:
        """Return what so many tokens cost; None if that is not known."""


class CallRecord(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One call, from the user's ``await`` to the end of its answer. Holds no prompt or answer text.

    OpenTelemetry's names for the fields (semantic conventions for generative AI) are in brackets.

    Attributes:
        operation: ``chat``, ``text_completion``, ``embeddings`` or ``models``
            [gen_ai.operation.name].
        model: the model asked for [gen_ai.request.model].
        response_model: the model that answered [gen_ai.response.model].
        base_url: origin and path of the API that answered, without credentials; of a call that
            failed, of its last attempt [server.address].
        stream: whether the answer was streamed.
        priority: ``interactive`` or ``batch``.
        started_at: wall clock, seconds since 1970.
        duration: seconds, until the answer or stream was closed
            [gen_ai.client.operation.duration].
        queued: seconds spent waiting for the local limits, over all attempts.
        time_to_first_token: seconds from the call's start, None if none came
            [gen_ai.server.time_to_first_token, seen from the client].
        prompt_tokens: from the server's usage; None if it reported none
            [gen_ai.usage.input_tokens].
        completion_tokens: from the server's usage; None if it reported none
            [gen_ai.usage.output_tokens].
        cached_tokens: those of the prompt that the server had in its cache; None if it reported
            none [gen_ai.usage.cache_read.input_tokens].
        reasoning_tokens: those of the answer that nobody sees; None if the server reported none
            [gen_ai.usage.reasoning.output_tokens].
        chunks: of a stream, how many have arrived; None for a whole answer, and where no stream was
            opened.
        estimated_prompt_tokens: of a stream that was left or failed before its end, so that the
            server reported no usage: four UTF-8 bytes a token, and four tokens a message. Where an
            observer has an attribute ``wants_estimates`` that is true, also of streams that were
            read to their end, if the server reported no usage.
        estimated_completion_tokens: of such a stream: one token a chunk; where chunks hold more
            than eight bytes on average, four bytes a token.
        params: what the request said beside its prompt.
        response_id: the answer's id [gen_ai.response.id].
        finish_reasons: of the choices that have one, by their index
            [gen_ai.response.finish_reasons].
        attempts: the attempts made, oldest first.
        outcome: ``ok``, ``error``, ``cancelled`` or ``closed`` (a stream left before its end).
        error_type: name of the exception class [error.type].
        request_id: the server's ``x-request-id``.
        cached: whether the answer came from the answer cache. It used no tokens then: both numbers
            are 0.
    """

    operation: str
    base_url: str
    stream: bool
    # Only this field is wall-clock time; durations are of the event loop's clock, which nobody
    # sets.
    started_at: float
    duration: float
    outcome: Literal["ok", "error", "cancelled", "closed"]
    model: str | None = None
    response_model: str | None = None
    priority: str = "interactive"
    queued: float = 0.0
    time_to_first_token: float | None = None
    # None where the server reported nothing: 0 would be summed up as if it were known.
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None
    chunks: int | None = None
    estimated_prompt_tokens: int | None = None
    estimated_completion_tokens: int | None = None
    params: RequestParams = RequestParams()
    response_id: str | None = None
    finish_reasons: tuple[str, ...] = ()
    attempts: tuple[Attempt, ...] = ()
    error_type: str | None = None
    request_id: str | None = None
    cached: bool = False

    @property
    def endpoint(self) -> str | None:
        """The name of the endpoint that answered; None: there is one server, or none answered."""
        # The last that did not fail: a hedge that lost has been cancelled, which is an error.
        names = (one.endpoint for one in reversed(self.attempts) if not one.error_type)
        return next(names, None)

    def cost(self, price: Priced) -> float | None:
        """Return what the call cost, in the price's currency; None if that is not known.

        By the server's count of tokens; where there is none, by the estimates: a stream that its
        reader left is billed for what was generated. A call that failed before its answer began
        costs nothing.

        Args:
            price: such as ``Price(prompt=2e-7, completion=6e-7)``.
        """
        prompt, completion = self.prompt_tokens, self.completion_tokens
        if prompt is None:
            prompt, completion = self.estimated_prompt_tokens, self.estimated_completion_tokens
        if prompt is None:
            return None if self.outcome == "ok" else 0.0
        return price.cost(prompt, completion or 0, self.cached_tokens or 0)


class PoolStats(msgspec.Struct, frozen=True, kw_only=True):
    """The connections of a client at one moment.

    Attributes:
        in_use: connections that carry a call, or are being made for one.
        idle: connections that are kept for the next call.
        fast_path: whether requests go over the connections of aiohttp's pool directly. False: they
            go through aiohttp's ``ClientSession``, which takes more CPU: with a ``session=`` or
            ``trust_env=True``, with ``KONKO_ASYNC_FAST_PATH=0`` in the environment, where aiohttp
            is instrumented or mocked, or where the installed version is not recognised (a warning
            in the log says so).
    """

    in_use: int = 0
    idle: int = 0
    fast_path: bool = True


class StoreRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The store of shared limits became unavailable, or recovered: two records per episode.

    Attributes:
        state: ``away`` or ``back``.
        choice: what is done meanwhile: ``local_share``, ``open`` or ``closed``.
        processes: how many took part when the store was last asked; the divisor of a local share.
        at: wall clock, seconds since 1970.
        away: seconds it was away; 0 in the first record.
        error: why it is unavailable, cut to 500 characters; None in the second record.
    """

    state: Literal["away", "back"]
    choice: str
    processes: int
    at: float
    away: float = 0.0
    error: str | None = None


# Two forms, as observers written before shared limits know no StoreRecord, and still type-check.
Observer = (
    Callable[["CallRecord | Attempt | StoreRecord"], object]
    | Callable[["CallRecord | Attempt"], object]
)
"""Any callable; given one :class:`Attempt` per attempt and one :class:`CallRecord` per call, and,
where :attr:`RateLimit.store` is set, a :class:`StoreRecord` when it goes away or comes back."""


class HTTPResponse:
    """The HTTP response of a result, a stream or an error.

    Attributes:
        status_code: the HTTP status.
        headers: case-insensitive, secrets masked.
        content: the body; empty for a stream.
    """

    __slots__ = ("_close", "content", "headers", "status_code")

    def __init__(
        self,
        status_code: int,
        headers: Mapping[str, str],
        content: bytes = b"",
        close: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self.status_code = status_code
        self.headers = headers
        self.content = content
        self._close = close

    @property
    def text(self) -> str:
        """The body as text."""
        return self.content.decode("utf-8", "replace")

    def json(self) -> Any:
        """Return the body, decoded.

        Raises:
            ValueError: it is no JSON.
        """
        return json.loads(self.content)

    async def aclose(self) -> None:
        """Close the stream that it is of; nothing else."""
        if self._close is not None:
            await self._close()

    def __repr__(self) -> str:
        return f"<HTTPResponse {self.status_code}>"
