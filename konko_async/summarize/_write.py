"""Summaries as JSON lines or Markdown."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

import msgspec

from konko_async.batch import BatchOutputError
from konko_async.summarize._summary import Summary

__all__ = ["OutputFormat", "render", "write_summaries"]

OutputFormat = Literal["jsonl", "markdown"]
"""The formats of an output."""

_MARKS = str.maketrans({mark: f"\\{mark}" for mark in "\\`*_[]<>#|"})


def write_summaries(
    path: str | os.PathLike[str], summaries: Iterable[Summary], form: OutputFormat
) -> None:
    """Write summaries to a file, all or nothing: a crash leaves the old file.

    Documents whose turn did not come are left out.

    Args:
        path: of the file, which only its owner can read if it is made.
        summaries: of the documents.
        form: of the output.

    Raises:
        BatchOutputError: it cannot be written.
    """
    target = Path(path)
    fresh = target.with_name(f"{target.name}.new")
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0)
        with open(os.open(fresh, flags, 0o600), "wb") as file:  # noqa: PTH123 - by descriptor
            file.writelines(render(summaries, form))
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(target)
    except OSError as error:
        raise BatchOutputError(f"{target} cannot be written: {error.strerror}") from None
    finally:
        with contextlib.suppress(OSError):
            fresh.unlink(missing_ok=True)


def render(summaries: Iterable[Summary], form: OutputFormat) -> Iterator[bytes]:
    """Yield the output piece by piece.

    Args:
        summaries: of the documents.
        form: of the output.
    """
    told = (entry for entry in summaries if entry.summary is not None or entry.error is not None)
    if form == "jsonl":
        for entry in told:
            yield msgspec.json.encode(entry) + b"\n"
        return
    yield b"# Summaries\n"
    for entry in told:
        yield _section(entry).encode(errors="replace")


def _section(entry: Summary) -> str:
    title = " ".join((entry.title or entry.document).split()).translate(_MARKS)
    about = [entry.document.replace("`", "'")] if entry.title else []
    if entry.parts > 1:
        about.append(f"{entry.parts} parts")
    if entry.read == "opening":
        about.append("its opening was read")
    under = f"\n*{', '.join(about).translate(_MARKS)}*\n" if about else ""
    if entry.error is None:
        text = (entry.summary or "").strip()
    else:
        text = f"**No summary:** {entry.error['message'].translate(_MARKS)}"
    return f"\n## {title}\n{under}\n{text}\n"
