"""The older text completions: one prompt in, text out."""

from __future__ import annotations

from typing import Any

import msgspec

from konko_async.wire._base import Wire
from konko_async.wire._chat import Usage

__all__ = ["Completion", "CompletionChoice", "CompletionLogprobs"]


class CompletionLogprobs(Wire):
    """Log probabilities in the older form: parallel lists, one entry per token."""

    tokens: list[str] | None = None
    token_logprobs: list[float | None] | None = None
    top_logprobs: list[dict[str, float] | None] | None = None
    text_offset: list[int] | None = None


class CompletionChoice(Wire):
    """One answer, or a chunk's part of one."""

    text: str = ""
    index: int = 0
    finish_reason: str | None = None
    logprobs: CompletionLogprobs | None = None


class Completion(Wire):
    """A whole text completion, and also the chunk of a streamed one: the wire has one form."""

    id: str = ""
    choices: list[CompletionChoice] = []
    created: int | float = 0
    model: str = ""
    object: str = "text_completion"
    usage: Usage | None = None
    system_fingerprint: str | None = None
    request_id: str | None = msgspec.field(default=None, name="_request_id")
    error: Any = msgspec.UNSET
