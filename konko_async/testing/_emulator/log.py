"""The emulator's request log: who sent which request, and how its answer ended."""

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final, overload

if TYPE_CHECKING:
    from collections import deque

# Headers in which chat servers take a key: Azure's `api-key`, Anthropic's `x-api-key`, an OpenAI
# key for Konko in `x-openai-api-key`. The fault server redacts the same ones.
_SECRET: Final = frozenset(
    {"authorization", "proxy-authorization", "x-openai-api-key", "x-api-key", "api-key", "cookie"}
)
REDACTED: Final = "[redacted]"


def loop_time() -> float:
    """Seconds of the event loop's clock, so that simulated time holds for the emulator, too."""
    try:
        return asyncio.get_running_loop().time()
    except RuntimeError:
        # What asks the service without a loop, such as a test of its answers.
        return time.monotonic()


@dataclass(frozen=True, slots=True)
class RequestRecord:
    """One request, as it was when it was looked at.

    Times are in seconds of the event loop's clock: `time.monotonic()`, unless time is simulated.

    Attributes:
        index: Its number, from 0, in the order of arrival.
        request_id: The answer's `x-request-id`.
        method: The HTTP method.
        path: The path with its query, as sent.
        headers: The headers, lower-case names; keys and cookies read `[redacted]`.
        body: The decoded JSON; `None` if there was none, or none that could be decoded.
        model: The model asked for, if the body names one.
        stream: Whether a stream was asked for.
        key_fingerprint: Twelve hexadecimal digits that distinguish keys; `None` without a key.
        idempotency_key: The header `idempotency-key`.
        started: When its headers had arrived.
        first_byte: When the first byte of the answer was written; `None` before that.
        finished: When the last byte was written, or the call was given up; `None` before that.
        status: The answer's status; `None` before there is one.
        bytes_sent: Bytes of the body written so far.
        chunks_sent: Events with data written so far, without `[DONE]`; 0 if it is no stream.
        disconnected: Whether the client left before the end.
        faults: The names of the faults that applied to it.
    """

    index: int
    request_id: str
    method: str
    path: str
    headers: Mapping[str, str]
    body: Any
    model: str | None
    stream: bool
    key_fingerprint: str | None
    idempotency_key: str | None
    started: float
    first_byte: float | None
    finished: float | None
    status: int | None
    bytes_sent: int
    chunks_sent: int
    disconnected: bool
    faults: tuple[str, ...]


class RequestLog(Sequence[RequestRecord]):
    """The requests of an emulator, oldest first: a live view that makes records on access."""

    def __init__(self, calls: "deque[LoggedCall]") -> None:
        # The emulator's own deque, not a copy: a log that a test holds on to sees later calls too.
        self._calls = calls

    def __len__(self) -> int:
        return len(self._calls)

    @overload
    def __getitem__(self, index: int) -> RequestRecord: ...
    @overload
    def __getitem__(self, index: slice) -> list[RequestRecord]: ...
    def __getitem__(self, index: int | slice) -> RequestRecord | list[RequestRecord]:
        if isinstance(index, slice):
            # A deque cannot be sliced.
            return [call.record() for call in list(self._calls)[index]]
        return self._calls[index].record()

    def __iter__(self) -> Iterator[RequestRecord]:
        # Over a copy: the emulator may add to it while a test goes through it.
        return (call.record() for call in list(self._calls))

    def __repr__(self) -> str:
        return f"<RequestLog of {len(self)}>"


class LoggedCall:
    """A request while it is answered; its records are made of this."""

    # Ten thousand of them are kept (`log_limit`), and one is made on the path of each request.
    __slots__ = (
        "body",
        "bytes_sent",
        "chunks_sent",
        "disconnected",
        "faults",
        "finished",
        "first_byte",
        "headers",
        "holds_slot",
        "hung_up",
        "index",
        "key",
        "method",
        "model",
        "path",
        "request_id",
        "started",
        "status",
        "stream",
        "upload",
    )

    def __init__(
        self, index: int, method: str, path: str, headers: Mapping[str, str], started: float
    ) -> None:
        self.index = index
        # From the index, not at random: an answer depends on nothing but the request and its place.
        self.request_id = f"req_{index:016x}"
        self.method = method
        self.path = path
        self.headers = headers
        self.started = started
        self.key = bearer(headers.get("authorization"))
        self.body: Any = None
        self.model: str | None = None
        self.stream = False
        self.upload: bytes | None = None
        self.first_byte: float | None = None
        self.finished: float | None = None
        self.status: int | None = None
        self.bytes_sent = 0
        self.chunks_sent = 0
        self.disconnected = False
        self.holds_slot = False
        self.hung_up = False
        self.faults: tuple[str, ...] = ()

    def record(self) -> RequestRecord:
        """The call as it is now."""
        return RequestRecord(
            index=self.index,
            request_id=self.request_id,
            method=self.method,
            path=self.path,
            headers=redacted(self.headers),
            body=self.body,
            model=self.model,
            stream=self.stream,
            key_fingerprint=fingerprint(self.key) if self.key else None,
            idempotency_key=self.headers.get("idempotency-key"),
            started=self.started,
            first_byte=self.first_byte,
            finished=self.finished,
            status=self.status,
            bytes_sent=self.bytes_sent,
            chunks_sent=self.chunks_sent,
            disconnected=self.disconnected,
            faults=self.faults,
        )


class UnlimitedCall(LoggedCall):
    """A row of a batch: it is not logged, and neither limits nor the capacity apply to it."""

    __slots__ = ()


def bearer(authorization: str | None) -> str:
    """The key of an `Authorization` header; empty if there is none."""
    if authorization is None or authorization[:7].lower() != "bearer ":
        return ""
    return authorization[7:].strip()


@lru_cache(maxsize=1024)
def fingerprint(key: str) -> str:
    """Twelve hexadecimal digits that distinguish keys without revealing them."""
    # 48 bits tell a test's keys apart; the key itself must not be in a record that tests print.
    return blake2b(key.encode(), digest_size=6).hexdigest()


def redacted(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers by lower-case name, without secrets."""
    return {
        name.lower(): REDACTED if name.lower() in _SECRET else value
        for name, value in headers.items()
    }
