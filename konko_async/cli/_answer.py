"""Streaming one answer to whoever shows it."""

from __future__ import annotations

from typing import IO, Protocol

from konko_async import AsyncKonko, ChatCompletion
from konko_async.cli._conversation import Conversation
from konko_async.cli._output import clean, is_terminal, note

__all__ = ["PlainView", "View", "stream_answer"]


class View(Protocol):
    """Shows an answer while it grows."""

    text: str
    """What was shown so far."""

    def add(self, text: str) -> None:
        """Show more of it."""

    def end(self) -> None:
        """Finish; also called when the answer broke off."""


class PlainView:
    """Writes each piece at once: to a pipe as it is, to a terminal without control characters."""

    def __init__(self, stream: IO[str]) -> None:
        self.text = ""
        self._stream = stream
        self._clean = is_terminal(stream)

    def add(self, text: str) -> None:
        """Write and flush."""
        self.text += text
        self._stream.write(clean(text) if self._clean else text)
        self._stream.flush()

    def end(self) -> None:
        """Finish the line, if one was begun."""
        if self.text and not self.text.endswith("\n"):
            self._stream.write("\n")
            self._stream.flush()


async def stream_answer(
    client: AsyncKonko, model: str, conversation: Conversation, view: View
) -> ChatCompletion:
    """Ask for an answer and show it as it comes.

    Returns:
        The whole answer.

    Raises:
        KonkoError: the call failed; the view has what had come by then.
    """
    stream = client.chat.completions.stream(
        model=model, messages=conversation.messages, **conversation.parameters
    )
    try:
        async with stream:
            async for text in stream.text():
                view.add(text)
            completion = await stream.completion()
    finally:
        view.end()
    _remark(completion)
    return completion


def _remark(completion: ChatCompletion) -> None:
    """Say what the text alone does not tell."""
    for choice in completion.choices[:1]:
        if choice.message.refusal:
            note(f"the model refused: {choice.message.refusal}")
        if choice.finish_reason == "length":
            note("the answer was cut at the limit of tokens (--max-tokens)")
        elif choice.finish_reason == "content_filter":
            note("the server cut the answer (content_filter)")
