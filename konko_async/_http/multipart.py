"""Multipart bodies with a file that is read while it is sent: it is never in memory as a whole."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from io import BytesIO, TextIOBase
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from aiohttp import hdrs

from konko_async.errors import ConfigurationError

if TYPE_CHECKING:
    from multidict import CIMultiDict

    from konko_async._core.pipeline import Upload

__all__ = ["LARGE", "Multipart", "UploadSource", "payload", "read_source"]

LARGE: Final = 1024 * 1024
"""Bytes from which on a body is aiohttp's business, which sends it piece by piece."""
_CHUNK: Final = 256 * 1024
_MOST_PARTS: Final = 3  # of (name, content, type)
# RFC 7578, 4.2, and what browsers do: a quote or a line break would end the header.
_ESCAPES: Final = str.maketrans({'"': "%22", "\r": "%0D", "\n": "%0A", "\0": "%00"})


class UploadSource:
    """A file to be uploaded: a path, bytes, or an open file from where it stands.

    Attributes:
        name: its name, as the server gets it.
        size: bytes.
        content_type: its media type.
    """

    __slots__ = ("_content", "_start", "content_type", "name", "size")

    def __init__(self, content: Any, name: str, content_type: str) -> None:
        self.name = name
        self.content_type = content_type
        self._start = 0
        self._content: bytes | Path | BinaryIO
        if isinstance(content, (bytes, bytearray, memoryview)):
            self._content = bytes(content)
            self.size = len(self._content)
        elif isinstance(content, (str, os.PathLike)):
            self._content = Path(content)
            self.size = self._content.stat().st_size
        else:
            if isinstance(content, TextIOBase):
                raise TypeError  # it reads text, whose bytes depend on an encoding
            self._content = content
            self._start = content.tell()
            self.size = content.seek(0, os.SEEK_END) - self._start
            content.seek(self._start)

    def __repr__(self) -> str:
        return f"<UploadSource {self.name!r}, {self.size} bytes>"

    async def chunks(self) -> AsyncIterator[bytes]:
        """Read it from its beginning; disks are waited for in a thread."""
        content = self._content
        opened: BinaryIO
        if isinstance(content, Path):
            opened = content.open("rb")
        else:
            opened = BytesIO(content) if isinstance(content, bytes) else content
            opened.seek(self._start)
        try:
            left = self.size
            while left:
                data = await asyncio.to_thread(opened.read, min(_CHUNK, left))
                if not data:
                    # Content-Length was sent: a shorter body would leave the server waiting.
                    raise ConfigurationError(f"{self.name} became shorter while it was uploaded")
                left -= len(data)
                yield data
        finally:
            if isinstance(content, Path):
                opened.close()


def read_source(given: Any) -> UploadSource:
    """Return what is to be uploaded.

    Args:
        given: bytes, a path, a file that is open for reading bytes and can be read again from its
            place, or a tuple ``(name, one of these)`` or ``(name, one of these, media type)``.

    Raises:
        ConfigurationError: it is none of these, or cannot be read.
    """
    name, kind, content = None, "application/octet-stream", given
    if isinstance(given, tuple):
        if not 1 < len(given) <= _MOST_PARTS:
            raise ConfigurationError("file=(name, content) or (name, content, media type)")
        name, content = given[0], given[1]
        kind = given[2] if len(given) == _MOST_PARTS and given[2] else kind
    if name is None:
        known = content if isinstance(content, (str, os.PathLike)) else None
        named = known if known is not None else getattr(content, "name", None)
        name = Path(named).name if isinstance(named, (str, os.PathLike)) else "upload"
    try:
        return UploadSource(content, str(name), str(kind))
    except OSError as error:
        problem = f"file={name!r:.100} cannot be read: {error.strerror or error}"
    except (AttributeError, TypeError, ValueError):
        problem = (
            f"file= must be a path, bytes or a file that is open for reading bytes, not "
            f"{type(content).__name__}"
        )
    raise ConfigurationError(problem)


class Multipart:
    """A ``multipart/form-data`` body (RFC 7578): fields of text, and one file.

    Args:
        fields: the texts, by their names.
        field: the name of the file's field.
        source: the file.

    Attributes:
        content_type: with the boundary between the parts.
        length: bytes of the whole body.
    """

    __slots__ = ("_head", "_source", "_tail", "content_type", "length")

    def __init__(self, fields: Mapping[str, str], field: str, source: UploadSource) -> None:
        boundary = f"konko-{os.urandom(16).hex()}"
        lines = []
        for name, value in fields.items():
            lines += [f"--{boundary}", f'Content-Disposition: form-data; name="{name}"', "", value]
        named = source.name.translate(_ESCAPES)
        disposition = f'form-data; name="{field}"; filename="{named}"'
        kind = source.content_type.translate(_ESCAPES)
        lines += [f"--{boundary}", f"Content-Disposition: {disposition}", f"Content-Type: {kind}"]
        lines += ["", ""]
        self._head = "\r\n".join(lines).encode("utf-8", "replace")
        self._tail = f"\r\n--{boundary}--\r\n".encode()
        self._source = source
        self.content_type = f"multipart/form-data; boundary={boundary}"
        self.length = len(self._head) + source.size + len(self._tail)

    def __repr__(self) -> str:
        return f"<Multipart {self.length} bytes>"

    async def chunks(self) -> AsyncIterator[bytes]:
        """Read it from its beginning."""
        yield self._head
        async for data in self._source.chunks():
            yield data
        yield self._tail


def payload(content: bytes | Upload | None, headers: CIMultiDict[str]) -> Any:
    """Return a body as aiohttp takes it; what is read while it is sent sets its headers."""
    if content is None or isinstance(content, bytes):
        return content if content is None or len(content) < LARGE else BytesIO(content)
    headers[hdrs.CONTENT_TYPE] = content.content_type
    # Known beforehand: without it the body would go out in chunks, which some servers refuse.
    headers[hdrs.CONTENT_LENGTH] = str(content.length)
    return content.chunks()
