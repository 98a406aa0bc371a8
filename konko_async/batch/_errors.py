"""What can go wrong with a batch as a whole; a row that fails is a line of the output instead.

::

    KonkoError
    ├─ WorkerLostError            a row whose worker died again and again
    ├─ AnswerError                .code: an answer without choices, or one that fail_on= names
    └─ BatchError                 .report: what had been done, if the run had started
       ├─ BatchStoppedError       .reason: no row can be answered now; run it again later
       ├─ BatchInputError         .problems: (line, what is wrong), the first hundred; .count
       ├─ BatchChangedError       the input, or how requests are made of it, is not what it was
       ├─ BatchOutputError        the output or its journal cannot be written, or is not ours
       └─ BatchLockedError        another run writes to the same output
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from konko_async import KonkoError

if TYPE_CHECKING:
    from konko_async.batch._report import BatchReport

__all__ = [
    "AnswerError",
    "BatchChangedError",
    "BatchError",
    "BatchInputError",
    "BatchLockedError",
    "BatchOutputError",
    "BatchStoppedError",
    "WorkerLostError",
]

# Problems in the message, which people read; ``problems`` has the first hundred, for programs.
_SHOWN = 10


class BatchError(KonkoError):
    """A batch cannot begin, or cannot go on.

    Attributes:
        report: what had been done until then; None if no row had been sent.
    """

    # Set by the run on the error's way out: where it is raised, nobody knows what has been done.
    report: BatchReport | None = None


class BatchStoppedError(BatchError):
    """The run was ended early, as no row can be answered now; the same call resumes it.

    Rows that met the cause are not in the output: they are neither lost nor failed.

    Attributes:
        reason: ``out_of_credit``, ``authentication``, ``forbidden``, ``missing_model``,
            ``not_found``, ``redirect``, ``connection`` (such as a bad certificate),
            ``daily_limit`` or ``outage``.
        retry_after: seconds after which the server will answer again, if it said so.
    """

    reason: str
    retry_after: float | None

    def __init__(self, message: str, *, reason: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.retry_after = retry_after


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
    """The input, or how requests are made of it, is not what this output was started with."""


class BatchOutputError(BatchError):
    """The output or its journal cannot be written (disk full, I/O error), or is not ours."""


class BatchLockedError(BatchError):
    """Another run is writing to the same output."""


class AnswerError(KonkoError):
    """A row's answer has no choices, or a flaw that ``fail_on=`` names.

    Attributes:
        code: ``no_choices``, ``error``, ``empty``, ``length``, ``content_filter`` or ``refusal``.
        retryable: whether another try may bring a better answer.
        body: the answer as the server sent it.
        request_id: of the answer.
        usage: what it used: it has to be paid for.
    """

    code: str
    retryable: bool
    body: Any
    request_id: str | None
    usage: Any

    def __init__(
        self,
        message: str,
        *,
        code: str,
        retryable: bool = False,
        body: Any = None,
        request_id: str | None = None,
        usage: Any = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.retryable = retryable
        self.body = body
        self.request_id = request_id
        self.usage = usage


class WorkerLostError(KonkoError):
    """The worker process that made a row's call died, and so did those that tried it again."""
