"""Sums over an output, for the charts: read step by step."""

from __future__ import annotations

import threading
import time
from array import array
from typing import TYPE_CHECKING, Any, Final

from konko_async.batch import RowLatencies
from konko_async.viewer._rows import Facts, facts

if TYPE_CHECKING:
    from konko_async.viewer._index import LineIndex

__all__ = ["Stats"]

_KINDS: Final = 30  # codes and reasons that are counted apart; servers may put anything there
_LATENCIES: Final = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0)
_TOKENS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)


class Stats:
    """Counts what is in an output.

    Args:
        index: of its lines.
        latencies: of its rows.
    """

    def __init__(self, index: LineIndex, latencies: RowLatencies) -> None:
        self._index = index
        self._latencies = latencies
        self._lock = threading.Lock()
        self._clear()

    def _clear(self) -> None:
        self._generation = self._index.generation
        self._scanned = 0
        self._sums = dict.fromkeys(
            ("ok", "failed", "cached", "prompt_tokens", "completion_tokens", "billed_prompt_tokens",
             "billed_completion_tokens"), 0
        )  # fmt: skip
        self._reasons: dict[str, int] = {}
        self._errors: dict[str, int] = {}
        self._latency = [0] * (len(_LATENCIES) + 1)
        # Rows that were read before a checkpoint with their latencies was written.
        self._unknown = array("Q")
        self._known = 0
        self._tokens = [0] * (len(_TOKENS) + 1)

    def advance(self, seconds: float) -> None:
        """Look at more rows, for about so many seconds. Blocks."""
        end = time.monotonic() + seconds
        with self._lock:
            if self._generation != self._index.generation:
                self._clear()
            while self._scanned < self._index.rows and time.monotonic() < end:
                # Small pieces: a line takes some microseconds, and a block may hold thousands.
                last = min(self._scanned + 1000, self._index.rows)
                for line in self._index.read(self._scanned, last):
                    self._add(facts(line))
                self._scanned = last
            self._look_again()

    def _look_again(self) -> None:
        known = self._latencies.known
        if known == self._known:
            return
        rows, self._unknown, self._known = self._unknown, array("Q"), known
        for row in rows:
            self._add_latency(row, self._latencies.of(row))

    def _add_latency(self, row: int, seconds: float | None) -> None:
        if seconds is None:
            self._unknown.append(row)
        else:
            self._latency[_bucket(seconds, _LATENCIES)] += 1

    def _add(self, found: Facts) -> None:
        sums = self._sums
        sums["ok" if found.ok else "failed"] += 1
        sums["cached"] += found.cached
        prompt, completion = found.prompt_tokens or 0, found.completion_tokens or 0
        sums["prompt_tokens"] += prompt
        sums["completion_tokens"] += completion
        if not found.cached:
            sums["billed_prompt_tokens"] += prompt
            sums["billed_completion_tokens"] += completion
        _count(self._reasons if found.ok else self._errors, found.finish_reason or "none"
               if found.ok else found.code or "error")  # fmt: skip
        if found.latency is not None and not found.cached:
            self._latency[_bucket(found.latency, _LATENCIES)] += 1
        elif found.ok and not found.cached and found.row is not None:
            self._add_latency(found.row, self._latencies.of(found.row))
        if found.completion_tokens is not None:
            self._tokens[_bucket(found.completion_tokens, _TOKENS)] += 1

    def to_dict(self) -> dict[str, Any]:
        """Return the sums so far."""
        with self._lock:
            return {
                "scanned": self._scanned,
                "complete": self._scanned >= self._index.rows and self._index.complete,
                **self._sums,
                "reasons": _largest(self._reasons),
                "errors": _largest(self._errors),
                "latency": _labelled(self._latency, _LATENCIES, " s"),
                "tokens": _labelled(self._tokens, _TOKENS, ""),
            }


def _count(counts: dict[str, int], name: str) -> None:
    name = name[:60]
    if name not in counts and len(counts) >= _KINDS:
        name = "other"
    counts[name] = counts.get(name, 0) + 1


def _bucket(value: float, bounds: tuple[float, ...]) -> int:
    return next((place for place, bound in enumerate(bounds) if value <= bound), len(bounds))


def _largest(counts: dict[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: -item[1])


def _labelled(counts: list[int], bounds: tuple[float, ...], unit: str) -> list[tuple[str, int]]:
    names = [*(f"up to {bound:g}{unit}" for bound in bounds), f"over {bounds[-1]:g}{unit}"]
    filled = [place for place, count in enumerate(counts) if count]
    if not filled:
        return []
    return list(zip(names, counts, strict=True))[filled[0] : filled[-1] + 1]
