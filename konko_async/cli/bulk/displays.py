"""Chooses how the progress of a run is shown: drawn, as lines, as JSON, or not at all."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

from konko_async.cli._output import is_terminal
from konko_async.cli.bulk.options import Bulk
from konko_async.cli.bulk.progress import Display, JsonDisplay, NoDisplay, PlainDisplay

__all__ = ["open_display"]


@contextlib.contextmanager
def open_display(bulk: Bulk) -> Iterator[Display]:
    """Yield the display that the options select; it shows the last state at the end."""
    # Drawn only for people: in a log, each state would be a screen of escape sequences.
    kind = bulk.progress or ("rich" if is_terminal(sys.stderr) else "plain")
    # Nothing is sent, so there is no progress that could be shown.
    if bulk.dry_run:
        kind = "none"
    if kind == "rich":
        from konko_async.cli.bulk.progress_rich import rich_display  # noqa: PLC0415 - slow to import

        with rich_display(bulk.progress_interval or 0.25) as drawn:
            yield drawn
    elif kind == "none":
        yield NoDisplay()
    else:
        plain = PlainDisplay(bulk.progress_interval)
        paced = JsonDisplay(bulk.progress_interval or 1.0) if kind == "json" else plain
        try:
            yield paced
        finally:
            # Also after an error: the last state in a log has to be that at which the run ended.
            paced.finish()
