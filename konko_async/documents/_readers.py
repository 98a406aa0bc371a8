"""Reader processes: each document is read with a time and a memory limit, several at once."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Final, Self

import msgspec

from konko_async.documents._child import ReadReply, ReadRequest, read_frame, write_frame
from konko_async.documents._document import DocumentError, missing_library
from konko_async.documents._read_bytes import Found

__all__ = ["Readers"]

# A PDF of a thousand pages takes a few seconds; what takes a minute never ends.
TIME_LIMIT: Final = 60.0
# Address space, of which a good part is the libraries' own; it fits a laptop with two of them.
MEMORY_LIMIT: Final = 3 * 2**30
_MOST: Final = 8


class _Reader:
    """One reader process, started when it is first needed, and anew after it died."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._stopped = False
        self._starting = threading.Lock()

    def read(self, request: ReadRequest) -> list[Found]:
        process = self._started()
        if process is None:  # nobody wants the result any more
            return []
        assert process.stdin is not None  # noqa: S101 - both are pipes
        assert process.stdout is not None  # noqa: S101 - both are pipes
        # A timer that kills, instead of a timeout on the read: the pipe's read blocks in the
        # kernel, and only the end of the process ends it, on Windows too.
        expired = threading.Event()

        def expire() -> None:
            expired.set()
            process.kill()

        timer = threading.Timer(self._seconds, expire)
        timer.daemon = True
        timer.start()
        try:
            write_frame(process.stdin, msgspec.msgpack.encode(request))
            body = read_frame(process.stdout)
        except OSError:  # it died while it was written to
            body = None
        finally:
            timer.cancel()
            # Joined: a timer that fires right now must not kill the process during the next
            # document.
            timer.join()
        if body is None:
            self.close()
            return [_lost(request.name, self._seconds if expired.is_set() else None)]
        return _unpacked(msgspec.msgpack.decode(body, type=ReadReply), request.name)

    def _started(self) -> subprocess.Popen[bytes] | None:
        # Locked: a thread that goes on to the next file while the pool is left must not start a
        # process that nobody ends.
        with self._starting:
            if self._stopped:
                return None
            if self._process is None or self._process.poll() is not None:
                self.close()
                self._process = subprocess.Popen(  # noqa: S603 - our own module
                    [sys.executable, "-m", "konko_async.documents._child", str(MEMORY_LIMIT)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    # Libraries complain about broken files at length; a pipe that nobody reads
                    # would fill and block.
                    stderr=subprocess.DEVNULL,
                )
            return self._process

    def stop(self) -> None:
        """End the process for good; what is being read is lost."""
        with self._starting:
            self._stopped = True
        self.close()

    def close(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        process.wait()


class Readers:
    """A pool of reader processes.

    Args:
        workers: how many there are at most. Default: one per core, at most 8.
        seconds: how long one file may take.
    """

    def __init__(self, workers: int | None = None, seconds: float = TIME_LIMIT) -> None:
        self.workers = workers or min(os.cpu_count() or 1, _MOST)
        self._seconds = seconds
        self._threads = ThreadPoolExecutor(self.workers, thread_name_prefix="konko-documents")
        self._local = threading.local()
        self._readers: list[_Reader] = []
        self._lock = threading.Lock()
        self._left = False

    def submit(
        self, path: Path, name: str, kind: str, *, field: str | None, encoding: str | None
    ) -> Future[list[Found]]:
        """Begin to read a file; the result is the documents in it.

        The future raises ConfigurationError where the extra ``docs`` is not installed.
        """
        return self._threads.submit(
            self._read, ReadRequest(os.fsencode(path), name, kind, field, encoding)
        )

    def _read(self, request: ReadRequest) -> list[Found]:
        # One process per thread: a thread waits for its own reply, so requests and replies need no
        # ids.
        reader: _Reader | None = getattr(self._local, "reader", None)
        if reader is None:
            reader = self._local.reader = _Reader(self._seconds)
            with self._lock:
                self._readers.append(reader)
                if self._left:
                    reader.stop()
        return reader.read(request)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # Killed first: leaving early must not wait for a document that takes a minute.
        self._threads.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            self._left = True
            for reader in self._readers:
                reader.stop()
        self._threads.shutdown()


def _lost(name: str, seconds: float | None) -> DocumentError:
    if seconds is not None:
        return DocumentError(
            f"{name} could not be read within {seconds:g} s", name=name, code="timeout"
        )
    return DocumentError(
        f"{name} ended its reader: it is broken, or needs more memory than is allowed",
        name=name,
        code="broken",
    )


def _unpacked(reply: ReadReply, name: str) -> list[Found]:
    if reply.missing is not None:
        raise missing_library(name, reply.missing)
    found: list[Found] = []
    for document, failed in reply.documents:
        if document is not None:
            found.append(document)
        elif failed is not None:
            found.append(DocumentError(failed.message, name=failed.name, code=failed.code))
    return found
