"""The endpoints of files and of batches that the server runs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import msgspec

from konko_async._engine.operations import ApiOperation
from konko_async._http.multipart import Multipart, UploadSource
from konko_async.errors import ConfigurationError
from konko_async.wire import Batch, BatchList, FileDeleted, FileList, FileObject
from konko_async.wire._codec import encode

if TYPE_CHECKING:
    from konko_async._http.session import OpenResponse

__all__ = [
    "BATCH",
    "BATCHES",
    "BATCH_CANCEL",
    "BATCH_CREATE",
    "FILE",
    "FILES",
    "FILE_CONTENT",
    "FILE_CREATE",
    "FILE_DELETE",
    "FILE_SAVE",
    "SavedFile",
    "UploadParams",
    "open_private",
]

_BINARY: Final = getattr(os, "O_BINARY", 0)


def _entries(value: Any, _body: bytes, _answer: OpenResponse, _plain: bool) -> Any:
    """Give each entry of a page its own JSON: what this package has no name for stays with it."""
    listed = value.raw.get("data") if isinstance(value.raw, dict) else None
    if isinstance(listed, list) and len(listed) == len(value.data):
        for entry, item in zip(value.data, listed, strict=True):
            entry._raw = encode(item)  # noqa: SLF001 - the slot of Wire
    return value


def _as_is(value: Any, _body: bytes, _answer: OpenResponse, _plain: bool) -> Any:
    return value


class UploadParams(msgspec.Struct, frozen=True):
    """What is uploaded.

    Attributes:
        fields: texts that go with it, by their names.
        source: the file.
    """

    fields: dict[str, str]
    source: UploadSource


class SavedFile(msgspec.Struct, frozen=True):
    """Where a download goes."""

    path: Path


class _Upload(ApiOperation):
    __slots__ = ()

    def encode(self, params: Any) -> Multipart:
        return Multipart(params.fields, "file", params.source)


class _Content(ApiOperation):
    """Reads a file as it is: its bytes are the answer."""

    __slots__ = ()

    def encode(self, params: Any) -> None:  # noqa: ARG002 - the signature is ApiOperation's
        return None

    def decode(self, body: bytes, answer: OpenResponse, params: Any = None) -> Any:  # noqa: ARG002 - the signature is ApiOperation's
        return body


def open_private(path: str | os.PathLike[str], *, buffering: int = -1) -> BinaryIO:
    """Open a file for writing; a new one is its owner's alone, as it holds prompts or answers."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | _BINARY, 0o600)
    return open(descriptor, "wb", buffering=buffering)  # noqa: PTH123 - by descriptor


class _Sink:
    """Writes the parts of an answer to a file, in the place of what an earlier attempt wrote."""

    __slots__ = ("_file", "size")

    def __init__(self, path: Path) -> None:
        self._file = open_private(path, buffering=0)
        self.size = 0

    def append(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            written = self._file.write(rest)
            rest = rest[written or 0 :]
        self.size += len(data)

    def close(self) -> None:
        self._file.close()


class _Save(_Content):
    """Reads a file into another on this machine, as it comes."""

    __slots__ = ()

    def sink(self, params: Any) -> Any:
        return _Sink(params.path)

    def decode(self, body: bytes, answer: OpenResponse, params: Any = None) -> Any:
        # What came with the head of the answer did not go through the sink.
        if body or not answer.content.total_bytes:
            try:
                with open_private(params.path) as file:
                    file.write(body)
            except OSError as error:
                problem = f"the answer cannot be written: {error.strerror or error}"
            else:
                return None
            raise ConfigurationError(problem)
        return None


FILES = ApiOperation("files", "GET", "/files", FileList, finish=_entries)
FILE = ApiOperation("files", "GET", "/files/", FileObject, finish=_as_is)
FILE_DELETE = ApiOperation("files", "DELETE", "/files/", FileDeleted, finish=_as_is)
FILE_CREATE = _Upload("files", "POST", "/files", FileObject, finish=_as_is)
FILE_CONTENT = _Content("files", "GET", "/files/", FileObject, finish=_as_is)
FILE_SAVE = _Save("files", "GET", "/files/", FileObject, finish=_as_is)
BATCHES = ApiOperation("batches", "GET", "/batches", BatchList, finish=_entries)
BATCH = ApiOperation("batches", "GET", "/batches/", Batch, finish=_as_is)
BATCH_CREATE = ApiOperation("batches", "POST", "/batches", Batch, finish=_as_is)
BATCH_CANCEL = ApiOperation("batches", "POST", "/batches/", Batch, finish=_as_is)
