"""The older text completions: one prompt in, text out."""

from __future__ import annotations

from typing import Any, ClassVar

import msgspec

from konko_async.wire._base import Answered, Wire
from konko_async.wire._chat import Usage

__all__ = ["Completion", "CompletionChoice", "CompletionLogprobs"]


class CompletionLogprobs(Wire):
    """Log probabilities in the older form: parallel lists, one entry per token."""

    tokens: list[str] | None = None
    # The first token of an echoed prompt has none: it follows nothing.
    token_logprobs: list[float | None] | None = None
    top_logprobs: list[dict[str, float | None] | None] | None = None
    text_offset: list[int] | None = None


class CompletionChoice(Wire):
    """One answer, or a chunk's part of one."""

    keeps_unknown: ClassVar[bool] = True

    text: str = ""
    index: int = 0
    finish_reason: str | None = None
    logprobs: CompletionLogprobs | None = None


class Completion(Answered, Wire):
    """A whole text completion, and also the chunk of a streamed one: the wire has one form."""

    keeps_unknown: ClassVar[bool] = True

    id: str = ""
    choices: list[CompletionChoice] = []
    created: int | float = 0
    model: str = ""
    object: str = "text_completion"
    usage: Usage | None = None
    system_fingerprint: str | None = None
    request_id: str | None = msgspec.field(default=None, name="_request_id")
    # An error inside a 200 answer; never reaches the caller as a completion.
    error: Any = msgspec.UNSET
