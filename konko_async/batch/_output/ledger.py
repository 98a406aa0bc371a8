"""Which rows are done: one byte per row, and sums of tokens and cost. No I/O."""

from __future__ import annotations

import sys
from array import array
from typing import Any, Final, TypeVar

from konko_async.batch._output.answers import Used

__all__ = ["FAILED", "OK", "SUMS", "TODO", "Ledger", "add_used", "little_endian", "pack", "unpack"]

T = TypeVar("T", int, float)

TODO: Final = 0
OK: Final = 1
FAILED: Final = 2
SUMS: Final = (
    "invalid", "prompt_tokens", "completion_tokens", "cached_tokens", "reasoning_tokens", "empty",
    "cut", "filtered", "cost", "unpriced", "from_cache",
)  # fmt: skip
"""The sums that a ledger holds, and a checkpoint adds to."""


class Ledger:
    """Records what has been done: one byte per row, and a few sums.

    Args:
        keeps: whether rows are distinguished; False for a pipe, which may have no end.

    Attributes:
        states: ``TODO``, ``OK`` or ``FAILED`` for each row, as far as any is known.
        end: up to where the output is known to be on the disk.
        done: rows that are not ``TODO``.
        failed: rows that failed, invalid ones included.
        invalid: rows that could not be sent.
        prompt_tokens: of all answers.
        completion_tokens: of all answers.
        cached_tokens: of their prompts, those that servers had in their cache.
        reasoning_tokens: of the answers, those that are not in their text.
        empty: answers without text.
        cut: answers that were cut at ``max_tokens``.
        filtered: answers that a content filter cut or refused.
        cost: of the answers with a known price.
        unpriced: answers without one.
        from_cache: answers that came from the answer cache.
    """

    __slots__ = (
        "_keeps", "cached_tokens", "completion_tokens", "cost", "cut", "done", "empty", "end",
        "failed", "filtered", "from_cache", "invalid", "prompt_tokens", "reasoning_tokens",
        "states", "unpriced",
    )  # fmt: skip

    def __init__(self, *, keeps: bool = True) -> None:
        self.states = bytearray()
        self._keeps = keeps
        self.end = 0
        self.done = self.failed = self.invalid = 0
        self.prompt_tokens = self.completion_tokens = self.unpriced = 0
        self.cached_tokens = self.reasoning_tokens = 0
        self.empty = self.cut = self.filtered = self.from_cache = 0
        self.cost = 0.0

    def state(self, row: int) -> int:
        """Return what is known of a row."""
        return self.states[row] if row < len(self.states) else TODO

    def add(self, row: int, *, failed: bool, used: Used) -> bool:
        """Note a row and what it used; False if it was noted before."""
        if not self.mark(row, FAILED if failed else OK):
            return False
        add_used(self, used, failed=failed)
        return True

    def mark(self, row: int, state: int) -> bool:
        """Note a row; False if it was noted before."""
        if self._keeps and not self._set(row, state):
            return False
        self.done += 1
        self.failed += state == FAILED
        return True

    def _set(self, row: int, state: int) -> bool:
        if row >= len(self.states):
            # In steps, or a row at a time would copy all of it each time.
            self.states.extend(bytes(max(row + 1 - len(self.states), 4096)))
        if self.states[row] != TODO:
            return False
        self.states[row] = state
        return True

    def mark_all(self, packed: bytes, state: int) -> None:
        """Note the rows of a checkpoint."""
        for row in unpack(packed):
            self.mark(row, state)


def add_used(sums: Any, used: Used, *, failed: bool) -> None:
    """Add what a row used to the sums of a ledger or a checkpoint."""
    if used.from_cache and not failed and not (used.prompt_tokens or used.completion_tokens):
        sums.from_cache += 1
        if used.empty or used.cut or used.filtered:
            _add_flaws(sums, used)
        return
    sums.prompt_tokens += used.prompt_tokens
    sums.completion_tokens += used.completion_tokens
    if used.cached_tokens:
        sums.cached_tokens += used.cached_tokens
    if used.reasoning_tokens:
        sums.reasoning_tokens += used.reasoning_tokens
    if used.cost is not None:
        sums.cost += used.cost
    # A failed row may have to be paid for (AnswerError), but is
    # no answer that these figures describe.
    if not failed:
        sums.unpriced += used.cost is None
        sums.from_cache += used.from_cache
        if used.empty or used.cut or used.filtered:
            _add_flaws(sums, used)


def _add_flaws(sums: Any, used: Used) -> None:
    sums.empty += used.empty
    sums.cut += used.cut
    sums.filtered += used.filtered


def pack(rows: list[int]) -> bytes:
    """Return row numbers as little-endian 32 bits each."""
    return little_endian(array("I", rows)).tobytes()


def unpack(packed: bytes) -> array[int]:
    """Return the row numbers of :func:`pack`."""
    return little_endian(array("I", packed))


def little_endian(values: array[T]) -> array[T]:
    """Swap values between the machine's byte order and little-endian, in place; return them.

    A journal may be resumed on a machine with another byte order.
    """
    if sys.byteorder == "big":
        values.byteswap()
    return values
