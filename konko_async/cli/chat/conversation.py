"""A conversation: its messages and its sampling parameters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["Conversation", "Kept", "shown_text"]

Content = str | list[dict[str, Any]]


def shown_text(content: Content) -> str:
    """Return the text of a message; images show as ``[image]``."""
    if isinstance(content, str):
        return content
    texts = (part["text"] if part.get("type") == "text" else "[image]" for part in content)
    return "\n\n".join(texts)


@dataclass(frozen=True, slots=True)
class Kept:
    """Where a conversation is kept.

    Attributes:
        id: of the conversation.
        revision: that was read or written; another process may have written since.
    """

    id: str
    revision: int


class Conversation:
    """The messages so far; the model remembers nothing, so each call sends all of them.

    Args:
        system: the system message, if there is one.
        parameters: of the API, such as ``temperature``.

    Attributes:
        said: what the user and the model said.
        parameters: of the API, such as ``temperature``.
        kept: where it is kept; None if it is not.
    """

    def __init__(self, system: str | None, parameters: dict[str, Any]) -> None:
        self.system = system
        self.parameters = parameters
        self.said: list[dict[str, Any]] = []
        self.kept: Kept | None = None

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The messages of the next call: the system message, then what was said."""
        first = [{"role": "system", "content": self.system}] if self.system else []
        return [*first, *self.said]

    @property
    def last_answer(self) -> str | None:
        """The text of the last answer; None if there is none."""
        return next((m["content"] for m in reversed(self.said) if m["role"] == "assistant"), None)

    def fork(self) -> Conversation:
        """Return one that goes its own way from here."""
        other = Conversation(self.system, self.parameters)
        other.said = list(self.said)
        return other

    def clear(self) -> None:
        """Forget all but the system message."""
        self.said = []
        self.kept = None

    def ask(self, content: Content) -> None:
        """Add what the user says: text, or text and images as parts."""
        self.said.append({"role": "user", "content": content})

    def answered(self, text: str) -> None:
        """Add the model's answer; one without text takes the question back, to be asked again."""
        if text:
            self.said.append({"role": "assistant", "content": text})
        else:
            # Left in, it would be followed by another question, and some chat templates require the
            # roles to alternate.
            self.said.pop()

    def take_back(self) -> list[dict[str, Any]]:
        """Remove the last answer, so that its question is the last thing said.

        Returns:
            What was removed, to be put back if no other answer comes; empty if nothing was asked.
        """
        if len(self.said) < 2 or self.said[-1]["role"] != "assistant":  # noqa: PLR2004 - a question and its answer
            return []
        return [self.said.pop()]
