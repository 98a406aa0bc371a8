"""Parses requests out of a buffer of raw bytes, and redacts credentials in what is logged."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

_SECRET: Final = frozenset(
    {"authorization", "proxy-authorization", "x-openai-api-key", "api-key", "x-api-key", "cookie"}
)
_REDACTED: Final = "[redacted]"
_HEAD_END: Final = b"\r\n\r\n"
# Well above what clients send; without it, a stream of bytes without an empty line would be
# searched from its start again and again.
_MAX_HEAD: Final = 256 * 1024


class NotHTTPError(Exception):
    """The bytes received cannot be parsed as an HTTP request."""


@dataclass(frozen=True, slots=True)
class ReceivedRequest:
    """One request as it came."""

    method: str
    path: str
    """The request target: path and query."""
    headers: Mapping[str, str]
    """By lower-case name; several of one name are joined by ", ". Credentials read "[redacted]"."""
    body: bytes
    """Without its framing."""
    connection: int
    """The number of the connection it came on, from 1."""

    def json(self) -> Any:
        """The decoded JSON body; raises ValueError if it is not JSON."""
        return json.loads(self.body)

    @property
    def keep_alive(self) -> bool:
        """Whether its sender wants to use the connection again."""
        return self.headers.get("connection", "").lower() != "close"


def take_request(inbox: bytearray, connection: int) -> ReceivedRequest | None:
    """Take the first complete request out of the buffer; `None` while there is none.

    Raises:
        NotHTTPError: It never will be.
    """
    end = inbox.find(_HEAD_END)
    if end < 0:
        if len(inbox) > _MAX_HEAD:
            raise NotHTTPError("the headers do not end")
        return None
    start_line, headers = _head(bytes(inbox[:end]))
    found = _body(inbox, end + len(_HEAD_END), headers)
    if found is None:
        return None
    body, used = found
    del inbox[:used]
    method, path, _ = start_line
    shown = {name: _REDACTED if name in _SECRET else value for name, value in headers.items()}
    return ReceivedRequest(method, path, MappingProxyType(shown), body, connection)


def _head(data: bytes) -> tuple[list[str], dict[str, str]]:
    # latin-1 cannot fail: odd bytes in a header are logged, and not a crash of the server.
    first, *lines = data.decode("latin-1").split("\r\n")
    start_line = first.split(" ")
    if len(start_line) != 3 or not start_line[2].startswith("HTTP/1."):  # noqa: PLR2004 - method, path, version
        raise NotHTTPError("no request line of HTTP/1")
    headers: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        key, value = name.strip().lower(), value.strip()
        headers[key] = f"{headers[key]}, {value}" if key in headers else value
    return start_line, headers


def _body(inbox: bytearray, start: int, headers: Mapping[str, str]) -> tuple[bytes, int] | None:
    """Return a body and the offset of its end; `None` while it is incomplete."""
    # Before Content-Length, which RFC 9112 says to ignore beside it.
    if "chunked" in headers.get("transfer-encoding", "").lower():
        return _chunked(inbox, start)
    try:
        size = int(headers.get("content-length", "0"))
    except ValueError:
        raise NotHTTPError("the Content-Length is no number") from None
    end = start + size
    return (bytes(inbox[start:end]), end) if len(inbox) >= end else None


def _chunked(inbox: bytearray, start: int) -> tuple[bytes, int] | None:
    body = bytearray()
    while (line_end := inbox.find(b"\r\n", start)) >= 0:
        try:
            size = int(bytes(inbox[start:line_end]).partition(b";")[0], 16)
        except ValueError:
            raise NotHTTPError("a chunk size is no number") from None
        data, start = line_end + 2, line_end + 2 + size + 2
        if len(inbox) < start:
            return None
        if size == 0:
            # Trailers are not understood: no client of chat APIs sends them.
            return bytes(body), start
        body += inbox[data : data + size]
    return None
