"""What an error means to a batch: wait, end the run, or write the row as failed.

The cause itself is found by :func:`konko_async.middleware.classify`, as for every other layer; here
is only what a batch, which has time, makes of it.
"""

from __future__ import annotations

import errno
import os
import re
from typing import Final, Literal

import msgspec

from konko_async import APIStatusError, KonkoError, RateLimitTimeoutError
from konko_async.batch._errors import AnswerError, BatchError, BatchStoppedError
from konko_async.middleware import Classification, classify

__all__ = ["RowVerdict", "asked_wait", "judge", "outage", "stopped_by"]

Action = Literal["wait", "again", "fail", "refused", "end", "files"]

_NO_FILES: Final = (os.strerror(errno.EMFILE), os.strerror(errno.ENFILE))
_TRIES: Final = 3  # of what may be the row's own fault, or chance: an answer without choices
# A limit per day outlasts every back-off: without a Retry-After, only the message names it.
_DAILY: Final = re.compile(
    r"\b(per[ _-]?day|daily|RPD|TPD|requests? ?/ ?day|PerDay\w*)\b|per 86400 ?s", re.IGNORECASE
)
_NAMED_WAIT: Final = re.compile(
    r"(?:wait|try again in|retry (?:after|in)|resets? in)\s+(?:for\s+)?(?:about\s+)?"
    r"((?:\d+(?:\.\d+)?\s*(?:milliseconds?|ms|seconds?|secs?|s|minutes?|mins?|m|hours?|hrs?|h|"
    r"days?|d)\b[\s,]*(?:and\s+)?|\d+(?:\.\d+)?(?:ms|s|m|h|d))+)",
    re.IGNORECASE,
)
_PART: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|milli|s|m|h|d)", re.IGNORECASE)
_SECONDS: Final = {"ms": 0.001, "milli": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_READ: Final = 500  # characters of a message that are searched

_REMEDIES: Final = {
    "out_of_credit": "the account has no credit left; add credit",
    "authentication": "the server refuses the key; set the right one (KONKO_API_KEY)",
    "forbidden": "this key or region has no access; use a key that has",
    "missing_model": "the server has no such model; correct the model's id",
    "not_found": "the server has no such path; correct the base URL (KONKO_BASE_URL)",
    "redirect": "the base URL is not the server's own; correct it (KONKO_BASE_URL)",
    "connection": "no secure connection is possible; correct the certificate or the address",
}


class RowVerdict(msgspec.Struct, frozen=True):
    """What is to be done about an error.

    Attributes:
        action: ``wait`` (the cause passes: the row waits and is sent again), ``again`` (a few more
            tries, then the row fails), ``fail`` (the row's own fault), ``refused`` (as ``fail``,
            but it ends the run where nothing has been answered yet), ``end`` (every other row would
            meet it) or ``files`` (this process may open no more files).
        kind: the cause, in one word.
        tries: how often the row is sent at most, where the action is ``again``.
        wait: Retry-After in seconds, if the server sent it.
    """

    action: Action
    kind: str
    tries: int | None = None
    wait: float | None = None


def judge(  # noqa: PLR0911 - a table, read from top to bottom
    error: KonkoError, max_outage: float
) -> RowVerdict:
    """Return what is to be done about the error of one attempt.

    Args:
        error: what the attempt raised.
        max_outage: seconds; a longer Retry-After ends the run.
    """
    if isinstance(error, BatchError):
        return RowVerdict("end", "batch")
    if isinstance(error, AnswerError):
        return RowVerdict("again" if error.retryable else "fail", error.code, _TRIES)
    if any(text in error.message for text in _NO_FILES):
        return RowVerdict("files", "files")
    found = classify(error)
    if found.ends_batch:
        return RowVerdict("end", found.kind)
    if found.ends_batch_if_first:
        return RowVerdict("refused", found.kind)
    if found.max_retries is not None:
        return RowVerdict("again", found.kind, found.max_retries + 1)
    if found.kind == "unreadable":
        return RowVerdict("again", found.kind, _TRIES)
    # The deadline of a whole call bounds one attempt of a batch: the next has another.
    if found.transient or found.kind == "deadline":
        return _waiting(error, found, max_outage)
    return RowVerdict("fail", found.kind)


def _waiting(error: KonkoError, found: Classification, max_outage: float) -> RowVerdict:
    if isinstance(error, APIStatusError) and _is_choice(error):
        # The model broke off, not the server: the next try may not, but there is no outage.
        return RowVerdict("again", found.kind, _TRIES)
    asked = asked_wait(error)
    if found.kind == "rate_limit" and asked is None and _DAILY.search(error.message[:_READ]):
        return RowVerdict("end", "daily_limit")
    if asked is not None and asked > max_outage > 0:
        return RowVerdict("end", "daily_limit", wait=asked)
    return RowVerdict("wait", found.kind, wait=asked)


def _is_choice(error: APIStatusError) -> bool:
    """Whether it is an error of a choice, in an answer that has some."""
    return isinstance(error.body, dict) and bool(error.body.get("choices"))


def asked_wait(error: KonkoError) -> float | None:
    """Return the back-off in seconds that the server (or the local limit) names, or None.

    Some servers name the wait only in the message, such as "try again in 7m12s".
    """
    if isinstance(error, RateLimitTimeoutError):
        # The local limit's own estimate, which changes as calls end:
        # it is made anew after 30 s at most.
        return min(max(error.would_have_waited, 0.1), 30.0)
    asked: float | None = getattr(error, "retry_after", None)
    if asked is not None:
        return asked
    match = _NAMED_WAIT.search(error.message[:_READ])
    if match is None:
        return None
    parts = _PART.findall(match[1].lower())
    return sum(float(number) * _SECONDS[unit] for number, unit in parts)


def stopped_by(error: KonkoError, verdict: RowVerdict) -> BatchError:
    """Return the error of a run that ends because every other row would meet ``error``."""
    if isinstance(error, BatchError):
        return error
    met = " ".join(error.message.split()).rstrip(".")
    if verdict.kind == "daily_limit":
        wait = "" if verdict.wait is None else f" (in {_duration(verdict.wait)})"
        remedy = f"the server asks to wait longer than max_outage allows; run it again later{wait}"
    else:
        remedy = _REMEDIES.get(verdict.kind, "correct that")
    problem = BatchStoppedError(
        f"the run was ended, as all rows would fail: {met}. Remedy: {remedy}, then run the same "
        "command again: no row was lost or written as failed for it",
        reason=verdict.kind,
        retry_after=verdict.wait,
    )
    problem.attempts = error.attempts
    # Set by hand, as the error is returned, and raised elsewhere.
    problem.__cause__ = error
    return problem


def outage(error: KonkoError, seconds: float) -> BatchStoppedError:
    """Return the error of a run that ends because no row was answered for so long."""
    met = " ".join(error.message.split()).rstrip(".")
    problem = BatchStoppedError(
        f"the run was ended: no row was answered for {_duration(seconds)}, the last attempt met: "
        f"{met}. Run the same command again once the server answers: no row was lost or written "
        "as failed for it (max_outage= sets how long a run waits)",
        reason="outage",
    )
    problem.attempts = error.attempts
    problem.__cause__ = error
    return problem


def _duration(seconds: float) -> str:
    if seconds < 120:  # noqa: PLR2004 - up to two minutes, seconds are what people read
        return f"{seconds:.2g} s" if seconds < 1 else f"{seconds:.0f} s"
    if seconds < 7200:  # noqa: PLR2004 - the same for minutes
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
