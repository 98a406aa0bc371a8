"""``client.files``: uploads files, and reads what the server has written."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, BinaryIO, Unpack

import msgspec

from konko_async._core.not_given import drop_not_given
from konko_async._core.policies import Timeout
from konko_async._core.validation import known_keywords
from konko_async._engine.engine import CallOptions
from konko_async._engine.file_operations import (
    FILE,
    FILE_CONTENT,
    FILE_CREATE,
    FILE_DELETE,
    FILE_SAVE,
    FILES,
    SavedFile,
    UploadParams,
    open_private,
)
from konko_async._http.multipart import read_source
from konko_async._http.paths import id_path
from konko_async.errors import ConfigurationError
from konko_async.resources._base import Resource
from konko_async.resources._pages import Pages, page_fetcher
from konko_async.resources._params import EXTRAS, Extras, split_options
from konko_async.wire import FileDeleted, FileList, FileObject

__all__ = ["FileContent", "FileContents", "Files"]

FileContents = (
    str
    | bytes
    | os.PathLike[str]
    | BinaryIO
    | tuple[str, bytes | os.PathLike[str] | BinaryIO]
    | tuple[str, bytes | os.PathLike[str] | BinaryIO, str]
)
# Bytes a second that an upload is given time for, beside the wait for the answer: 1 Mbit/s.
_SLOWEST = 128 * 1024


class FileContent:
    """The content of a file of the server, with the names that ``openai`` has for it.

    Attributes:
        content: its bytes.
    """

    __slots__ = ("content",)

    def __init__(self, content: bytes) -> None:
        self.content = content

    def __repr__(self) -> str:
        return f"<FileContent {len(self.content)} bytes>"

    @property
    def text(self) -> str:
        """It as text, from UTF-8; what is not UTF-8 is replaced."""
        return self.content.decode("utf-8", "replace")

    def read(self) -> bytes:
        """Return its bytes."""
        return self.content

    def write_to_file(self, file: str | os.PathLike[str]) -> None:
        """Write it to a file on this machine; raises OSError."""
        with open_private(file) as opened:
            opened.write(self.content)


class FilePages(Pages[FileList, FileObject]):
    """The files, page by page: ``await`` it for the first one, or use ``async for``."""

    __slots__ = ()


class Files(Resource):
    """``/files``."""

    __slots__ = ()

    async def create(
        self, *, file: FileContents, purpose: str, **extras: Unpack[Extras]
    ) -> FileObject:
        """Upload a file. It is read while it is sent, anew for each attempt.

        Args:
            file: a path, bytes, a file that is open for reading bytes, or a tuple
                ``(name, one of these)`` or ``(name, one of these, media type)``.
            purpose: what it is for, such as ``batch``.
            **extras: the keywords that every call takes; ``extra_body=`` holds further fields of
                the form, such as ``{"expires_after[seconds]": 3600}``. Without ``timeout=`` an
                upload has, beside the client's own, a second for each 128 KiB.

        Raises:
            ConfigurationError: the file cannot be read, or a keyword is wrong.
            APIError: as for every call.
        """
        values: Any = extras
        options = split_options(values)
        known_keywords("files.create", values, EXTRAS)
        if not purpose or type(purpose) is not str:
            raise ConfigurationError('purpose must be a text such as "batch"')
        source = read_source(file)
        fields = {"purpose": purpose}
        for name, value in (options.extra_body or {}).items():
            fields[str(name)] = str(value)
        options = msgspec.structs.replace(options, extra_body=None)
        if options.timeout is None:
            options = msgspec.structs.replace(options, timeout=self._patient(source.size))
        response, _ = await self._engine().call(
            FILE_CREATE, FILE_CREATE.path, UploadParams(fields, source), model=None, options=options
        )
        result: FileObject = response.result
        return result

    def _patient(self, size: int) -> Timeout:
        timeout = self._engine().policies.timeout
        if timeout.first_token is None:
            return timeout
        return msgspec.structs.replace(timeout, first_token=timeout.first_token + size / _SLOWEST)

    async def retrieve(self, file_id: str, **extras: Unpack[Extras]) -> FileObject:
        """Return what the server says of a file.

        Raises:
            ConfigurationError: not an id.
            NotFoundError: there is no such file.
            APIError: as for every call.
        """
        path, options = _of(file_id, "files.retrieve", extras)
        response, _ = await self._engine().call(FILE, path, None, model=None, options=options)
        result: FileObject = response.result
        return result

    async def content(self, file_id: str, **extras: Unpack[Extras]) -> FileContent:
        """Return the content of a file; :meth:`download` is for large ones.

        Raises:
            ConfigurationError: not an id.
            NotFoundError: there is no such file.
            APIError: as for every call.
        """
        path, options = _of(file_id, "files.content", extras, "/content")
        response, _ = await self._engine().call(
            FILE_CONTENT, path, None, model=None, options=options
        )
        return FileContent(response.result)

    async def download(
        self, file_id: str, path: str | os.PathLike[str], **extras: Unpack[Extras]
    ) -> int:
        """Write the content of a file to one on this machine, as it comes: memory stays flat.

        Args:
            file_id: its id.
            path: where to; what is there is overwritten, also by an attempt that fails.
            **extras: the keywords that every call takes.

        Returns:
            How many bytes it has.

        Raises:
            ConfigurationError: not an id, or the file cannot be written.
            NotFoundError: there is no such file.
            APIError: as for every call.
        """
        place, options = _of(file_id, "files.download", extras, "/content")
        saved = SavedFile(Path(path))
        await self._engine().call(FILE_SAVE, place, saved, model=None, options=options)
        return saved.path.stat().st_size

    async def delete(self, file_id: str, **extras: Unpack[Extras]) -> FileDeleted:
        """Delete a file.

        Raises:
            ConfigurationError: not an id.
            NotFoundError: there is no such file.
            APIError: as for every call.
        """
        path, options = _of(file_id, "files.delete", extras)
        response, _ = await self._engine().call(
            FILE_DELETE, path, None, model=None, options=options
        )
        result: FileDeleted = response.result
        return result

    def list(
        self,
        *,
        purpose: str | None = None,
        limit: int | None = None,
        after: str | None = None,
        order: str | None = None,
        **extras: Unpack[Extras],
    ) -> FilePages:
        """List the files: ``await`` it for a page, or use ``async for`` for all of them.

        Args:
            purpose: only those for it.
            limit: files in a page.
            after: the id of the file before the first one.
            order: ``asc`` or ``desc``, by their age.
            **extras: the keywords that every call takes.

        Raises:
            ConfigurationError: an argument is wrong.
            APIError: as for every call, once it is awaited.
        """
        query: Any = {"purpose": purpose, "limit": limit, "after": after, "order": order}
        drop_not_given(query)
        return FilePages(page_fetcher(self._engine, FILES, query, extras))


def _of(file_id: str, name: str, extras: Any, after: str = "") -> tuple[str, CallOptions]:
    options = split_options(extras)
    known_keywords(name, extras, EXTRAS)
    return id_path("/files/", "file_id", file_id, after), options
