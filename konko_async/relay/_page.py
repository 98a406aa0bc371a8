"""The files of the web page: what is served for a path, with which headers."""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from importlib import resources
from types import MappingProxyType

__all__ = ["PAGE_HEADERS", "PageFile", "page_file", "page_reply"]

_FOLDER = "page"
_INDEX = "index.html"
_ASSETS = "assets/"
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

PAGE_HEADERS = MappingProxyType(
    {
        # Kept, but asked for each time: after an update no old module meets a new one.
        "Cache-Control": "no-cache",
        "Content-Security-Policy": _POLICY,
        "Cross-Origin-Opener-Policy": "same-origin",
        "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
        "Referrer-Policy": "no-referrer",
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
    """Return what a GET of a path is answered with.

    Args:
        path: as for :func:`page_file`.
        if_none_match: the request's header.

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
    """Read them all: the paths that are asked for never touch a file system."""
    found = {}
    for entry in (resources.files(__package__) / _FOLDER).iterdir():
        content_type = _TYPES.get(entry.name[entry.name.rfind(".") :])
        if content_type:
            body = entry.read_bytes()
            etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
            found[_ASSETS + entry.name] = PageFile(body, content_type, etag)
    if (index := found.pop(_ASSETS + _INDEX, None)) is not None:
        found[""] = index
    return found
