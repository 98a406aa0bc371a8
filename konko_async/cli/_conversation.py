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
        messages: what is sent.
        parameters: likewise.
    """

    def __init__(self, system: str | None, parameters: dict[str, Any]) -> None:
        self.system = system
        self.parameters = parameters
        self.messages: list[dict[str, str]] = []
        self.clear()

    def clear(self) -> None:
        """Forget all but the system message."""
        self.messages = [{"role": "system", "content": self.system}] if self.system else []

    def ask(self, text: str) -> None:
        """Add what the user says."""
        self.messages.append({"role": "user", "content": text})

    def answered(self, text: str) -> None:
        """Add the model's answer; one without text takes the question back, to be asked again."""
        if text:
            self.messages.append({"role": "assistant", "content": text})
        else:
            self.messages.pop()
