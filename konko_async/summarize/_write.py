"""Writes summaries to the output: JSON lines, a page of Markdown, or a folder of pages."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

import msgspec

from konko_async.batch import BatchOutputError
from konko_async.summarize._markdown import (
    MarkdownPlace,
    file_names,
    index_page,
    one_page,
    summary_page,
)
from konko_async.summarize._summary import Summary

__all__ = ["OutputFormat", "render", "write_summaries"]

OutputFormat = Literal["jsonl", "markdown", "files"]
"""The formats of an output; ``files`` is a folder with a Markdown page for each document."""


def write_summaries(
    path: str | os.PathLike[str],
    summaries: Iterable[Summary],
    form: OutputFormat,
    *,
    digest: Summary | None = None,
) -> None:
    """Write summaries to a file, all or nothing: a crash leaves the old file.

    Documents that were not reached are left out. With ``form="files"`` that holds for each file;
    pages that an earlier run wrote about other documents stay, and ``index.md`` comes last.

    Args:
        path: of the file, which only its owner can read if it is made; or of the folder.
        summaries: of the documents.
        form: of the output.
        digest: of all of them.

    Raises:
        BatchOutputError: it cannot be written.
    """
    target = Path(path)
    if form != "files":
        place = MarkdownPlace(target.parent)
        _replace(target, _rendered(summaries, form, digest, place))
        return
    told = list(_told(summaries))
    place = MarkdownPlace(target)
    try:
        target.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise BatchOutputError(f"{target} cannot be made: {error.strerror}") from None
    names = file_names(told)
    for entry, name in zip(told, names, strict=True):
        _replace(target / name, [_bytes(summary_page(entry, place))])
    pages = index_page(told, names, _reached(digest))
    _replace(target / "index.md", map(_bytes, pages))


def render(
    summaries: Iterable[Summary],
    form: Literal["jsonl", "markdown"],
    *,
    digest: Summary | None = None,
) -> Iterator[bytes]:
    """Yield the output for a pipe piece by piece, without front matter and links."""
    yield from _rendered(summaries, form, digest, MarkdownPlace())


def _rendered(
    summaries: Iterable[Summary],
    form: OutputFormat,
    digest: Summary | None,
    place: MarkdownPlace,
) -> Iterator[bytes]:
    told, digest = _told(summaries), _reached(digest)
    if form != "jsonl":
        yield from map(_bytes, one_page(told, digest, place))
        return
    for entry in told:
        yield msgspec.json.encode(entry) + b"\n"
    if digest is not None:
        yield msgspec.json.encode(digest) + b"\n"


def _told(summaries: Iterable[Summary]) -> Iterator[Summary]:
    return (entry for entry in summaries if _reached(entry) is not None)


def _reached(entry: Summary | None) -> Summary | None:
    reached = entry is not None and (entry.summary is not None or entry.error is not None)
    return entry if reached else None


def _bytes(text: str) -> bytes:
    # Callers may pass documents of their own: a lone surrogate in one title must not lose the
    # whole output.
    return text.encode(errors="replace")


def _replace(target: Path, content: Iterable[bytes]) -> None:
    # A name that nobody can foresee, opened exclusively: a link planted there is not followed.
    fresh = target.with_name(f".{target.name[:40]}.{secrets.token_hex(8)}.new")
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        with open(os.open(fresh, flags, 0o600), "wb") as file:  # noqa: PTH123 - by descriptor
            file.writelines(content)
            file.flush()
            # Before the rename: some file systems would otherwise have the new name on disk before
            # the data.
            os.fsync(file.fileno())
        fresh.replace(target)
    except OSError as error:
        raise BatchOutputError(f"{target} cannot be written: {error.strerror}") from None
    finally:
        with contextlib.suppress(OSError):
            fresh.unlink(missing_ok=True)
