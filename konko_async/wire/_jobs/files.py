"""Files that were uploaded to the server, or that it has written."""

from __future__ import annotations

from typing import Any

from konko_async.wire._base import Answered, Wire

__all__ = ["FileDeleted", "FileList", "FileObject"]


class FileObject(Answered, Wire):
    """A file on the server (OpenAI's API reference, "The File object").

    Attributes:
        id: its id.
        bytes: its size.
        created_at: Unix seconds.
        filename: as it was uploaded.
        purpose: ``batch``, ``batch_output`` and others.
        status: ``uploaded``, ``processed`` or ``error``; None where a server has none.
        expires_at: Unix seconds after which the server deletes it.
        status_details: what is wrong with it.
    """

    id: str
    bytes: int | None = None
    created_at: int | float | None = None
    filename: str | None = None
    object: str = "file"
    purpose: str | None = None
    status: str | None = None
    expires_at: int | float | None = None
    status_details: Any = None


class FileList(Answered, Wire):
    """One page of files; ``has_more`` says whether another follows the last one."""

    data: list[FileObject]
    object: str = "list"
    first_id: str | None = None
    last_id: str | None = None
    has_more: bool | None = None


class FileDeleted(Answered, Wire):
    """What the server says of a file that it has deleted."""

    id: str
    deleted: bool = False
    object: str = "file"
