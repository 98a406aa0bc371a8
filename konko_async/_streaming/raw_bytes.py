"""Answers that are handed on as bytes: nothing is decoded but what limits and records need."""

from __future__ import annotations

import contextlib
import json
import re
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import msgspec

from konko_async._http.error_responses import find_error, stream_error
from konko_async.wire import Usage

if TYPE_CHECKING:
    from konko_async._http.session import OpenResponse
    from konko_async.errors import KonkoError

__all__ = ["Head", "RawDecoder", "usage_of"]

_TAIL = 4096  # bytes: the last event, which tells the usage, or the end of a longer one
_FIRST = 64 * 1024  # bytes in which the first event has to end for an error in it to be noticed
_DONE = re.compile(rb"(?:\A|[\r\n])data: ?\[DONE\]\s*\Z")
_DATA = re.compile(rb"(?:\A|[\r\n])data: ?([^\r\n]+)[\r\n]")
_REASON = re.compile(rb'"finish_reason": ?"([^"]{1,40})"')
_USAGES = 3  # that are looked at: the last may be null, or that of a choice
_NO_BYTES = b""


class _Choice(msgspec.Struct, gc=False):
    finish_reason: str | None = None


class Head(msgspec.Struct, gc=False):
    """What records say of an answer, as its JSON (or the first event's) has it.

    Attributes:
        id: the answer's.
        model: the model that answered.
        choices: why each ended.
        error: what stands in the place of an answer.
    """

    id: str | None = None
    model: str | None = None
    choices: list[_Choice] = []
    error: Any = None


class RawDecoder:
    """What a :class:`StreamReader` reads into where bytes are handed on as they are.

    It is the accumulator as well: of a streamed answer it keeps the last 4 KiB, in which the server
    tells the usage.

    Args:
        answer: its head has arrived.

    Attributes:
        ready: pieces of the body, oldest first.
        failure: what ends the answer.
        done: whether the body, or what was said in it, has ended.
        brought: whether the last read brought more than comments.
        has_delta: whether something of an answer has arrived.
        chunks: number of events received; for a body that is not an event stream, number of reads.
    """

    __slots__ = (
        "_answer", "_events", "_first", "_head", "_tail", "brought", "chunks", "done", "failure",
        "has_delta", "ready",
    )  # fmt: skip

    splitter = SimpleNamespace(waiting=False)

    def __init__(self, answer: OpenResponse) -> None:
        self._answer = answer
        self._events = "event-stream" in answer.headers.get("content-type", "")
        self._first: bytes = b""
        self._tail: bytes = b""
        self.ready: list[bytes] = []
        self.failure: KonkoError | None = None
        self.done = False
        self.brought = False
        self.has_delta = False
        self.chunks = 0
        self._head: Head | None = None

    @property
    def accumulated(self) -> RawDecoder:
        """Itself."""
        return self

    @property
    def finished(self) -> bool:
        """Whether the end of the answer has been said, though perhaps not read."""
        return self.done

    @property
    def usage(self) -> Usage | None:
        """The tokens that the end of the answer tells; None if it tells none."""
        return usage_of(self._tail)

    @property
    def model(self) -> str | None:
        """The model that the first event names."""
        return None if self._head is None else self._head.model

    def facts(self) -> tuple[str | None, str | None, tuple[str, ...]]:
        """Return the answer's id, its model, and why it ended, as far as its ends tell."""
        reasons = _REASON.findall(self._tail) if self._events else []
        said = tuple(reason.decode("utf-8", "replace") for reason in reasons)
        return (self._head and self._head.id) or None, self.model, said

    def size(self) -> int:
        """Return the least there can be of text: a byte a chunk, as nothing is decoded."""
        return self.chunks

    def result(self) -> None:
        """Nothing: what had arrived has been handed on."""

    def take_waiting(self) -> None:
        """Nothing waits: bytes are handed on as they come."""

    def take_alike(self, _data: bytes) -> bool:
        """Nothing is decoded, so nothing is alike."""
        return False

    def take(self, data: bytes | None) -> bool:
        """Keep what a read brought; False if it has to go on."""
        if not data:
            return False
        self._tail = data[-_TAIL:] if len(data) >= _TAIL else (self._tail + data)[-_TAIL:]
        if not self._events:
            self.brought = self.has_delta = True
            self.chunks += 1
        else:
            self.chunks += data.count(b"\ndata:") + data.startswith(b"data:")
            self.brought = _is_progress(data)
            self.done = _DONE.search(self._tail) is not None
            if not self.has_delta and self._failed(data):
                return False
        self.ready.append(data)
        return True

    def _failed(self, data: bytes) -> bool:
        """Read the first event: whether it is an error, which may be worth another attempt."""
        self._first += data
        found = _DATA.search(self._first)
        if found is None:
            self.has_delta = len(self._first) > _FIRST
            return False
        self._first = _NO_BYTES
        self.has_delta = True
        line = found[1]
        if b'"error"' in line:
            try:
                payload = msgspec.json.decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError):
                return False
            if find_error(payload, plainly=True) is not None:
                answer = self._answer
                headers, request_id = answer.headers, answer.request_id
                failure: Any = stream_error(payload, headers, request_id, delivered=False)
                failure.content = b"".join((*self.ready, data))
                self.failure = failure
                return True
        # [DONE] is no JSON, and other kinds of events have no model.
        with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError):
            self._head = msgspec.json.decode(line, type=Head)
        return False

    def end(self, *, whole: bool = True, cut: KonkoError | None = None) -> bool:  # noqa: ARG002 - as ChunkDecoder's
        """End the answer, or say what ended it."""
        if cut is not None:
            self.failure = cut
        elif self.failure is None:
            self.done = True
        return False


def _is_progress(data: bytes) -> bool:
    """Whether there is more in it than comments and empty lines, which keep a connection alive."""
    if data[:1] not in b":\r\n":  # nearly always
        return True
    return any(line and not line.startswith(b":") for line in data.splitlines())


def usage_of(body: bytes) -> Usage | None:
    """Return the tokens that the end of a body tells, of chat's API or of Responses; else None."""
    end = len(body)
    for _ in range(_USAGES):
        end = body.rfind(b'"usage"', 0, end)
        if end < 0:
            return None
        text = body[end + 7 : end + _TAIL].decode("utf-8", "replace").lstrip(" \t\r\n:")
        if not text.startswith("{"):
            continue
        try:
            found, _ = json.JSONDecoder().raw_decode(text)
        except ValueError:
            continue
        counts = {name: _count(found, name, *others) for name, others in _COUNTS.items()}
        if any(counts.values()):
            return msgspec.convert(counts, Usage)
    return None


# Chat's names, and those of Responses.
_COUNTS = {
    "prompt_tokens": ("input_tokens",),
    "completion_tokens": ("output_tokens",),
    "total_tokens": (),
}


def _count(found: dict[str, Any], *names: str) -> int:
    values = (found.get(name) for name in names)
    return next((value for value in values if type(value) is int and value > 0), 0)
