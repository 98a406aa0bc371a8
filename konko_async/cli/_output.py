"""Output: plain text to pipes, no control characters to terminals, and never a key."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from typing import IO, Any

import click

from konko_async.errors import KonkoError

__all__ = [
    "clean",
    "clean_json",
    "error_line",
    "is_live",
    "is_terminal",
    "json_text",
    "note",
    "redact",
    "report",
    "terminal_size",
]

_KEY_NAMES = ("KONKO_API_KEY", "OPENAI_API_KEY", "KONKO_SERVE_KEY")
_LONGEST_LINE = 400  # characters: some servers send a page of HTML as their error message
_SHORTEST_KEY = 8  # a shorter one is a placeholder, and might be part of any word

# C0 but for tab and line feed, DEL and C1: an answer must not move the cursor, rename the window
# or write to the clipboard.
_CONTROLS = {
    code: "\N{REPLACEMENT CHARACTER}"
    for code in (*range(0x20), *range(0x7F, 0xA0))
    if chr(code) not in "\t\n"
}
# Dropped without a mark, as it is half of a line's end in many texts; kept, it would let a line
# overwrite itself.
_CONTROLS[ord("\r")] = ""

# The library's messages give advice for Python code; at a shell, an option or a variable does it.
_AT_A_SHELL = {
    "pass AsyncKonko(api_key=...) or set the environment variable": "set the environment variable",
    "pass the key as api_key= instead": "set the environment variable KONKO_API_KEY instead",
    "pass allow_http=True": "give --allow-http",
}


# JSON escapes C0 by itself; DEL and C1 are escaped in the same way, so that nothing is lost.
_JSON_CONTROLS = {code: f"\\u{code:04x}" for code in range(0x7F, 0xA0)}


def clean(text: str) -> str:
    """Return the text without the control characters that a terminal would obey.

    What goes into a pipe is cleaned, too: it ends in a terminal, by ``less`` or ``tail`` say.
    """
    return text if text.isprintable() else text.translate(_CONTROLS)


def json_text(value: Any, *, indent: int = 0) -> str:
    """Return JSON that is safe on a terminal: control characters are escaped, none is lost."""
    import msgspec  # noqa: PLC0415 - not needed for --help, which has to be quick

    text = msgspec.json.encode(value)
    return clean_json((msgspec.json.format(text, indent=indent) if indent else text).decode())


def clean_json(text: str) -> str:
    """Return JSON text with the control characters escaped that JSON allows as they are."""
    return text if text.isprintable() else text.translate(_JSON_CONTROLS)


def is_terminal(stream: IO[str]) -> bool:
    """Whether a stream is a terminal."""
    return stream.isatty()


def is_live(stream: IO[str]) -> bool:
    """Whether a stream can be drawn on: a terminal that knows how to move its cursor."""
    return is_terminal(stream) and os.environ.get("TERM", "dumb") not in {"", "dumb", "unknown"}


def terminal_size(stream: IO[str]) -> tuple[int, int]:
    """Return columns and rows as they are now; ``$COLUMNS`` would not know of a change."""
    # Pseudo-terminals that nobody has set a size for report 0 by 0.
    columns = rows = 0
    with contextlib.suppress(OSError, ValueError):
        columns, rows = os.get_terminal_size(stream.fileno())
    return columns or 80, rows or 24


def redact(text: str) -> str:
    """Hide the keys of the environment, which a server might have put into its error message."""
    for name in _KEY_NAMES:
        key = os.environ.get(name, "").strip()
        if len(key) >= _SHORTEST_KEY:
            text = text.replace(key, "<redacted>")
    return text


def note(text: str) -> None:
    """Write one line to standard error."""
    click.echo(f"konko-async: {clean(redact(text))}", err=True)


def report(error: KonkoError, *, debug: bool) -> None:
    """Write an error to standard error: one line, or with ``debug`` all of it."""
    if debug:
        text = "".join(traceback.format_exception(error))
        click.echo(clean(redact(text)), err=True, nl=False)
    # What was printed before must stand before the error where both go to one terminal.
    sys.stdout.flush()
    note(error_line(error))


def error_line(error: KonkoError) -> str:
    """Return an error in one line, without keys, and not too long."""
    # Before it is cut: a key of which only a part is left would not be recognised.
    line = redact(" ".join(error.message.split()))
    for said, meant in _AT_A_SHELL.items():
        line = line.replace(said, meant)
    if len(line) > _LONGEST_LINE:
        line = f"{line[:_LONGEST_LINE]} ... (--debug shows all)"
    attempts = len(error.attempts)
    return f"{line} ({attempts} attempts)" if attempts > 1 else line
