"""Chooses how the progress of a benchmark is shown."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Literal

from konko_async.cli._output import is_terminal
from konko_async.cli.bench.progress import BenchDisplay, NoBenchDisplay, PlainBenchDisplay

__all__ = ["open_bench_display"]


@contextlib.contextmanager
def open_bench_display(kind: Literal["rich", "plain", "none"] | None) -> Iterator[BenchDisplay]:
    """Give the display that ``--progress`` names; what it drew is gone afterwards."""
    # By standard error, where progress goes: results may be piped meanwhile.
    kind = kind or ("rich" if is_terminal(sys.stderr) else "none")
    if kind == "rich":
        from konko_async.cli.bench.progress_rich import rich_bench  # noqa: PLC0415 - slow to import

        with rich_bench() as drawn:
            yield drawn
    else:
        yield PlainBenchDisplay() if kind == "plain" else NoBenchDisplay()
