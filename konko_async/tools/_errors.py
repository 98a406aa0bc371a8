"""Errors that end a run of tools early."""

from __future__ import annotations

from typing import Any, Literal

from konko_async.errors import KonkoError

__all__ = ["Limit", "ToolFailedError", "ToolLimitError", "ToolRunError"]

Limit = Literal["max_rounds", "max_tool_calls", "total_timeout"]


class ToolRunError(KonkoError):
    """``run_tools()`` stopped before the model was done.

    Attributes:
        messages: the conversation, as it can be sent again: it ends before the answer whose calls
            have not all been made.
        completion: the latest answer, with the calls that it asks for; None if there is none.
        calls: the outcome of each call that was begun, oldest first.
        rounds: how often the model was asked.
        usage: tokens of all rounds, as far as the server reported them; None if it did not.
        unfinished: the calls that had begun and have no outcome: cancelled, or, if their functions
            are sync, perhaps still running in their threads.
    """

    messages: list[Any]
    completion: Any | None
    calls: tuple[Any, ...]
    rounds: int
    usage: Any | None
    unfinished: tuple[Any, ...]

    def __init__(
        self,
        message: str,
        *,
        messages: list[Any] | None = None,
        completion: Any | None = None,
        calls: tuple[Any, ...] = (),
        rounds: int = 0,
        usage: Any | None = None,
        unfinished: tuple[Any, ...] = (),
    ) -> None:
        super().__init__(message)
        self.messages = [] if messages is None else messages
        self.completion = completion
        self.calls = calls
        self.rounds = rounds
        self.usage = usage
        self.unfinished = unfinished


class ToolLimitError(ToolRunError):
    """``run_tools()`` came to one of its limits.

    Attributes:
        limit: ``max_rounds``, ``max_tool_calls`` or ``total_timeout``.
    """

    limit: Limit

    def __init__(self, message: str, *, limit: Limit, **state: Any) -> None:
        super().__init__(message, **state)
        self.limit = limit


class ToolFailedError(ToolRunError):
    """A tool raised, or its arguments could not be read, and ``on_error="raise"`` was given.

    ``__cause__`` is its exception, or a ToolArgumentsError.

    Attributes:
        call: the call, with its name and arguments.
    """

    call: Any

    def __init__(self, message: str, *, call: Any = None, **state: Any) -> None:
        super().__init__(message, **state)
        self.call = call
