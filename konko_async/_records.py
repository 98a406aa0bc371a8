"""Frozen records of what a call did: the history on errors, and what observers are given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import msgspec

__all__ = ["Attempt", "CallRecord", "Observer", "PoolStats"]


class Attempt(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One attempt of a call: when, what, how long.

    Attributes:
        number: 1 for the first attempt.
        model: the model asked, which fallbacks may change.
        started: seconds after the call began.
        duration: seconds from the attempt's start (after any back-off) to its end; for a stream
            that was opened, to its first delta.
        queued: seconds of it spent waiting for the local limits.
        connect: seconds that making a new connection took, its wait for a turn included; None if a
            pooled one served.
        first_token: seconds from the attempt's start to the first delta, or None.
        status_code: the HTTP status, if an answer arrived.
        error_type: name of the exception class, or None if the attempt succeeded.
        error: its message, cut to 500 characters.
        retry_delay: seconds waited after it before the next one.
        hedge: True for a second attempt started because the first was slow.
    """

    number: int
    started: float
    duration: float
    model: str | None = None
    queued: float = 0.0
    connect: float | None = None
    first_token: float | None = None
    status_code: int | None = None
    error_type: str | None = None
    error: str | None = None
    retry_delay: float | None = None
    hedge: bool = False


class CallRecord(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One call, from the user's ``await`` to the end of its answer. Holds no prompt or answer text.

    OpenTelemetry's names for the fields (semantic conventions for generative AI) are in brackets.

    Attributes:
        operation: ``chat``, ``text_completion``, ``embeddings`` or ``models``
            [gen_ai.operation.name].
        model: the model asked for [gen_ai.request.model].
        response_model: the model that answered [gen_ai.response.model].
        base_url: origin and path of the API [server.address].
        stream: whether the answer was streamed.
        priority: ``interactive`` or ``batch``.
        started_at: wall clock, seconds since 1970.
        duration: seconds, until the answer or stream was closed
            [gen_ai.client.operation.duration].
        queued: seconds spent waiting for the local limits, over all attempts.
        time_to_first_token: seconds from the call's start, None if none came
            [gen_ai.server.time_to_first_token, seen from the client].
        prompt_tokens: from the server's usage, None if it told none [gen_ai.usage.input_tokens].
        completion_tokens: likewise [gen_ai.usage.output_tokens].
        attempts: the attempts made, oldest first.
        outcome: ``ok``, ``error``, ``cancelled`` or ``closed`` (a stream left before its end).
        error_type: name of the exception class [error.type].
        request_id: the server's ``x-request-id``.
    """

    operation: str
    base_url: str
    stream: bool
    started_at: float
    duration: float
    outcome: Literal["ok", "error", "cancelled", "closed"]
    model: str | None = None
    response_model: str | None = None
    priority: str = "interactive"
    queued: float = 0.0
    time_to_first_token: float | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    attempts: tuple[Attempt, ...] = ()
    error_type: str | None = None
    request_id: str | None = None


class PoolStats(msgspec.Struct, frozen=True, kw_only=True):
    """The connections of a client at one moment.

    Attributes:
        in_use: connections that carry a call, or are being made for one.
        idle: connections that are kept for the next call.
    """

    in_use: int = 0
    idle: int = 0


class StoreRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The store of the shared limits went away, or came back: two records per episode.

    Attributes:
        state: ``away`` or ``back``.
        choice: what is done meanwhile: ``local_share``, ``open`` or ``closed``.
        processes: how many took part when the store was last asked; the divisor of a local share.
        at: wall clock, seconds since 1970.
        away: seconds it was away; 0 in the first record.
        error: why it cannot be asked, cut to 500 characters; None in the second record.
    """

    state: Literal["away", "back"]
    choice: str
    processes: int
    at: float
    away: float = 0.0
    error: str | None = None


Observer = (
    Callable[["CallRecord | Attempt | StoreRecord"], object]
    | Callable[["CallRecord | Attempt"], object]
)
"""Any callable; given one :class:`Attempt` per attempt and one :class:`CallRecord` per call, and,
where :attr:`RateLimit.store` is set, a :class:`StoreRecord` when it goes away or comes back."""
