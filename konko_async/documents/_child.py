"""The program of a reader process: parses untrusted documents for its parent.

Run as ``python -m konko_async.documents._child``. Requests come on standard input, replies go to
standard output: a length of four bytes, and as many of MessagePack. Whatever goes wrong in a
format's library ends this process, and nothing else.
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import IO, Any

import msgspec

from konko_async.documents._document import Document, DocumentError
from konko_async.documents._read_bytes import documents_of, file_bytes

__all__ = ["ReadFailure", "ReadReply", "ReadRequest", "read_frame", "write_frame"]

_HEADER = 4


class ReadRequest(msgspec.Struct):
    """A request to read one file, as the parent sends it."""

    # Bytes, as `os.fsencode` gives them: MessagePack text is UTF-8, and a file's name need not be.
    path: bytes
    name: str
    kind: str
    field: str | None = None
    encoding: str | None = None


class ReadFailure(msgspec.Struct):
    """A DocumentError on its way to the parent."""

    message: str
    name: str
    code: str


class ReadReply(msgspec.Struct):
    """The documents of a file in their order; ``missing`` names a library that is not there."""

    # Pairs, as an exception cannot be sent: msgspec encodes structs, and `_readers` makes a
    # DocumentError of a ReadFailure again.
    documents: list[tuple[Document | None, ReadFailure | None]] = []
    missing: str | None = None


def read_frame(stream: IO[bytes]) -> bytes | None:
    """Return the next message; None at the end of the stream."""
    head = stream.read(_HEADER)
    if len(head) < _HEADER:
        return None
    size = int.from_bytes(head, "big")
    body = stream.read(size)
    # A short body means that the writer died in the middle of it; to the reader that is an end.
    return body if len(body) == size else None


def write_frame(stream: IO[bytes], body: bytes) -> None:
    """Send a message."""
    stream.write(len(body).to_bytes(_HEADER, "big") + body)
    stream.flush()


def _limit_memory(size: int) -> None:
    with contextlib.suppress(ImportError, ValueError, OSError):  # Windows, or a lower limit is set
        import resource  # noqa: PLC0415 - not on Windows

        # Soft and hard limit alike, so that no library can raise it again.
        resource.setrlimit(resource.RLIMIT_AS, (size, size))


def _answer(request: ReadRequest) -> ReadReply:
    reply = ReadReply()
    try:
        data = file_bytes(Path(os.fsdecode(request.path)), request.name)
        for found in documents_of(
            data, request.name, request.kind, field=request.field, encoding=request.encoding
        ):
            reply.documents.append(_packed(found))
    except DocumentError as error:
        reply.documents.append(_packed(error))
    # Before the general case below: a document that hits the limit is refused as too large, and
    # this process reads the next one.
    except MemoryError:
        too_large = DocumentError(
            f"{request.name} needs more memory than is allowed", name=request.name, code="too_large"
        )
        reply.documents.append(_packed(too_large))
    except ModuleNotFoundError as error:
        reply.missing = error.name or "a library"
    except Exception as error:  # noqa: BLE001 - libraries meet broken files with errors of any kind
        what = " ".join(str(error).split())[:200] or type(error).__name__
        broken = DocumentError(
            f"{request.name} cannot be read as {request.kind}: {what}",
            name=request.name,
            code="broken",
        )
        reply.documents.append(_packed(broken))
    return reply


def _packed(found: Document | DocumentError) -> tuple[Document | None, ReadFailure | None]:
    if isinstance(found, Document):
        return found, None
    return None, ReadFailure(found.message, found.name, found.code)


def main() -> None:
    """Read what the parent asks for, until it closes standard input."""
    # A copy of standard output, taken before descriptor 1 is given to standard error: C libraries
    # write to the descriptor, so redirecting `sys.stdout` would not be enough.
    with os.fdopen(os.dup(1), "wb") as replies:
        os.dup2(2, 1)  # whatever a library prints must not end up among the replies
        _limit_memory(int(sys.argv[1]))
        decoder: Any = msgspec.msgpack.Decoder(ReadRequest)
        while (body := read_frame(sys.stdin.buffer)) is not None:
            write_frame(replies, msgspec.msgpack.encode(_answer(decoder.decode(body))))


if __name__ == "__main__":
    main()
