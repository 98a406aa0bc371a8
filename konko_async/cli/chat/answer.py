"""Requests an answer, and passes it to a view as it arrives."""

from __future__ import annotations

import time
from typing import IO, Any, Protocol

from konko_async import (
    AsyncKonko,
    BadRequestError,
    ChatStream,
    ChoiceDelta,
    KonkoError,
    UnprocessableEntityError,
)
from konko_async.cli._output import clean, error_line
from konko_async.cli.chat.conversation import Conversation
from konko_async.cli.chat.tally import ChatAnswer, figures_line

__all__ = ["Asker", "PlainView", "View", "remarks", "verdict"]


class View(Protocol):
    """Shows an answer while it grows."""

    def begin(self) -> None:
        """Show that the answer is awaited."""

    def think(self, text: str) -> None:
        """Show more of the reasoning that comes before the answer."""

    def add(self, text: str) -> None:
        """Show more of the answer."""

    def end(self) -> None:
        """Finish; also called when the answer broke off."""


class PlainView:
    """Writes each piece at once, without control characters that a terminal would obey.

    Reasoning is left out: it is no part of the answer, and plain text could not set it apart.
    """

    def __init__(self, stream: IO[str]) -> None:
        self._last = "\n"
        self._stream = stream

    def begin(self) -> None:
        """Show nothing."""

    def think(self, text: str) -> None:
        """Show nothing."""

    def add(self, text: str) -> None:
        """Write and flush."""
        self._last = text[-1:] or self._last
        self._stream.write(clean(text))
        self._stream.flush()

    def end(self) -> None:
        """Finish the line, if one was begun."""
        if self._last != "\n":
            self._last = "\n"
            self._stream.write("\n")
            self._stream.flush()


class Asker:
    """Requests answers from a server, and times them.

    Args:
        client: that is used.
        usage: whether to ask for the tokens used; switched off for a server that refuses it.
    """

    def __init__(self, client: AsyncKonko, *, usage: bool) -> None:
        self.client = client
        self._usage = usage

    async def ask(
        self, conversation: Conversation, answer: ChatAnswer, view: View, **parameters: Any
    ) -> None:
        """Stream an answer into ``answer`` and ``view``; an error ends up in ``answer``, too.

        Args:
            conversation: with the question in it.
            answer: names the model; the rest is filled in. Its ``error`` says whether it failed.
            view: shows the answer.
            parameters: go before those of the conversation.
        """
        asked = {**conversation.parameters, **parameters, "messages": conversation.messages}
        view.begin()
        try:
            if self._usage:
                try:
                    # For the count of tokens; some servers refuse it with 400 or 422.
                    asked["stream_options"] = {"include_usage": True}
                    await self._stream(asked, answer, view)
                except (BadRequestError, UnprocessableEntityError) as error:
                    if "stream_options" not in error.message:
                        raise
                    # Nothing was shown yet, as the refusal comes before the first token.
                    # Remembered, or each further question would cost a refused request.
                    self._usage = False
                    del asked["stream_options"]
                else:
                    return
            await self._stream(asked, answer, view)
        except KonkoError as error:
            # Kept, not raised: other models of a comparison go on, and what came stays on screen.
            answer.error = error
            answer.attempts = max(len(error.attempts), answer.attempts)

    async def _stream(self, asked: dict[str, Any], answer: ChatAnswer, view: View) -> None:
        began = time.perf_counter()  # the clock of uvloop counts whole milliseconds
        stream = self.client.chat.completions.stream(model=answer.model, **asked)
        try:
            async with stream:
                while (batch := await stream.read()) is not None:
                    for chunk in batch.chunks():
                        answer.seconds = time.perf_counter() - began
                        for choice in chunk.choices:
                            if choice.index == 0:
                                _take(choice.delta, answer, view)
                answer.completion = await stream.completion()
        finally:
            answer.seconds = time.perf_counter() - began
            # In `finally`, as answers that broke off or were stopped have figures, too.
            _measure(stream, answer)


def _take(delta: ChoiceDelta, answer: ChatAnswer, view: View) -> None:
    """Pass the text of a chunk to the answer and to the view."""
    # Two names of one field: servers differ in which of them they send.
    thought = delta.reasoning_content or delta.reasoning
    # A refusal counts as a first token, and is shown by remarks(), once it is whole.
    if answer.first_token is None and (thought or delta.content or delta.refusal):
        answer.first_token = answer.seconds
    if thought:
        answer.deltas += 1
        view.think(thought)
    if delta.content:
        answer.deltas += 1
        answer.parts.append(delta.content)
        view.add(delta.content)


def _measure(stream: ChatStream, answer: ChatAnswer) -> None:
    answer.attempts = max(len(stream.attempts), answer.attempts)
    usage = stream.usage
    if usage is not None and usage.known:
        answer.prompt_tokens = usage.prompt_tokens
        answer.completion_tokens = usage.completion_tokens


def remarks(answer: ChatAnswer) -> list[str]:
    """Return what the text of an answer does not show, such as a refusal or a cut."""
    if answer.completion is None:
        return []
    found = []
    for choice in answer.completion.choices[:1]:
        if choice.message.refusal:
            found.append(f"the model refused: {choice.message.refusal}")
        if choice.message.tool_calls:
            names = ", ".join(call.function.name for call in choice.message.tool_calls)
            found.append(f"the model wants tools called, which chat does not do: {names}")
        if choice.finish_reason == "length":
            found.append("the answer was cut at the limit of tokens (--max-tokens)")
        elif choice.finish_reason == "content_filter":
            found.append("the server cut the answer (content_filter)")
    return found


def verdict(answer: ChatAnswer) -> list[str]:
    """Return the lines below one of several answers: how it ended, and its figures."""
    said = remarks(answer)
    if answer.error is not None:
        said.append(f"failed: {error_line(answer.error)}")
    elif answer.completion is None:
        said.append("stopped")
    if answer.first_token is not None:
        said.append(figures_line(answer))
    return said
