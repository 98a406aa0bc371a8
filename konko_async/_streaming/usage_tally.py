"""The usage of a streamed answer, put together from all that the server reports; pure."""

from __future__ import annotations

import msgspec

from konko_async.wire import Usage

__all__ = ["UsageTally"]


class UsageTally:
    """Adds up the usages of one stream as the server means them.

    Most servers report once, at the end. Others report with every chunk what has been used so far,
    or the prompt's tokens in one chunk and the answer's in another, or with each chunk what that
    chunk took. The last kind shows itself by a report that leaves the prompt out and does not
    grow although there is new text: a running total never does that.

    Attributes:
        total: what has been used, as far as reported; None if nothing was.
    """

    __slots__ = ("_per_chunk", "_sum", "total")

    def __init__(self) -> None:
        self.total: Usage | None = None
        self._sum = 0  # of the answer's tokens, as if each report were of one chunk
        self._per_chunk = False

    def add(self, new: Usage, *, with_content: bool) -> None:
        """Take in a report.

        Args:
            new: the report; some servers send ``{}``, which says nothing.
            with_content: whether it came in a chunk with a piece of the answer.
        """
        if not new.known:
            return
        known, count = self.total, new.completion_tokens
        self._sum += count
        if known is None or (new.prompt_tokens and count):
            self.total = new
            self._sum = count
            return
        if count and count <= known.completion_tokens and new.total_tokens <= count:
            self._per_chunk |= with_content or count < known.completion_tokens
        answer = self._sum if self._per_chunk else count or known.completion_tokens
        prompt = new.prompt_tokens or known.prompt_tokens
        self.total = msgspec.structs.replace(
            known,
            prompt_tokens=prompt,
            completion_tokens=answer,
            total_tokens=max(prompt + answer if prompt and answer else 0, new.total_tokens),
            prompt_tokens_details=new.prompt_tokens_details or known.prompt_tokens_details,
            completion_tokens_details=(
                new.completion_tokens_details or known.completion_tokens_details
            ),
        )
