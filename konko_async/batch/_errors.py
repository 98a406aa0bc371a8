"""What can go wrong with a batch as a whole; a row that fails is a line of the output instead.

::

    KonkoError
    ├─ WorkerLostError            a row whose worker died again and again
    └─ BatchError                 .report: what had been done, if the run had begun
       ├─ BatchInputError         .problems: (line, what is wrong), the first hundred; .count
       ├─ BatchChangedError       the input, or how requests are made of it, is not what it was
       ├─ BatchOutputError        the output or its journal cannot be written, or is not ours
       └─ BatchLockedError        another run writes to the same output
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from konko_async import KonkoError

if TYPE_CHECKING:
    from konko_async.batch._report import BatchReport

__all__ = [
    "BatchChangedError",
    "BatchError",
    "BatchInputError",
    "BatchLockedError",
    "BatchOutputError",
    "WorkerLostError",
]

_SHOWN = 10


class BatchError(KonkoError):
    """A batch cannot begin, or cannot go on.

    Attributes:
        report: what had been done until then; None if no row had been begun.
    """

    report: BatchReport | None = None


class BatchInputError(BatchError):
    """The input cannot be read, or holds rows that cannot be sent.

    Attributes:
        problems: for the first hundred, the line's number (from 1) and what is wrong with it.
        count: how many there are.
    """

    problems: tuple[tuple[int, str], ...]
    count: int

    def __init__(
        self, message: str, *, problems: Sequence[tuple[int, str]] = (), count: int = 0
    ) -> None:
        super().__init__(message)
        self.problems = tuple(problems)
        self.count = count

    @classmethod
    def of(
        cls, path: str, problems: Sequence[tuple[int, str]], count: int, advice: str
    ) -> BatchInputError:
        """Make the error that lists the problems of ``path``."""
        lines = [f"  line {line}: {what}" for line, what in problems[:_SHOWN]]
        if count > len(lines):
            lines.append(f"  and {count - len(lines)} more")
        head = f"{path}: {count} invalid row{'s' if count > 1 else ''}; {advice}"
        return cls("\n".join([head, *lines]), problems=problems, count=count)


class BatchChangedError(BatchError):
    """The input, or how requests are made of it, is not what this output was begun with."""


class BatchOutputError(BatchError):
    """The output or its journal cannot be written (disk full, I/O error), or is not ours."""


class BatchLockedError(BatchError):
    """Another run is writing to the same output."""


class WorkerLostError(KonkoError):
    """The worker process that made a row's call died, and so did those that tried it again."""
