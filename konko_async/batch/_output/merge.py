"""Merges the outputs of shards into one, exactly once, with a journal to resume it by."""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path

import msgspec

from konko_async.batch._errors import BatchChangedError, BatchOutputError
from konko_async.batch._output.filesystem import Filesystem
from konko_async.batch._output.journal import VERSION, Checked, Checkpoint, Header, Journal
from konko_async.batch._output.latencies import RowLatencies
from konko_async.batch._output.ledger import FAILED, OK
from konko_async.batch._output.result_lines import Stored, read_line
from konko_async.batch._output.store import OutputStore, lines_from

__all__ = ["MergeReport", "merge_outputs"]

_ROWS_AT_ONCE = 20_000


class MergeReport(msgspec.Struct, frozen=True, kw_only=True):
    """What was merged.

    Attributes:
        output: its path.
        rows: of the input; None if no journal says it.
        done: in the output.
        failed: of these, rows that failed.
        missing: rows that no shard has; None if ``rows`` is not known.
        repeated: rows that several shards had; one that was answered is taken before one that
            failed.
    """

    output: str
    rows: int | None
    done: int
    failed: int
    missing: int | None
    repeated: int


def merge_outputs(
    shards: Sequence[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    *,
    restart: bool = False,
) -> MergeReport:
    """Merge the outputs of runs with ``shard=`` into one. Blocks.

    The merged output has a journal: ``run_batch()`` with the same input, and without ``shard=``,
    does the rows that are missing.

    Args:
        shards: paths of their outputs, each with its journal beside it.
        output: where to; it must not hold anything yet.
        restart: drop what is there.

    Raises:
        BatchChangedError: they are not of the same input, prompt, model and parameters.
        BatchLockedError: a run still writes to one of them.
        BatchOutputError: one cannot be read, or the output cannot be written.
    """
    files, target = Filesystem(), os.fspath(output)
    paths = [os.fspath(path) for path in shards]
    if not paths:
        raise BatchOutputError("no outputs to be merged were given")
    with ExitStack() as opened:
        journals = [_journal(path, target, files, opened) for path in paths]
        header = _same_input(paths, journals)
        checked = next((found.checked for found in journals if found.checked is not None), None)
        owners = _Owners(paths)
        journal = opened.enter_context(closing(Journal(f"{target}.journal", files)))
        if Path(target).exists() and Path(target).stat().st_size and not restart:
            raise BatchOutputError(f"{target} exists; give another output, or restart=True")
        _empty(target, files)
        journal.reset()
        journal.begin(Header(VERSION, header.input, header.fingerprint, parts=header.parts))
        store = OutputStore(target, journal, files, rows=_ROWS_AT_ONCE, seconds=3600.0)
        opened.callback(store.close_output)
        _write(paths, owners, store)
        if checked is not None:
            journal.check(Checked(checked.rows, checked.invalid, checked.models, checked.numbered))
        ledger = journal.ledger
        # What the rows cost stands in the shards' journals only.
        cost = sum(found.ledger.cost for found in journals)
        unpriced = sum(found.ledger.unpriced for found in journals)
        invalid = sum(found.ledger.invalid for found in journals)
        journal.append(
            Checkpoint(store.end, cost=cost, unpriced=unpriced - ledger.unpriced, invalid=invalid)
        )
        rows = None if checked is None else checked.rows
        return MergeReport(
            output=target,
            rows=rows,
            done=ledger.done,
            failed=ledger.failed,
            missing=None if rows is None else rows - ledger.done,
            repeated=owners.repeated,
        )


def _journal(path: str, target: str, files: Filesystem, opened: ExitStack) -> Journal:
    if Path(path).resolve() == Path(target).resolve():
        raise BatchOutputError(f"{path} is the output; give another one")
    if not Path(path).is_file():
        raise BatchOutputError(f"{path} is no file")
    if not Path(f"{path}.journal").is_file():
        raise BatchOutputError(
            f"{path} has no journal ({path}.journal), which tells of which input it is; copy it too"
        )
    # Locked: a run that still writes to it is noticed.
    return opened.enter_context(closing(Journal(f"{path}.journal", files)))


def _same_input(paths: list[str], journals: list[Journal]) -> Header:
    first = journals[0].header
    for path, journal in zip(paths, journals, strict=True):
        header = journal.header
        if header is None or first is None:
            raise BatchOutputError(f"{path}.journal is empty")
        if header.fingerprint != first.fingerprint:
            raise BatchChangedError(
                f"{path} is of another input, prompt, model or parameters than {paths[0]}"
            )
    assert first is not None  # noqa: S101 - there is at least one
    return first


class _Owners:
    """Which file has the line of each row that counts: a byte and two for each row."""

    def __init__(self, paths: list[str]) -> None:
        self._states = bytearray()
        self._owners = array("H")
        self.repeated = 0
        for number, path in enumerate(paths):
            for stored, _line in _lines(path):
                self._note(stored, number)

    def _note(self, stored: Stored, number: int) -> None:
        more = stored.index + 1 - len(self._states)
        if more > 0:
            self._states.extend(bytes(more))
            self._owners.extend([0] * more)
        state, before = FAILED if stored.failed else OK, self._states[stored.index]
        self.repeated += bool(before)
        if not before or (before == FAILED and state == OK):
            self._states[stored.index], self._owners[stored.index] = state, number

    def takes(self, stored: Stored, number: int) -> bool:
        """Whether this line counts; said once for each row."""
        wanted = FAILED if stored.failed else OK
        if self._owners[stored.index] != number or self._states[stored.index] != wanted:
            return False
        self._states[stored.index] = 0
        return True


def _lines(path: str) -> Iterator[tuple[Stored, bytes]]:
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError as error:
        problem = f"{path} cannot be read: {error.strerror}"
    else:
        try:
            for line in lines_from(descriptor, 0):
                # A torn last line is of a row that its run does again.
                stored = read_line(line) if line.endswith(b"\n") else None
                if stored is not None:
                    yield stored, line
                elif line.endswith(b"\n"):
                    raise BatchOutputError(f"{path} holds a line that no batch wrote")
        finally:
            os.close(descriptor)
        return
    raise BatchOutputError(problem)


def _empty(target: str, files: Filesystem) -> None:
    try:
        os.close(files.create(target))
    except OSError as error:
        problem = f"{target} cannot be written: {error.strerror}"
    else:
        return
    raise BatchOutputError(problem)


def _write(paths: list[str], owners: _Owners, store: OutputStore) -> None:
    count = 0
    for number, path in enumerate(paths):
        latencies = RowLatencies(path)
        latencies.advance()
        for stored, line in _lines(path):
            if owners.takes(stored, number):
                stored.used.seconds = latencies.of(stored.index) or 0.0
                store.add(stored.index, line, failed=stored.failed, used=stored.used)
                count += 1
                if count % _ROWS_AT_ONCE == 0:
                    store.save()
    store.save()
