"""Events and results of a run of tools, as values for user interfaces and for the record."""

from __future__ import annotations

from typing import Any, Generic, Literal, TypeVar

import msgspec

from konko_async.wire import ChatCompletion, Usage

__all__ = [
    "ReasoningDelta",
    "RoundFinished",
    "Status",
    "TextDelta",
    "ToolEvent",
    "ToolFinished",
    "ToolInvocation",
    "ToolOutcome",
    "ToolRunResult",
    "ToolStarted",
    "total_usage",
]

R = TypeVar("R")

Status = Literal["ok", "failed", "timeout", "invalid", "unknown", "denied"]


class ToolInvocation(msgspec.Struct, frozen=True, kw_only=True):
    """A call that the model requests.

    Attributes:
        id: the call's id; made up where the server gave none.
        name: the tool.
        arguments: as the function is given them, by name; as they came where they do not fit.
        text: the arguments as the model wrote them.
        round: the round whose answer requests it, from 1.
    """

    id: str
    name: str
    arguments: dict[str, Any]
    text: str
    round: int


class ToolOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of a call.

    Attributes:
        call: the call.
        status: ``ok``; ``failed`` (the tool raised) or ``timeout``; ``invalid`` (the arguments do
            not fit) or ``unknown`` (there is no such tool); ``denied`` (by ``before_tool``).
        output: what the model gets as the result.
        value: what the function returned; None if it did not.
        error: the exception of a tool that failed.
        duration: seconds that it took; 0 if it was not run.
    """

    call: ToolInvocation
    status: Status
    output: str
    value: Any = None
    error: BaseException | None = None
    duration: float = 0.0


class TextDelta(msgspec.Struct, frozen=True, tag="text"):
    """Text of the answer, as it arrives."""

    text: str
    round: int


class ReasoningDelta(msgspec.Struct, frozen=True, tag="reasoning"):
    """Reasoning of the model, as it arrives, if its server sends it."""

    text: str
    round: int


class ToolStarted(msgspec.Struct, frozen=True, tag="tool_started"):
    """A tool has begun to run. Calls that are not run have no such event."""

    call: ToolInvocation


class ToolFinished(msgspec.Struct, frozen=True, tag="tool_finished"):
    """A call has ended, also one that was not run; in the order in which they end."""

    outcome: ToolOutcome


class RoundFinished(msgspec.Struct, frozen=True, tag="round_finished"):
    """The model has answered, and the tools that it asked for have ended.

    Attributes:
        round: its number, from 1.
        completion: the model's answer.
        usage: its tokens; None if the server did not report them.
    """

    round: int
    completion: ChatCompletion
    usage: Usage | None


ToolEvent = TextDelta | ReasoningDelta | ToolStarted | ToolFinished | RoundFinished
"""What iterating over a :class:`ToolRun` yields."""


class ToolRunResult(msgspec.Struct, Generic[R], frozen=True, kw_only=True):
    """The result of a run.

    Attributes:
        completion: the model's last answer; with ``response_format=`` a type, its ``parsed`` is
            the value.
        messages: the whole conversation, tool messages and the last answer included; may be sent
            on.
        rounds: how often the model was asked.
        usage: tokens of all rounds, as far as the server reported them; None if it did not.
        calls: the outcome of each call, in the order in which they ended.
    """

    completion: R
    messages: list[Any]
    rounds: int
    usage: Usage | None
    calls: tuple[ToolOutcome, ...]


def total_usage(known: Usage | None, new: Usage | None) -> Usage | None:
    """Return the sum of two usages; what neither knows stays unknown."""
    if known is None or new is None:
        return known or new
    return _sum(known, new)  # type: ignore[no-any-return]  # two of a kind make one of it


def _sum(one: Any, other: Any) -> Any:
    # Details that only one round reports count; a missing one is unknown, not 0.
    if one is None or other is None:
        return other if one is None else one
    if isinstance(one, int):
        return one + other
    # Over all fields, details included, so that one that is added to Usage is summed as well.
    pairs = [(getattr(one, name), getattr(other, name)) for name in one.__struct_fields__]
    return type(one)(*[_sum(a, b) for a, b in pairs])
