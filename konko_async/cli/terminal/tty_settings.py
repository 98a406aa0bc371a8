"""The terminal's own settings while an answer is shown."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import IO

from konko_async.cli._output import is_terminal

__all__ = ["quiet"]


@contextlib.contextmanager
def quiet(stream: IO[str]) -> Iterator[None]:
    """Within the block, keys that are pressed are not shown: they would break what is drawn.

    They are kept for the next prompt; Ctrl-C works.
    """
    if sys.platform == "win32" or not is_terminal(stream):
        yield
        return
    import termios  # noqa: PLC0415 - not on Windows

    if os.tcgetpgrp(stream.fileno()) != os.getpgrp():  # in the background, it would be stopped
        yield
        return
    before = termios.tcgetattr(stream)
    changed = termios.tcgetattr(stream)
    changed[0] &= ~termios.ICRNL  # Enter stays Enter for the prompt, and does not become Ctrl-J
    # Without ICANON the terminal does not hold a line back until Enter; ISIG stays, for Ctrl-C.
    changed[3] &= ~(termios.ECHO | termios.ICANON)
    # DRAIN rather than FLUSH, which would discard what was typed already.
    termios.tcsetattr(stream, termios.TCSADRAIN, changed)
    try:
        yield
    finally:
        termios.tcsetattr(stream, termios.TCSADRAIN, before)
