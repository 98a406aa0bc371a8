"""The results of steps, in a file beside the output, until their row is in it.

``OUTPUT.steps`` is a text file like the journal: each line is the CRC-32 of the rest, a space, and
a JSON object. The first names the input and the steps; each other is the result of one step of one
row: ``{"row": n, "key": …, "step": name, "result": …, "before": {…}}``. It survives the death of
the process; after that of the machine, a step may be paid for again.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

import msgspec

from konko_async.batch._errors import BatchOutputError
from konko_async.batch._input.row_parser import Row, row_key
from konko_async.batch._output.filesystem import Filesystem
from konko_async.batch._output.ledger import Ledger
from konko_async.batch._output.sealed_lines import may_be_torn, sealed, unsealed
from konko_async.batch._typed.asked import AskedBefore

__all__ = ["RowSteps", "StepBook"]

_BEGINS: Final = b'{"steps"'
_encode = msgspec.json.Encoder().encode


class RowSteps(msgspec.Struct):
    """What is known of a row: the results of its steps so far, and what they used."""

    results: dict[str, Any] = {}
    before: AskedBefore = msgspec.field(default_factory=AskedBefore)


class _StepLine(msgspec.Struct, omit_defaults=True):
    steps: str | None = None
    row: int = 0
    key: str = ""
    step: str = ""
    result: Any = None
    before: AskedBefore | None = None


_decode = msgspec.json.Decoder(_StepLine).decode


class StepBook:
    """The file of results, open; the journal's lock covers it.

    Args:
        output: path of the output; None: results are kept in memory only.
        fingerprint: of the input and the steps: results of others are dropped.
        ledger: rows that are done need no results.
        files: how to write.

    Raises:
        BatchOutputError: it cannot be opened, or is not ours.
    """

    def __init__(
        self, output: str | None, fingerprint: str, ledger: Ledger, files: Filesystem
    ) -> None:
        self.path = None if output is None else f"{output}.steps"
        self._files = files
        self._rows: dict[tuple[int, str], RowSteps] = {}
        self._fd = -1
        if self.path is None:
            return
        try:
            self._fd = files.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND)
            self._load(Path(self.path).read_bytes(), fingerprint, ledger)
        except OSError as error:
            problem = f"{self.path} cannot be used: {error.strerror or type(error).__name__}"
        else:
            return
        raise BatchOutputError(problem)

    def _load(self, data: bytes, fingerprint: str, ledger: Ledger) -> None:
        good, same = 0, False
        for line in data.splitlines(keepends=True):
            content = unsealed(line[:-1]) if line.endswith(b"\n") else None
            if content is None:
                break
            entry = _decode(content)
            good += len(line)
            if entry.steps is not None:
                same = entry.steps == fingerprint
            elif same and not ledger.state(entry.row):
                self._take(entry)
        if not good and not may_be_torn(data.split(b"\n", 1)[0], _BEGINS):
            os.close(self._fd)
            raise BatchOutputError(f"{self.path} exists and holds no steps of a batch")
        if not same:
            good = 0
            self._rows.clear()
        if good < len(data):
            self._files.truncate(self._fd, good)
        if not good:
            self._files.write_all(self._fd, sealed(_encode(_StepLine(steps=fingerprint))))

    def _take(self, entry: _StepLine) -> None:
        found = self._rows.setdefault((entry.row, entry.key), RowSteps(results={}))
        found.results[entry.step] = entry.result
        if entry.before is not None:
            found.before = entry.before

    def of(self, row: Row) -> RowSteps:
        """Return what is known of a row."""
        return self._rows.setdefault((row.index, row_key(row).hex()), RowSteps(results={}))

    def note(self, row: Row, step: str, result: Any, before: AskedBefore) -> None:
        """Keep the result of a step.

        Raises:
            BatchOutputError: it cannot be written.
        """
        entry = _StepLine(
            row=row.index, key=row_key(row).hex(), step=step, result=result, before=before
        )
        self._take(entry)
        if self._fd < 0:
            return
        try:
            self._files.write_all(self._fd, sealed(_encode(entry)))
        except OSError as error:
            problem = f"{self.path} cannot be written: {error.strerror or type(error).__name__}"
        else:
            return
        raise BatchOutputError(problem)

    def forget(self, row: Row) -> None:
        """Drop what is known of a row that is in the output."""
        self._rows.pop((row.index, row_key(row).hex()), None)

    def close(self, *, remove: bool) -> None:
        """Close the file; remove it once no row is left."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
            if remove and self.path is not None:
                Path(self.path).unlink(missing_ok=True)
