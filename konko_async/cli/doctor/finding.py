"""One thing that the doctor looked at."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = ["Finding", "Status", "failed", "fine", "skipped", "warned"]

Status = Literal["ok", "warning", "error", "skipped"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What was looked at, what was found, and what to do.

    Attributes:
        check: its name, such as ``tls``.
        status: ``ok``, ``warning`` (calls work, but not well), ``error`` or ``skipped``.
        found: in one sentence.
        advice: what to do; empty if nothing is to be done.
        details: figures, for ``--json``.
    """

    check: str
    status: Status
    found: str
    advice: str = ""
    details: dict[str, Any] = field(default_factory=dict)


def fine(check: str, found: str, **details: Any) -> Finding:
    """Return the finding that all is well."""
    return Finding(check, "ok", found, details=details)


def warned(check: str, found: str, advice: str, **details: Any) -> Finding:
    """Return the finding that calls work, but not well."""
    return Finding(check, "warning", found, advice, details)


def failed(check: str, found: str, advice: str, **details: Any) -> Finding:
    """Return the finding that calls cannot work."""
    return Finding(check, "error", found, advice, details)


def skipped(check: str, why: str) -> Finding:
    """Return the finding that it was not looked at."""
    return Finding(check, "skipped", why)
