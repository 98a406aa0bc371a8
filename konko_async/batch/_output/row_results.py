"""What ``on_row=`` is called with."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import msgspec

from konko_async.batch._errors import BatchError
from konko_async.batch._input.row_parser import Row

__all__ = ["RowObserver", "RowResult"]


class RowResult(msgspec.Struct, frozen=True, kw_only=True):
    """A row that has just been written.

    Attributes:
        index: its place in the input, from 0.
        custom_id: its name.
        request: the body that was sent.
        response: the body of the answer; None if there was none.
        error: ``code`` and ``message`` of a row that failed; None for one that went well.
        value: with ``response_format=``, the value of the answer.
        steps: with ``steps=``, the result of each step by its name.
    """

    index: int
    custom_id: str
    request: dict[str, Any]
    response: Any = None
    error: dict[str, Any] | None = None
    value: Any = None
    steps: dict[str, Any] | None = None


class _Written(msgspec.Struct):
    response: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    value: Any = None
    steps: dict[str, Any] | None = None


_decode = msgspec.json.Decoder(_Written).decode


class RowObserver:
    """Calls ``on_row`` for each row, in the order in which they are written, one at a time.

    Args:
        function: the user's, sync or async.
    """

    def __init__(self, function: Callable[[RowResult], object]) -> None:
        self._function = function
        self._written: list[tuple[Row, bytes]] = []

    def add(self, row: Row, line: bytes) -> None:
        """Note a row that was written."""
        self._written.append((row, line))

    async def tell(self) -> None:
        """Hand over the rows that were noted.

        Raises:
            BatchError: the function failed; its rows are in the output, and not handed over again.
        """
        written, self._written = self._written, []
        for row, line in written:
            found = _decode(line)
            result = RowResult(
                index=row.index,
                custom_id=row.custom_id,
                request=row.body,
                response=None if found.response is None else found.response.get("body"),
                error=found.error,
                value=found.value,
                steps=found.steps,
            )
            try:
                waiting = self._function(result)
                if inspect.isawaitable(waiting):
                    await waiting
            except Exception as error:
                raise BatchError(
                    f"on_row failed for row {row.custom_id!r:.60} ({type(error).__name__}: "
                    f"{error}); the row is in the output, and the same call goes on after it"
                ) from error
