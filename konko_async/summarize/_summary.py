"""The results of a run: a summary or an error per document, and the report of all calls."""

from __future__ import annotations

from typing import Literal

import msgspec

from konko_async.batch import BatchReport

__all__ = ["Summary", "SummaryReport"]

# What a shell reports for a process that SIGINT ended: 128 + 2.
_ENDED, _INTERRUPTED = 3, 130


class Summary(msgspec.Struct, kw_only=True):
    """The summary of one document, or the error in its place.

    Attributes:
        document: its name.
        summary: of it; None if there is none.
        title: that the document gives itself.
        format: of it; None if it could not be read.
        characters: of its text.
        parts: that its text was split into.
        read: ``all`` of it, or its ``opening``.
        cut: why the summary, or that of a part, is not whole: ``length`` (the answer reached
            ``max_tokens`` twice) or ``content_filter``; None if it is.
        warnings: what was lost or replaced while the document was read.
        error: why there is no summary: ``code`` and ``message``; None also if the run ended
            before it was reached.
    """

    document: str
    summary: str | None = None
    title: str | None = None
    format: str | None = None
    characters: int = 0
    parts: int = 0
    read: Literal["all", "opening"] = "all"
    cut: Literal["length", "content_filter"] | None = None
    warnings: tuple[str, ...] = ()
    error: dict[str, str] | None = None


class SummaryReport(msgspec.Struct, kw_only=True, frozen=True):
    """The result of a run: summaries, and the report of its calls.

    Attributes:
        summaries: of the documents in their order; those that were not reached have neither a
            summary nor an error.
        calls: the report of all rounds' calls; with ``dry_run``, the estimate for the first round.
        rounds: how often parts were sent: 1, and more where summaries had to be summarised.
        more: with ``dry_run``, about how many calls come after the first round.
        digest: one text of all summaries, if it was asked for; its ``format`` is ``digest``, its
            ``parts`` the documents in it. None also if the run ended before it was begun.
    """

    summaries: list[Summary]
    calls: BatchReport
    rounds: int
    more: int = 0
    digest: Summary | None = None

    @property
    def done(self) -> int:
        """Documents with a summary."""
        return sum(entry.summary is not None for entry in self.summaries)

    @property
    def failed(self) -> int:
        """Documents with an error."""
        return sum(entry.error is not None for entry in self.summaries)

    @property
    def warned(self) -> int:
        """Documents with a summary that were read, or answered, only in part."""
        return sum(
            entry.summary is not None and bool(entry.warnings or entry.cut)
            for entry in self.summaries
        )

    @property
    def left(self) -> int:
        """Documents that were not reached before the run ended."""
        return len(self.summaries) - self.done - self.failed

    @property
    def exit_code(self) -> int:
        """0: all went well; 1: documents or the digest failed; 3: ended early; 130: interrupted."""
        if self.calls.stopped in {"stopped", "cancelled"}:
            return _INTERRUPTED
        if self.calls.stopped in {"ended", "max_failures"}:
            return _ENDED
        no_digest = self.digest is not None and self.digest.error is not None
        return 1 if self.failed or no_digest else 0
