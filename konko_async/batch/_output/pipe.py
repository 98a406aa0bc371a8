"""Standard input and output: read and written without holding up the loop."""

from __future__ import annotations

import asyncio
import os
import select
import stat
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

from konko_async.batch._errors import BatchOutputError
from konko_async.batch._input.record_splitter import Piece, Splitter
from konko_async.batch._input.table import Table
from konko_async.batch._output.answers import Used
from konko_async.batch._output.filesystem import Filesystem
from konko_async.batch._output.ledger import Ledger

__all__ = ["PipeSource", "PipeStore", "read_pipe"]

_CHUNK: Final = 64 * 1024
# What a pipe that is writable takes without blocking.
_PIECE: Final = getattr(select, "PIPE_BUF", 512)
_CONTROLS: Final = {code: f"\\u{code:04x}" for code in range(0x7F, 0xA0)}  # DEL and C1


def _always_ready(descriptor: int) -> bool:
    """Whether it is a file: the selectors of loops do not take these."""
    return stat.S_ISREG(os.fstat(descriptor).st_mode)


async def _ready(descriptor: int, add: Callable[..., Any], remove: Callable[[int], Any]) -> None:
    future = asyncio.get_running_loop().create_future()
    try:
        # May be called more than once before the loop lets go of the descriptor.
        add(descriptor, lambda: None if future.done() else future.set_result(None))
    except PermissionError:  # epoll's word for what is always ready, such as /dev/null
        return
    try:
        await future
    finally:
        remove(descriptor)


async def read_pipe(descriptor: int) -> AsyncIterator[bytes]:
    """Read to the end; may be cancelled while it waits."""
    loop, waits = asyncio.get_running_loop(), not _always_ready(descriptor)
    while True:
        try:
            if waits:
                await _ready(descriptor, loop.add_reader, loop.remove_reader)
            data = os.read(descriptor, _CHUNK)
        except NotImplementedError:  # Windows
            data = await asyncio.to_thread(os.read, descriptor, _CHUNK)
        if not data:
            return
        yield data


class PipeSource:
    """The records of a pipe, as they come.

    Args:
        head: what was read of it already.
        rest: what follows.
        table: how they are written, if they are a table: the first, the header, is left out then.
        max_bytes: length of the longest record.
    """

    def __init__(
        self, head: bytes, rest: AsyncIterator[bytes], *, table: Table | None, max_bytes: int
    ) -> None:
        self._head = head
        self._rest = rest
        self._splitter = Splitter(max_bytes=max_bytes, table=table)
        self._header = table is not None

    async def pieces(self) -> AsyncIterator[Piece]:
        """Read all records, in order."""
        for piece in self._after_header(self._splitter.feed(self._head)):
            yield piece
        async for data in self._rest:
            for piece in self._after_header(self._splitter.feed(data)):
                yield piece
        for piece in self._after_header(self._splitter.flush()):
            yield piece

    def _after_header(self, pieces: list[Piece]) -> list[Piece]:
        if self._header and pieces:
            self._header = False
            return pieces[1:]
        return pieces


def _shown(data: bytes) -> bytes:
    """Escape the control characters that JSON allows as they are: pipes end in terminals."""
    # In UTF-8, C1 begins with this byte; few texts hold it.
    if b"\x7f" not in data and b"\xc2" not in data:
        return data
    # A body that is not UTF-8 is passed on as it is.
    text = data.decode("utf-8", "surrogateescape").translate(_CONTROLS)
    return text.encode("utf-8", "surrogateescape")


class PipeStore:
    """Writes rows to a pipe; there is nothing to resume.

    Args:
        files: how to write.
        keeps: whether the input has an end, so that its rows can be distinguished.

    Attributes:
        ledger: what was written.
        failure: what went wrong; nothing is written any more.
    """

    def __init__(self, files: Filesystem, *, keeps: bool) -> None:
        self.ledger = Ledger(keeps=keeps)
        self.failure: BatchOutputError | None = None
        self._files = files
        self._fd = files.stdout()
        self._waits = not _always_ready(self._fd)
        self._lines: list[bytes] = []
        # Rows and the ticker save both, and a pipe takes lines in pieces, which must not be mixed.
        self._turn = asyncio.Lock()

    def add(
        self,
        index: int,
        line: bytes,
        *,
        failed: bool,
        used: Used | None = None,
    ) -> None:
        """Take a finished row in; it is written by the next :meth:`save_if_due`."""
        self._lines.append(line)
        self.ledger.add(index, failed=failed, used=used or Used())

    def add_invalid(self, index: int, line: bytes) -> None:
        """Take in the line of a record that could not be sent."""
        self.add(index, line, failed=True)
        self.ledger.invalid += 1

    async def save_if_due(self, now: float) -> None:  # noqa: ARG002 - it always is
        """Write what was taken in, as fast as it is read at the other end.

        Raises:
            BatchOutputError: nobody reads it any more, or it cannot be written.
        """
        async with self._turn:
            if self.failure is not None:
                raise self.failure
            lines, self._lines = self._lines, []
            try:
                await self._write(_shown(b"".join(lines)))
            except OSError as error:
                self.failure = BatchOutputError(f"standard output: {error.strerror}")
        if self.failure is not None:
            raise self.failure

    async def _write(self, data: bytes) -> None:
        if not data:
            return
        if not self._waits:
            self._files.write_all(self._fd, data)
            return
        loop, rest = asyncio.get_running_loop(), memoryview(data)
        try:
            while rest:
                try:
                    await _ready(self._fd, loop.add_writer, loop.remove_writer)
                except NotImplementedError:  # Windows
                    await asyncio.to_thread(self._files.write_all, self._fd, bytes(rest))
                    return
                rest = rest[self._files.write(self._fd, rest[:_PIECE]) :]
        except asyncio.CancelledError:
            self._lines.insert(0, bytes(rest))  # a line that was begun must be ended
            raise

    async def settle(self) -> None:
        """Write what is left; a failure is kept in ``failure``."""
        if self.failure is None:
            try:
                await self.save_if_due(0.0)
            except BatchOutputError:
                return

    def save(self) -> None:
        """Raise what went wrong, if anything did.

        Raises:
            BatchOutputError: not all was written.
        """
        if self.failure is not None:
            raise self.failure

    def close(self) -> None:
        """Do nothing: standard output is not ours to close."""
