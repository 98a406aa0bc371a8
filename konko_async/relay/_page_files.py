"""The files of the web page: what is served for a path, with which headers."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

__all__ = ["PAGE_HEADERS", "PageFile", "page_file", "page_reply"]

_FOLDER = "page"
_INDEX = "index.html"
_ASSETS = "assets/"
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",  # licences
}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    # The page makes elements, never HTML of text: a later change that did would not work at all.
    "require-trusted-types-for 'script'; trusted-types default"
)

PAGE_HEADERS = MappingProxyType(
    {
        # Cached, but revalidated each time: after an update no old module meets a new one.
        "Cache-Control": "no-cache",
        "Content-Security-Policy": _POLICY,
        "Cross-Origin-Opener-Policy": "same-origin",
        "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
        "Referrer-Policy": "no-referrer",
        "X-Frame-Options": "DENY",  # for browsers that do not know frame-ancestors
        "X-Content-Type-Options": "nosniff",
    }
)


@dataclass(frozen=True, slots=True)
class PageFile:
    """A file of the page.

    Attributes:
        body: its bytes.
        content_type: with the charset.
        etag: a strong one, with its quotes; another file has another.
    """

    body: bytes
    content_type: str
    etag: str


def page_file(path: str) -> PageFile | None:
    """Return the file that stands at a path.

    Args:
        path: below the prefix of the relay: empty for the page itself, else ``assets/...``.

    Returns:
        The file; None where there is none.
    """
    return _files().get(path)


def page_reply(
    path: str, if_none_match: str | None = None
) -> tuple[int, dict[str, str], bytes] | None:
    """Return the answer to a GET of a path.

    Returns:
        Status, headers and body: 200, or 304 if the browser has the file. None where there is none.
    """
    file = page_file(path)
    if file is None:
        return None
    headers = {**PAGE_HEADERS, "ETag": file.etag}
    known = {tag.strip().removeprefix("W/") for tag in (if_none_match or "").split(",")}
    if file.etag in known or "*" in known:
        return 304, headers, b""
    return 200, {**headers, "Content-Type": file.content_type}, file.body


@functools.cache
def _files() -> dict[str, PageFile]:
    """Read all files once: requested paths never reach the file system."""
    found = dict(_below(resources.files(__package__) / _FOLDER, _ASSETS))
    if (index := found.pop(_ASSETS + _INDEX, None)) is not None:
        found[""] = index
    return found


def _below(folder: Traversable, path: str) -> Iterator[tuple[str, PageFile]]:
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _below(entry, f"{path}{entry.name}/")
        elif content_type := _TYPES.get(entry.name[entry.name.rfind(".") :]):
            body = entry.read_bytes()
            etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
            yield path + entry.name, PageFile(body, content_type, etag)
