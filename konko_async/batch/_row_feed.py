"""Reads the rows that a run processes, in order, as far as its limits allow."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import closing

from konko_async.batch._errors import BatchInputError
from konko_async.batch._input.open import Input
from konko_async.batch._input.record_splitter import Piece
from konko_async.batch._input.row_parser import Row, RowError, RowReader
from konko_async.batch._input.validate import Ids, read_row
from konko_async.batch._options import Options
from konko_async.batch._order import shuffled
from konko_async.batch._output.pipe import PipeSource, PipeStore
from konko_async.batch._output.result_lines import invalid_line
from konko_async.batch._report import StopReason
from konko_async.batch._spending import Spending

__all__ = ["RowFeed"]

_SKIPPED = 2000  # finished rows that are skipped before other tasks may run


class RowFeed:
    """Yields the rows to be sent.

    Args:
        options: of the run.
        spending: what it may use.

    Attributes:
        stopped: the limit that was reached, if one was.
        rows: how many a pipe held, once its end was seen.
    """

    def __init__(self, options: Options, spending: Spending) -> None:
        self.stopped: StopReason | None = None
        self.rows: int | None = None
        self._options = options
        self._spending = spending
        self._started = 0

    async def from_file(self, found: Input, states: bytearray) -> AsyncIterator[Row]:
        """Read the rows of an input that has been checked, without those that are done."""
        source = found.source
        try:
            for passed, (index, piece) in enumerate(self._pieces(found, states)):
                # The states reach as far as the last row that was
                # noted; behind that nothing is done yet.
                if not self._options.takes(index) or (index < len(states) and states[index]):
                    if passed % _SKIPPED == 0:
                        await asyncio.sleep(0)
                    continue
                # Parsed a second time, after the check: rows that were
                # kept from it would need memory for all.
                row = found.reader.read(piece, index)
                if self._at_limit() or (self._spending.active and await self._passes(row)):
                    return
                self._started += 1
                yield row
        except (RowError, OSError) as error:  # it had been good when it was checked
            raise _changed(found.shown, error) from None
        # An edit that left every row valid shows nowhere else,
        # and answers would be under wrong rows.
        if source.changed():
            raise _changed(found.shown)

    def _pieces(self, found: Input, states: bytearray) -> Iterator[tuple[int, Piece]]:
        if not found.places:
            yield from enumerate(found.source.pieces())
            return
        for index in shuffled(found.places, int(self._options.shuffle)):
            # Rows that are done are left out before they are
            # read: at() seeks in two files for each.
            if self._options.takes(index) and (index >= len(states) or not states[index]):
                yield index, found.source.at(index)

    async def from_pipe(
        self, source: PipeSource, reader: RowReader, store: PipeStore
    ) -> AsyncIterator[Row]:
        """Read and check the rows of a pipe as they come."""
        count = 0
        with closing(Ids()) as ids:
            async for piece in source.pieces():
                count += 1
                if not self._options.takes(count - 1):
                    continue
                try:
                    row = read_row(reader, ids, piece, count - 1)
                except RowError as error:
                    self._refuse(store, count - 1, piece, error)
                    continue
                if self._at_limit() or (self._spending.active and await self._passes(row)):
                    return
                self._started += 1
                yield row
        self.rows = self._options.own_rows(count)
        if not count:
            raise BatchInputError("-: the input has no rows")

    def _refuse(self, store: PipeStore, index: int, piece: Piece, error: RowError) -> None:
        if not self._options.skip_invalid:
            # From pipe to pipe nothing can be checked ahead: the rows before this one were sent.
            advice = "no row after it was sent (skip_invalid=True runs the others)"
            raise BatchInputError.of("-", [(piece.line, str(error))], 1, advice)
        store.add_invalid(index, invalid_line(index, piece.line, error.custom_id, str(error)))

    def _at_limit(self) -> bool:
        # Without a limit this is None, which no number equals.
        if self._started != self._options.limit:
            return False
        self.stopped = self.stopped or "limit"
        return True

    async def _passes(self, row: Row) -> bool:
        """Reserve what a row may use; whether that would pass a limit."""
        reason = await self._spending.reserve(row)
        self.stopped = self.stopped or reason
        return reason is not None


def _changed(shown: str, error: Exception | None = None) -> BatchInputError:
    reason = "" if error is None else f" ({getattr(error, 'strerror', None) or error})"
    return BatchInputError(f"{shown}: the input was changed during the run{reason}")
