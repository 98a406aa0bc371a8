"""Tells a row how long its calls took, out of the records that observers get."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

from konko_async import CallRecord
from konko_async.batch._input.row_parser import Row

__all__ = ["call_seconds", "note_seconds", "time_row"]

# A record does not say which row it is of; the task that makes the call knows it.
_row: ContextVar[Row | None] = ContextVar("konko_batch_row", default=None)


def time_row(row: Row) -> None:
    """Count calls that this task makes from now on for this row."""
    _row.set(row)


def call_seconds(record: Any) -> float | None:
    """Return how long a call took, without its wait for the client's own limits.

    None for what is no answered call, and for one that the answer cache answered.
    """
    if isinstance(record, CallRecord) and record.outcome == "ok" and not record.cached:
        return record.duration - record.queued
    return None


def note_seconds(seconds: float) -> None:
    """Add the time of a call to the row of the task that made it."""
    row = _row.get()
    if row is not None:
        row.seconds += seconds
