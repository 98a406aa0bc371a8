"""The jobs of an output, in a file beside it: what the server has to do, and what it has done.

``OUTPUT.jobs`` is a text file like the journal: each line is the CRC-32 of the rest in eight
hexadecimal digits, a space, and a JSON object; a line that is torn ends it. The objects:

``{"jobs": 1, "fingerprint": …}``
    the beginning: all before it is void. ``fingerprint`` as in the journal.
``{"job": n, "url": …, "rows": …}``
    a file with these rows was written (row numbers from 0, little-endian 32 bits each, base64).
``{"job": n, "file": …}``
    the server has the file, under this id; the batch may have been requested.
``{"job": n, "batch": …}``
    the server has the batch, under this id.
``{"job": n, "ended": true}``
    the rows that it has answered are in the output, and on the disk.

Each line is on the disk before the step that follows it. A file is known before its batch is
requested, so that a run which was killed between the two finds the batch by its file.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from konko_async.batch._errors import BatchOutputError
from konko_async.batch._output.filesystem import Filesystem
from konko_async.batch._output.ledger import unpack
from konko_async.batch._output.sealed_lines import may_be_torn, sealed, unsealed

__all__ = ["Job", "JobBook", "jobs_path"]

_VERSION: Final = 1
_BEGINS: Final = b'{"jobs"'
_encode = msgspec.json.Encoder().encode


class Job(msgspec.Struct):
    """One file of rows that the server works on, or is to.

    Attributes:
        number: from 1.
        url: the endpoint of its rows.
        rows: their numbers, packed.
        file: id of the file on the server, once it is there.
        batch: id of the batch on the server, once it is known.
    """

    number: int
    url: str
    rows: bytes
    file: str | None = None
    batch: str | None = None

    @property
    def size(self) -> int:
        """How many rows it has."""
        return len(self.rows) // 4

    def indexes(self) -> Iterator[int]:
        """Yield the numbers of its rows."""
        yield from unpack(self.rows)


class _JobLine(msgspec.Struct, omit_defaults=True):
    jobs: int | None = None
    fingerprint: str = ""
    job: int = 0
    url: str | None = None
    rows: bytes | None = None
    file: str | None = None
    batch: str | None = None
    ended: bool = False


_decode = msgspec.json.Decoder(_JobLine).decode


def jobs_path(output: str) -> str:
    """Return where the jobs of an output are written down."""
    return f"{output}.jobs"


class JobBook:
    """The file of jobs, open; the journal's lock covers it.

    Args:
        output: path of the output.
        files: how to write.

    Attributes:
        fingerprint: of the input that the jobs were made of; None if there are none.
        open: the jobs that have not ended, by their numbers.
        last: the highest number so far.

    Raises:
        BatchOutputError: it cannot be opened, or is not ours.
    """

    def __init__(self, output: str, files: Filesystem) -> None:
        self.path = jobs_path(output)
        self._files = files
        self.fingerprint: str | None = None
        self.open: dict[int, Job] = {}
        self.last = 0
        try:
            self._fd = files.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND)
            self._load(Path(self.path).read_bytes())
        except OSError as error:
            problem = f"{self.path} cannot be used: {error.strerror or type(error).__name__}"
        else:
            return
        raise BatchOutputError(problem)

    def _load(self, data: bytes) -> None:
        good = 0
        for line in data.splitlines(keepends=True):
            content = unsealed(line[:-1]) if line.endswith(b"\n") else None
            if content is None:
                break
            self._take(_decode(content))
            good += len(line)
        if good < len(data):
            if not good and not may_be_torn(data.split(b"\n", 1)[0], _BEGINS):
                os.close(self._fd)
                raise BatchOutputError(f"{self.path} exists and holds no jobs of a batch")
            self._files.truncate(self._fd, good)

    def _take(self, line: _JobLine) -> None:
        if line.jobs is not None:
            if line.jobs != _VERSION:
                raise BatchOutputError(
                    f"{self.path} was written by another version (format {line.jobs})"
                )
            self.fingerprint = line.fingerprint
            self.open.clear()
            return
        self.last = max(self.last, line.job)
        if line.rows is not None and line.url is not None:
            self.open[line.job] = Job(line.job, line.url, line.rows)
        job = self.open.get(line.job)
        if job is None:
            return
        if line.ended:
            del self.open[line.job]
        job.file = line.file or job.file
        job.batch = line.batch or job.batch

    def begin(self, fingerprint: str) -> None:
        """Write a beginning: all before it is void; raises BatchOutputError."""
        self._append(jobs=_VERSION, fingerprint=fingerprint)

    def add(self, url: str, rows: bytes) -> Job:
        """Write down a new job; raises BatchOutputError."""
        number = self.last + 1
        self._append(job=number, url=url, rows=rows)
        return self.open[number]

    def uploaded(self, job: Job, file: str) -> None:
        """Write down the id of its file; raises BatchOutputError."""
        self._append(job=job.number, file=file)

    def submitted(self, job: Job, batch: str) -> None:
        """Write down the id of its batch; raises BatchOutputError."""
        self._append(job=job.number, batch=batch)

    def end(self, job: Job) -> None:
        """Write down that it has ended; raises BatchOutputError."""
        self._append(job=job.number, ended=True)

    def _append(self, **fields: Any) -> None:
        line = _JobLine(**fields)
        try:
            self._files.write_all(self._fd, sealed(_encode(line)))
            self._files.fsync(self._fd)
        except OSError as error:
            problem = f"{self.path} cannot be written: {error.strerror or type(error).__name__}"
        else:
            self._take(line)
            return
        raise BatchOutputError(problem)

    def close(self) -> None:
        """Close the file; idempotent."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
