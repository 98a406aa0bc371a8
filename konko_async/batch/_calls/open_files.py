"""Finds out how many connections this process may open."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import Final

__all__ = ["connections_that_fit"]

_RESERVE: Final = 24  # files for the output, the journal, DNS, modules that are imported late
_DEFAULT_USED: Final = 16  # where the system does not say how many files are open

if sys.platform == "win32":

    def connections_that_fit(wanted: int) -> int:
        """Return how many of ``wanted`` connections this process may open."""
        return wanted

else:
    import resource

    def connections_that_fit(wanted: int) -> int:
        """Return how many of ``wanted`` connections this process may open.

        Raises the soft limit of open files as far as the hard one allows, if need be.
        """
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        needed = wanted + _used() + _RESERVE
        if soft == resource.RLIM_INFINITY or soft >= needed:
            return wanted
        goal = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        with suppress(ValueError, OSError):  # macOS caps it below an "infinite" hard limit
            resource.setrlimit(resource.RLIMIT_NOFILE, (goal, hard))
            soft = goal
        # At least one: a call that fails for want of files says so, a run without calls would hang.
        return max(1, min(wanted, soft - _used() - _RESERVE))

    def _used() -> int:
        # The first is that of Linux, the second that of macOS and the BSDs.
        for folder in ("/proc/self/fd", "/dev/fd"):
            with suppress(OSError):
                return len(os.listdir(folder))  # noqa: PTH208 - only how many there are
        return _DEFAULT_USED
