"""The folder in which a run keeps what it sends and what it was answered."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Self

import msgspec

from konko_async.batch import BatchLockedError, BatchOutputError
from konko_async.middleware import classify_status
from konko_async.summarize._plan import CUT, RoundAnswer, RoundRequest

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

__all__ = ["Workspace"]


class _AnswerLine(msgspec.Struct, gc=False):
    custom_id: str
    response: dict[str, msgspec.Raw] | None = None
    error: dict[str, object] | None = None


class _AnswerMessage(msgspec.Struct, gc=False):
    content: str | None = None


class _AnswerChoice(msgspec.Struct, gc=False):
    message: _AnswerMessage
    finish_reason: str | None = None


class _AnswerBody(msgspec.Struct, gc=False):
    choices: list[_AnswerChoice] = []


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_AnswerLine).decode
_decode_body = msgspec.json.Decoder(_AnswerBody).decode
_decode_status = msgspec.json.Decoder(int | None).decode


class Workspace:
    """A folder, locked while it is open, that only its owner can read.

    It holds two files for each round: ``round-N.jsonl``, the requests, and
    ``round-N.answers.jsonl`` with its journal.

    Args:
        path: of the folder; made if there is none.
        restart: whether to empty it.

    Raises:
        BatchLockedError: another run has it open.
        BatchOutputError: it cannot be made or written.
    """

    def __init__(self, path: str | os.PathLike[str], *, restart: bool = False) -> None:
        self.path = Path(path)
        try:
            self.path.mkdir(mode=0o700, exist_ok=True)
            # A lock of the folder, above those that `run_batch` takes: one run has many rounds, and
            # between two of them no batch is open.
            self._lock = self._private(self.path / "lock", os.O_RDWR)
        except OSError as error:
            raise BatchOutputError(f"{path} cannot be made: {error.strerror}") from None
        try:
            if not _try_lock(self._lock):
                raise BatchLockedError(  # noqa: TRY301 - closes what was opened
                    f"{path} is in use: another run writes to this output"
                )
            if restart:
                self._empty()
        except BaseException:
            os.close(self._lock)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._lock)

    @staticmethod
    def _private(path: Path, flags: int) -> int:
        return os.open(path, flags | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o600)

    def _empty(self) -> None:
        # Only what rounds have written: the lock is held, and other files are not ours to delete.
        for entry in self.path.glob("round-*"):
            if entry.is_dir():
                shutil.rmtree(entry)
            else:
                entry.unlink()

    def requests(self, number: int) -> Path:
        """Return the path of a round's requests."""
        return self.path / f"round-{number}.jsonl"

    def answers(self, number: int) -> Path:
        """Return the path of a round's answers."""
        return self.path / f"round-{number}.answers.jsonl"

    def write(self, number: int, requests: Iterable[RoundRequest]) -> int:
        """Write the requests of a round, each once; returns how many there are.

        Raises:
            BatchOutputError: they cannot be written.
        """
        target = self.requests(number)
        # Written aside and renamed: a crash in between must not leave half a round, which the next
        # run would take for all of it.
        fresh = target.with_suffix(".new")
        seen: set[str] = set()
        try:
            with open(self._private(fresh, os.O_WRONLY | os.O_TRUNC), "wb") as file:  # noqa: PTH123 - by descriptor
                for request in requests:
                    if request.key not in seen:
                        seen.add(request.key)
                        file.write(_line(request))
            fresh.replace(target)
        except OSError as error:
            raise BatchOutputError(f"{target} cannot be written: {error.strerror}") from None
        finally:
            with contextlib.suppress(OSError):
                fresh.unlink(missing_ok=True)
        return len(seen)

    def rounds(self) -> int:
        """Return how many rounds there are answers of, of earlier runs too."""
        number = 0
        while self.answers(number).exists():
            number += 1
        return number

    def read(self, number: int) -> Iterator[tuple[str, RoundAnswer]]:
        """Yield the answers of a round, by the keys of their requests."""
        path = self.answers(number)
        if not path.exists():
            return
        with path.open("rb") as file:
            for data in file:
                with contextlib.suppress(msgspec.DecodeError):  # a torn line: done again
                    line = _decode(data)
                    yield line.custom_id, _answer(line)


def _line(request: RoundRequest) -> bytes:
    url = "/v1/chat/completions"
    row = {"custom_id": request.key, "method": "POST", "url": url, "body": request.body}
    return _encode(row) + b"\n"


def _answer(line: _AnswerLine) -> RoundAnswer:
    if line.error is not None:
        code, message = str(line.error.get("code")), str(line.error.get("message"))
        status = _decode_status((line.response or {}).get("status_code", b"null"))
        # One place decides what "too long for the context" means, as servers word it in many ways.
        found = classify_status(status, code, None, message)
        return RoundAnswer(None, code, message, overflowed=found.too_long)
    body = _decode_body((line.response or {}).get("body", b"{}"))
    choice = body.choices[0] if body.choices else None
    content = choice.message.content if choice is not None else None
    finish = choice.finish_reason if choice is not None else None
    # An empty answer that was cut is no error yet: reasoning may have used up `max_tokens`, and the
    # plan sends it again with more.
    if (content is None or not content.strip()) and finish not in CUT:
        return RoundAnswer(None, "empty_answer", "the model answered with nothing")
    return RoundAnswer(content or "", finish=finish or "")


def _try_lock(descriptor: int) -> bool:
    """Lock a file until it is closed, or its process ends; False if another process has it."""
    try:
        if sys.platform == "win32":
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
