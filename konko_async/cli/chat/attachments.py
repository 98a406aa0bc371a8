"""Files, images and addresses that go along with a question."""

from __future__ import annotations

import asyncio
import base64
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Final

import aiohttp
import click
from yarl import URL

from konko_async import KonkoError
from konko_async._core.loopback import is_loopback
from konko_async.cli._number_format import plural
from konko_async.cli._output import note
from konko_async.documents import SUFFIXES, DocumentError, read_file

__all__ = ["LARGEST", "Attachment", "attach", "content_of"]

LARGEST: Final = 20 * 2**20  # bytes of one file; OpenAI's limit for images
_SECONDS: Final = 60.0
_REDIRECTS: Final = 5
_REDIRECT_STATUSES: Final = frozenset({301, 302, 303, 307, 308})
# By the first bytes, as names lie: the formats that OpenAI's API and most servers take.
_IMAGES: Final = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
)
_ENDINGS: Final = {
    "text/html": ".html",
    "application/xhtml+xml": ".html",
    "text/markdown": ".md",
    "application/pdf": ".pdf",
    "application/json": ".json",
    "text/csv": ".csv",
}

Attachment = dict[str, Any] | str
"""An image as a part of a message, or the text of a document."""


async def attach(names: Iterable[str]) -> list[Attachment]:
    """Read files and addresses.

    Args:
        names: paths, and ``https:`` addresses (``http:`` on this machine only).

    Returns:
        Images as parts with a ``data:`` address, documents as text.

    Raises:
        click.UsageError: one cannot be read; says which, and why.
    """
    found: list[Attachment] = []
    for name in names:
        if "://" in name:
            found += await _download(name)
        else:
            # In a thread: documents have a reader process, which is waited for.
            found += await asyncio.to_thread(_read, name)
    return found


def content_of(text: str, attached: Sequence[Attachment]) -> str | list[dict[str, Any]]:
    """Return the content of a message: text as long as there is no image."""
    images = [part for part in attached if not isinstance(part, str)]
    whole = "\n\n".join([text, *(part for part in attached if isinstance(part, str))])
    # A plain text where it can be one, as many servers take nothing else.
    return [{"type": "text", "text": whole}, *images] if images else whole


def _read(file: str, called: str | None = None) -> list[Attachment]:
    name = called or file
    try:
        path = Path(file).expanduser()
        if path.is_file() and path.stat().st_size > LARGEST:
            raise _too_large(name)
        head = path.read_bytes() if path.is_file() else b""
    except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: no home folder
        why = getattr(error, "strerror", None) or error
        raise click.UsageError(f"cannot attach {name}: {why}") from None
    if kind := _image_type(head):
        return [_image(head, kind)]
    try:
        documents = list(read_file(path))
    except KonkoError as error:
        raise click.UsageError(f"cannot attach {name}: {error.message}") from None
    texts: list[Attachment] = []
    for document in documents:
        if isinstance(document, DocumentError):
            raise click.UsageError(f"cannot attach {document.message}")
        for warning in document.warnings:
            note(f"{name}: {warning}")
        shown = name if len(documents) == 1 else f"{name}{document.name.removeprefix(str(path))}"
        texts.append(f'<document name="{shown}">\n{document.text.strip()}\n</document>')
    return texts


def _image_type(data: bytes) -> str | None:
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    return next((kind for mark, kind in _IMAGES if data.startswith(mark)), None)


def _image(data: bytes, kind: str) -> dict[str, Any]:
    url = f"data:{kind};base64,{base64.b64encode(data).decode()}"
    return {"type": "image_url", "image_url": {"url": url}}


def _too_large(name: str) -> click.UsageError:
    return click.UsageError(
        f"cannot attach {name}: it is larger than {LARGEST // 2**20} MiB; for long documents there "
        "is `konko-async summarize`"
    )


# -- addresses -----------------------------------------------------------------------------------


async def _download(url: str) -> list[Attachment]:
    timeout = aiohttp.ClientTimeout(total=_SECONDS)
    try:
        async with aiohttp.ClientSession(timeout=timeout) as session:
            data, kind, path = await _fetched(session, url)
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        why = f"no answer within {_SECONDS:.0f} s" if isinstance(error, TimeoutError) else error
        raise click.UsageError(f"cannot attach {url}: {why}") from None
    if image := _image_type(data):
        return [_image(data, image)]
    with tempfile.TemporaryDirectory(prefix="konko-async-") as folder:
        file = Path(folder) / _file_name(path, kind)
        file.write_bytes(data)
        return await asyncio.to_thread(_read, str(file), url)


async def _fetched(session: aiohttp.ClientSession, url: str) -> tuple[bytes, str, str]:
    """Return the body of an address, its media type, and the path that it came from."""
    for _ in range(_REDIRECTS + 1):
        _check_scheme(url)
        # Followed by hand: each step has to be encrypted, not only the first.
        async with session.get(url, allow_redirects=False) as response:
            target = response.headers.get("Location")
            if response.status in _REDIRECT_STATUSES and target:
                # The text of an address, so that its password is no part of an error.
                url = str(response.url.join(URL(target)))
                continue
            if not response.ok:
                raise click.UsageError(
                    f"cannot attach {url}: the server answered {response.status}"
                )
            data = bytearray()
            async for piece in response.content.iter_any():
                data += piece
                if len(data) > LARGEST:
                    raise _too_large(url)
            return bytes(data), response.content_type, response.url.path
    raise click.UsageError(f"cannot attach {url}: more than {plural(_REDIRECTS, 'redirect')}")


def _check_scheme(url: str) -> None:
    parsed = URL(url)
    if parsed.scheme == "https" or (parsed.scheme == "http" and is_loopback(parsed.host or "")):
        return
    raise click.UsageError(
        f"cannot attach {url}: only https addresses are fetched, as anybody on the way could "
        "change what others bring"
    )


def _file_name(path: str, kind: str) -> str:
    """Return a name whose ending says the format."""
    given = PurePosixPath(path)
    if given.suffix.lower() in SUFFIXES:
        return f"file{given.suffix.lower()}"
    return f"file{_ENDINGS.get(kind, '.txt')}"
