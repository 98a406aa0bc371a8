"""A conversation: what was said, and how the model is asked to answer."""

from __future__ import annotations

from typing import Any

__all__ = ["Conversation"]


class Conversation:
    """The messages so far; the model remembers nothing, so each call sends all of them.

    Args:
        system: the system message, if there is one.
        parameters: of the API, such as ``temperature``.

    Attributes:
        said: what the user and the model said.
        parameters: likewise.
    """

    def __init__(self, system: str | None, parameters: dict[str, Any]) -> None:
        self.system = system
        self.parameters = parameters
        self.said: list[dict[str, str]] = []

    @property
    def messages(self) -> list[dict[str, str]]:
        """What is sent."""
        first = [{"role": "system", "content": self.system}] if self.system else []
        return [*first, *self.said]

    @property
    def last_answer(self) -> str | None:
        """What the model said last."""
        return next((m["content"] for m in reversed(self.said) if m["role"] == "assistant"), None)

    def fork(self) -> Conversation:
        """Return one that goes its own way from here."""
        other = Conversation(self.system, self.parameters)
        other.said = list(self.said)
        return other

    def clear(self) -> None:
        """Forget all but the system message."""
        self.said = []

    def ask(self, text: str) -> None:
        """Add what the user says."""
        self.said.append({"role": "user", "content": text})

    def answered(self, text: str) -> None:
        """Add the model's answer; one without text takes the question back, to be asked again."""
        if text:
            self.said.append({"role": "assistant", "content": text})
        else:
            self.said.pop()

    def take_back(self) -> list[dict[str, str]]:
        """Remove the last answer, so that its question is the last thing said.

        Returns:
            What was removed, to be put back if no other answer comes; empty if nothing was asked.
        """
        if len(self.said) < 2 or self.said[-1]["role"] != "assistant":  # noqa: PLR2004 - a pair
            return []
        return [self.said.pop()]
