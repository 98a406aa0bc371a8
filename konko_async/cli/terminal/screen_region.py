"""The end of a terminal's screen, where lines are drawn that may still change."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import IO

from konko_async.cli._output import terminal_size
from konko_async.cli.terminal.layout import ScreenLine

__all__ = ["Region", "reflows"]

# Between these two a terminal that knows them shows nothing half-done.
_BEGIN, _END = "\x1b[?2026h", "\x1b[?2026l"
_HIDE, _SHOW = "\x1b[?25l", "\x1b[?25h"
_NO_WRAP, _WRAP = "\x1b[?7l", "\x1b[?7h"
_ERASE = "\x1b[J"


def reflows(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether the terminal wraps lines anew when it becomes narrower, as most do by now."""
    kind = environment.get("TERM", "")
    # Before TERM is looked at: tmux sets it to `screen`, and unlike screen it wraps anew.
    if "TMUX" in environment:
        return True
    return "XTERM_VERSION" not in environment and not kind.startswith(("linux", "screen", "rxvt"))


class Region:
    """Writes lines that stay, and below them lines that are replaced.

    What stays is written once and scrolls away as any output. What is replaced is never taller than
    the screen, so that it can be reached.

    Args:
        stream: of the terminal.
        size: returns its columns and rows; default: asks the terminal.
        reflow: see :func:`reflows`.
    """

    def __init__(
        self,
        stream: IO[str],
        size: Callable[[], tuple[int, int]] | None = None,
        *,
        reflow: bool | None = None,
    ) -> None:
        self._stream = stream
        self._size = size or (lambda: terminal_size(stream))
        self._reflow = reflows() if reflow is None else reflow
        self._shown: list[ScreenLine] = []
        self._columns = 0
        self._hidden = False

    @property
    def columns(self) -> int:
        """Columns of the terminal, as they are now."""
        return self._size()[0]

    @property
    def rows(self) -> int:
        """The number of lines that can be replaced: one row is the cursor's."""
        return max(self._size()[1] - 1, 1)

    def paint(self, final: list[ScreenLine], draft: list[ScreenLine]) -> None:
        """Write lines that stay, and show others below; of these, the last ones that fit."""
        columns = self.columns
        # The cursor cannot go up past the screen: lines that have scrolled away cannot be replaced.
        draft = draft[-self.rows :]
        shown = self._shown
        same = columns == self._columns or not shown
        keep = _common(shown, draft) if same and not final else 0
        if not final and keep == len(shown) == len(draft):
            return
        parts = [_BEGIN]
        if not self._hidden:
            parts.append(_HIDE)
        parts.append(self._back(keep, columns))
        parts += [f"{line.text}\n" for line in final]
        if draft[keep:]:
            new_line = "\n" if keep else ""
            body = "\n".join(line.text for line in draft[keep:])
            # A draft line that the terminal wrapped would take two rows, and _back() would count
            # one.
            parts += [new_line, _NO_WRAP, body, _WRAP]
        self._hidden = True
        self._shown, self._columns = draft, columns
        self._write("".join([*parts, _END]))

    def close(self) -> None:
        """Show the cursor again, below what stays; what could still change is taken away."""
        # The caller has written all that stays by now.
        if self._shown:
            self.paint([], [])
        if self._hidden:
            self._hidden = False
            self._write(_SHOW)

    def _back(self, keep: int, columns: int) -> str:
        """Return what erases the lines shown but for the first ``keep``; the cursor follows them.

        With none kept, it is then where the first one began; else at the end of the last one kept.
        """
        shown = self._shown
        if keep and keep == len(shown):
            return ""
        rows = len(shown)
        if columns < self._columns and self._reflow:
            rows = sum(max(-(-line.width // columns), 1) for line in shown)
        up = min(max(rows - 1, 0), self._size()[1] - 1) - max(keep - 1, 0)
        move = f"\x1b[{up}A" if up > 0 else ""
        if not keep:
            return f"\r{move}{_ERASE}" if shown else ""
        # Down to the first line that goes, and erase; then back to the one that is kept.
        return f"\r{move}\n{_ERASE}\x1b[A"

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


def _common(before: list[ScreenLine], after: list[ScreenLine]) -> int:
    """Return how many lines at the beginning are the same."""
    for place, (old, new) in enumerate(zip(before, after, strict=False)):
        if old != new:
            return place
    return min(len(before), len(after))
