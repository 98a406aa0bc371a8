"""The output and its journal: what is written when, so that a crash at any time loses nothing."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from itertools import compress
from typing import Final

from konko_async.batch._errors import BatchOutputError
from konko_async.batch._output.answers import Used
from konko_async.batch._output.filesystem import Filesystem
from konko_async.batch._output.journal import Checkpoint, Journal
from konko_async.batch._output.latencies import RowLatencies, pack_seconds
from konko_async.batch._output.ledger import FAILED, OK, Ledger, add_used, pack
from konko_async.batch._output.result_lines import Stored, may_be_torn, read_line
from konko_async.batch._pricing import Prices
from konko_async.batch._wait_for_stop import outlast

__all__ = ["OutputStore", "lines_from"]

_CHUNK: Final = 1 << 20
# Checkpoints hold row numbers of 32 bits.
_MOST_ROWS: Final = 2**32
_BEHIND: Final = 8  # checkpoints' worth of rows that may wait for the disk


class OutputStore:
    """Appends rows to the output, and checkpoints to its journal.

    A row is one line, written in one call as soon as it is finished. It counts as acknowledged
    then: it survives the death of the process. A checkpoint, every ``rows`` rows or ``seconds``
    seconds and at the end, makes it survive that of the machine.

    After an error nothing more is written, and no ``fsync`` is tried again: the system may have
    dropped what could not be written, and would report success.

    Args:
        path: of the output.
        journal: open and locked.
        files: how to write.
        rows: after how many rows a checkpoint is due.
        seconds: after how many seconds.

    Attributes:
        end: the output's length.
        failure: what went wrong; nothing is written any more.

    Raises:
        BatchOutputError: the output cannot be opened.
    """

    def __init__(
        self, path: str, journal: Journal, files: Filesystem, *, rows: int, seconds: float
    ) -> None:
        self.path = path
        self.journal = journal
        self.failure: BatchOutputError | None = None
        self._files = files
        self._rows = rows
        self._seconds = seconds
        self._pending: list[int] = []
        self._took: list[float] = []  # the seconds of these rows
        self._next = Checkpoint(0)
        self._saved_at: float | None = None
        self._saving: asyncio.Task[None] | None = None
        try:
            self._fd = files.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND)
        except OSError as error:
            raise BatchOutputError(f"{path} cannot be opened: {error.strerror}") from None
        self.end = os.fstat(self._fd).st_size

    @property
    def ledger(self) -> Ledger:
        """What has been done, as the journal has it."""
        return self.journal.ledger

    # -- taking up -------------------------------------------------------------------------------

    def recover(
        self, prices: Prices, *, lasts: bool = False, latencies: RowLatencies | None = None
    ) -> int:
        """Take over what was written behind the last checkpoint, and cut off a torn line.

        Args:
            prices: of the models.
            lasts: whether all of it is known to be on the disk.
            latencies: of the rows, where a journal had them; those of other rows are not known.

        Returns:
            How many rows that were.

        Raises:
            BatchOutputError: the output is not what the journal says.
        """
        ledger = self.ledger
        if self.end < ledger.end:
            raise BatchOutputError(
                f"{self.path} has {self.end} bytes, but {ledger.end} had been written: it was "
                "changed by something else; put it back, or start anew with restart=True"
            )
        place, taken = ledger.end, 0
        checked = self.journal.checked
        rows = _MOST_ROWS if checked is None else checked.rows
        for line in lines_from(self._fd, ledger.end):
            stored = read_line(line) if line.endswith(b"\n") else None
            if stored is None or stored.index >= rows:
                # With a journal the file is ours, and what does not fit
                # was torn; without one it may not be.
                if self.journal.header is None and not may_be_torn(line):
                    raise BatchOutputError(
                        f"{self.path} holds a line that no batch wrote, at byte {place}; "
                        "give another output, or restart=True to write it anew"
                    )
                break
            place += len(line)
            if latencies is not None and not stored.failed:
                stored.used.seconds = latencies.of(stored.index) or 0.0
            self._note(stored, prices)
            taken += 1
        if place < self.end:
            try:
                self._files.truncate(self._fd, place)
            except OSError as error:
                raise self._fail("cannot be cut to its last whole line", error) from None
            self.end = place
        if taken and not lasts:
            self._write_again(ledger.end)
        return taken

    def _write_again(self, place: int) -> None:
        """Write the bytes from ``place`` on over themselves.

        An ``fsync`` that failed may have left pages that are in memory only and count as written:
        the next one would succeed, and save nothing. Equal bytes do no harm at any time.
        """
        try:
            descriptor = self._files.open(self.path, os.O_WRONLY)
            try:
                for line in lines_from(self._fd, place):
                    os.lseek(descriptor, place, os.SEEK_SET)
                    self._files.write_all(descriptor, line)
                    place += len(line)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise self._fail("cannot be written", error) from None

    def _note(self, stored: Stored, prices: Prices) -> None:
        used = stored.used
        if used.reported and stored.model is not None:
            # The output holds no costs: those of rows behind the
            # last checkpoint are worked out again.
            used.cost = prices.cost(stored.model, used)
        self._count(stored.index, stored.failed, used)
        if stored.invalid:
            self.ledger.invalid += 1
            self._next.invalid += 1

    # -- writing ---------------------------------------------------------------------------------

    def add(
        self,
        index: int,
        line: bytes,
        *,
        failed: bool,
        used: Used | None = None,
    ) -> None:
        """Append a finished row.

        Raises:
            BatchOutputError: it cannot be written, or something could not be before.
        """
        if self.failure is not None:
            raise self.failure
        try:
            self._files.write_all(self._fd, line)
        except OSError as error:
            raise self._fail("cannot be written", error) from None
        self.end += len(line)
        self._count(index, failed, used or Used())

    def add_invalid(self, index: int, line: bytes) -> None:
        """Append the line of a record that could not be sent.

        Raises:
            BatchOutputError: as for :meth:`add`.
        """
        # Written by an earlier run whose check did not come to its end.
        if self.ledger.state(index):
            return
        self.add(index, line, failed=True)
        self.ledger.invalid += 1
        self._next.invalid += 1

    def _count(self, index: int, failed: bool, used: Used) -> None:
        if not self.ledger.add(index, failed=failed, used=used):
            raise BatchOutputError(
                f"{self.path} has row {index + 1} twice: it was changed by something else"
            )
        self._pending.append(index)
        self._took.append(used.seconds)
        add_used(self._next, used, failed=failed)

    def _fail(self, what: str, error: OSError) -> BatchOutputError:
        reason = error.strerror or type(error).__name__
        self.failure = BatchOutputError(
            f"{self.path} {what}: {reason}; {self.ledger.done} rows are safe, and the same call "
            "takes the run up again once there is a remedy"
        )
        return self.failure

    # -- making it last --------------------------------------------------------------------------

    def _cut_checkpoint(self) -> Checkpoint:
        """Return the checkpoint of all that was written, and begin the next."""
        states = self.ledger.states
        rows, self._pending = self._pending, []
        took, self._took = self._took, []
        checkpoint, self._next = self._next, Checkpoint(0)
        checkpoint.end = self.end
        went_well = [states[row] == OK for row in rows]
        checkpoint.ok = pack(list(compress(rows, went_well)))
        checkpoint.seconds = pack_seconds(list(compress(took, went_well)))
        checkpoint.failed = pack([row for row in rows if states[row] == FAILED])
        return checkpoint

    def _save(self, checkpoint: Checkpoint) -> None:
        try:
            # The output before the journal: a checkpoint that
            # lasts without its rows would lose them.
            self._files.fsync(self._fd)
        except OSError as error:
            raise self._fail("cannot be made to last (fsync)", error) from None
        if self.failure is not None:
            raise self.failure  # a row could not be written meanwhile: nothing is written any more
        try:
            self.journal.append(checkpoint)
        except BatchOutputError as error:
            self.failure = error
            raise

    def save(self) -> None:
        """Write a checkpoint, and wait for the disk. Blocks.

        Raises:
            BatchOutputError: it cannot be written.
        """
        if self.failure is not None:
            raise self.failure
        if self._pending:
            self._save(self._cut_checkpoint())

    async def save_if_due(self, now: float) -> None:
        """Start a checkpoint beside the work if it is time; wait only for one that lags far behind.

        Raises:
            BatchOutputError: it, or an earlier one, cannot be written.
        """
        if self.failure is not None:
            raise self.failure
        waiting = len(self._pending)
        if self._saved_at is None:
            self._saved_at = now
        if self._saving is not None:
            if self._saving.done():
                saving, self._saving = self._saving, None
                saving.result()
            # Rows come faster than the disk takes them: the run waits here, or they would pile up.
            elif waiting >= _BEHIND * self._rows:
                await asyncio.shield(self._saving)
            return
        if waiting >= self._rows or (waiting and now - self._saved_at >= self._seconds):
            self._saved_at = now
            # Cut here, in the loop's thread: the one that writes it shares no rows with add().
            checkpoint = self._cut_checkpoint()
            self._saving = asyncio.get_running_loop().create_task(
                asyncio.to_thread(self._save, checkpoint)
            )

    async def settle(self) -> None:
        """Wait for a checkpoint that is being written; its failure is kept in ``failure``."""
        saving, self._saving = self._saving, None
        if saving is not None:
            await outlast(saving)

    def close_output(self) -> None:
        """Close the output; the journal stays open and locked. Idempotent."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def close(self) -> None:
        """Close both files; idempotent."""
        self.close_output()
        self.journal.close()


def lines_from(descriptor: int, place: int) -> Iterator[bytes]:
    """Read lines with their line breaks; the last may have none."""
    parts: list[bytes] = []
    os.lseek(descriptor, place, os.SEEK_SET)
    while data := os.read(descriptor, _CHUNK):
        place += len(data)
        *lines, rest = data.split(b"\n")
        for line in lines:
            yield b"".join([*parts, line, b"\n"])
            parts.clear()
        if rest:
            parts.append(rest)
        # Whoever takes the lines may have moved the position meanwhile.
        os.lseek(descriptor, place, os.SEEK_SET)
    if parts:
        yield b"".join(parts)
