"""Cuts rows into files that the server takes."""

from __future__ import annotations

import os
from array import array
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import msgspec

from konko_async import KonkoError
from konko_async.batch._errors import BatchOutputError
from konko_async.batch._input.row_parser import Row, row_key
from konko_async.batch._output.filesystem import Filesystem
from konko_async.batch._output.ledger import pack
from konko_async.batch._server.settings import ServerSide

__all__ = ["Part", "PartWriters", "RowTooLargeError", "server_id"]

_FLUSH: Final = 1 << 20
_GROUPS: Final = 64  # files that are filled at once, each for one endpoint and model
# How an answer travels, which is the server's business here.
_NOT_SENT: Final = ("stream", "stream_options")
_encode = msgspec.json.Encoder().encode


class RowTooLargeError(KonkoError):
    """A row is longer than a file that the server takes."""


def server_id(row: Row) -> str:
    """Return the name of a row on the server: what it asks, and its place."""
    return f"{row_key(row).hex()}-{row.index}"


class Part:
    """One file of rows of one endpoint and model, while it is filled.

    Attributes:
        path: where it is.
        url: the endpoint.
        size: bytes.
    """

    def __init__(self, path: str, url: str, files: Filesystem) -> None:
        self.path = path
        self.url = url
        self.size = 0
        self._files = files
        self._rows = array("I")
        self._held = bytearray()
        self._fd = files.create(path)

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def rows(self) -> bytes:
        """The numbers of its rows, packed."""
        return pack(self._rows.tolist())

    def add(self, index: int, line: bytes) -> None:
        """Add a row; raises OSError."""
        self._rows.append(index)
        self._held += line
        self.size += len(line)
        if len(self._held) >= _FLUSH:
            self._flush()

    def _flush(self) -> None:
        self._files.write_all(self._fd, bytes(self._held))
        self._held.clear()

    def finish(self) -> None:
        """Write what is held, and close it; raises OSError."""
        self._flush()
        self.close()

    def close(self) -> None:
        """Close it; idempotent."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def remove(self) -> None:
        """Close and delete it."""
        self.close()
        with suppress(OSError):
            Path(self.path).unlink()


class PartWriters:
    """The files that are being filled: one for each endpoint and model, as servers want it.

    Args:
        output: path of the output; the files stand beside it.
        settings: how large a file may be.
        files: how to write.
    """

    def __init__(self, output: str, settings: ServerSide, files: Filesystem) -> None:
        self._output = output
        self._settings = settings
        self._files = files
        self._parts: dict[tuple[str, Any], Part] = {}
        self._count = 0

    def add(self, row: Row) -> Part | None:
        """Add a row; returns a file that is full without it.

        Raises:
            RowTooLargeError: no file would hold it.
            BatchOutputError: it cannot be written.
        """
        line = _line(row)
        settings, full = self._settings, None
        if len(line) > settings.bytes_per_file:
            raise RowTooLargeError(
                f"the row has {len(line)} bytes; a file of the server holds "
                f"{settings.bytes_per_file}"
            )
        key = (row.url, row.body["model"])
        part = self._parts.get(key)
        try:
            if part is not None and (
                len(part) >= settings.rows_per_file
                or part.size + len(line) > settings.bytes_per_file
            ):
                full = self._take(key)
                part = None
            if part is None:
                if full is None and len(self._parts) >= _GROUPS:
                    full = self._take(max(self._parts, key=lambda key: len(self._parts[key])))
                self._count += 1
                path = f"{self._output}.part-{self._count}"
                part = self._parts[key] = Part(path, row.url, self._files)
            part.add(row.index, line)
        except OSError as error:
            problem = f"{self._output}.part cannot be written: {error.strerror}"
        else:
            return full
        raise BatchOutputError(problem)

    def _take(self, key: tuple[str, Any]) -> Part:
        part = self._parts.pop(key)
        part.finish()
        return part

    def rest(self) -> Part | None:
        """Return a file that is not full, once there are no more rows; None: there is none left.

        Raises:
            BatchOutputError: it cannot be written.
        """
        if not self._parts:
            return None
        try:
            return self._take(next(iter(self._parts)))
        except OSError as error:
            problem = f"{self._output}.part cannot be written: {error.strerror}"
        raise BatchOutputError(problem)

    def close(self) -> None:
        """Delete the files that were not handed out."""
        while self._parts:
            self._parts.popitem()[1].remove()


def _line(row: Row) -> bytes:
    body = row.body
    if any(name in body for name in _NOT_SENT):
        body = {name: value for name, value in body.items() if name not in _NOT_SENT}
    found = {"custom_id": server_id(row), "method": "POST", "url": row.url, "body": body}
    return _encode(found) + b"\n"
