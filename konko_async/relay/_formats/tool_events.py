"""What browsers learn about tool calls, whatever the format."""

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
        """Whether the call has been written already."""
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
        """Return the index of a call that has been written already, from 0."""
        return list(self._of).index((call.round, call.id))


def trouble_of(outcome: ToolOutcome) -> str | None:
    """Return why a call has no result, in our words; None if it has one."""
    return _TROUBLE.get(outcome.status)


def result_of(outcome: ToolOutcome) -> Any:
    """Return what a tool returned, as the model got it."""
    # A text is shown as text, even if it happens to be JSON.
    if isinstance(outcome.value, str):
        return outcome.output
    try:
        return msgspec.json.decode(outcome.output)
    except (msgspec.DecodeError, RecursionError):
        return outcome.output  # the JSON was too long and is cut
