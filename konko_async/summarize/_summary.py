"""What became of the documents."""

from __future__ import annotations

from typing import Literal

import msgspec

from konko_async.batch import BatchReport

__all__ = ["Summary", "SummaryReport"]

_INTERRUPTED = 130


class Summary(msgspec.Struct, kw_only=True):
    """What became of one document.

    Attributes:
        document: its name.
        summary: of it; None if there is none.
        title: that the document gives itself.
        format: of it; None if it could not be read.
        characters: of its text.
        parts: that its text was split into.
        read: ``all`` of it, or its ``opening``.
        error: why there is no summary: ``code`` and ``message``; None also if the run was
            stopped before its turn.
    """

    document: str
    summary: str | None = None
    title: str | None = None
    format: str | None = None
    characters: int = 0
    parts: int = 0
    read: Literal["all", "opening"] = "all"
    error: dict[str, str] | None = None


class SummaryReport(msgspec.Struct, kw_only=True, frozen=True):
    """What a run has done.

    Attributes:
        summaries: of the documents in their order; those whose turn did not come have neither a
            summary nor an error.
        calls: what was asked of the server, over all rounds; with ``dry_run``, the estimate for
            the first round.
        rounds: how often parts were sent: 1, and more where summaries had to be summarised.
        more: with ``dry_run``, about how many calls come after the first round.
    """

    summaries: list[Summary]
    calls: BatchReport
    rounds: int
    more: int = 0

    @property
    def done(self) -> int:
        """Documents with a summary."""
        return sum(entry.summary is not None for entry in self.summaries)

    @property
    def failed(self) -> int:
        """Documents with an error."""
        return sum(entry.error is not None for entry in self.summaries)

    @property
    def left(self) -> int:
        """Documents whose turn did not come."""
        return len(self.summaries) - self.done - self.failed

    @property
    def exit_code(self) -> int:
        """0: all went well; 1: documents failed; 130: the run was interrupted."""
        if self.calls.stopped in {"stopped", "cancelled"}:
            return _INTERRUPTED
        return 1 if self.failed else 0
