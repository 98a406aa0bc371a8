"""What browsers are told of calls of tools, in whatever format."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from konko_async.tools import ToolInvocation, ToolOutcome

__all__ = ["CallIds", "result_of", "trouble_of"]

_TROUBLE: Final = {
    "failed": "the tool failed",  # its own words are for the model: they may name anything
    "timeout": "the tool took too long",
    "invalid": "the model's arguments do not fit this tool",
    "unknown": "the model called a tool that does not exist",
    "denied": "the call was not allowed",
}


class CallIds:
    """Ids by which browsers know calls: servers may give one again in the next round."""

    __slots__ = ("_of", "_taken")

    def __init__(self) -> None:
        self._of: dict[tuple[int, str], str] = {}
        self._taken: set[str] = set()

    def known(self, call: ToolInvocation) -> bool:
        """Whether the call has been told of."""
        return (call.round, call.id) in self._of

    def of(self, call: ToolInvocation) -> str:
        """Return the id of a call."""
        key = call.round, call.id
        if key not in self._of:
            shown = call.id
            while shown in self._taken:
                shown += f"_{call.round}"
            self._taken.add(shown)
            self._of[key] = shown
        return self._of[key]

    def place(self, call: ToolInvocation) -> int:
        """Return the number of a call that has been told of, from 0."""
        return list(self._of).index((call.round, call.id))


def trouble_of(outcome: ToolOutcome) -> str | None:
    """Return why a call has no result, in our words; None if it has one."""
    return _TROUBLE.get(outcome.status)


def result_of(outcome: ToolOutcome) -> Any:
    """Return what a tool returned, for JSON: it is not encoded again."""
    if isinstance(outcome.value, str):
        return outcome.output
    return msgspec.Raw(outcome.output.encode())
