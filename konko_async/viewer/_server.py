"""Serves the page on loopback: read-only, behind a token, for this machine's browsers."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from pathlib import Path
from typing import Any, Final, Self, TypeVar

import msgspec
from aiohttp import web

from konko_async import KonkoError
from konko_async.viewer._service import InvalidQueryError, OutputService, find_input

__all__ = ["Viewer", "ViewerError"]

T = TypeVar("T")

_THREADS: Final = 4
_LOOPBACK: Final = "127.0.0.1"
_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",  # the address has the token in it
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
_FILES: Final = {
    "": ("index.html", "text/html"),
    "viewer.js": ("viewer.js", "text/javascript"),
    "viewer.css": ("viewer.css", "text/css"),
}
_WORK: Final = ".work.jsonl"
_PART: Final = 200  # lines of an export that are read at once


class ViewerError(KonkoError):
    """An output cannot be viewed; says why."""


class Viewer:
    """A page that shows one output of a batch, or two side by side.

    It listens on loopback, answers nobody who does not know the token in its address, and writes
    nothing. Outputs may grow, or be replaced, meanwhile.

    Args:
        output: a file of lines that ``run_batch`` writes; of a table, the ``.work.jsonl`` beside
            it is shown.
        compare: another output, to be shown beside it; rows with the same ``custom_id`` belong
            together.
        source: the input, for the prompts. Default: the one that the journal names, where it lies
            beside the output or in the current folder, and is JSON lines.
        price_in: of a million tokens of prompts, to show costs; None: unknown.
        price_out: of a million tokens of answers.
        port: to listen on; 0: a free one.

    Raises:
        ViewerError: a file cannot be read.

    Attributes:
        address: of the page, with its token; known while it is served.
    """

    def __init__(
        self,
        output: str | os.PathLike[str],
        *,
        compare: str | os.PathLike[str] | None = None,
        source: str | os.PathLike[str] | None = None,
        price_in: float | None = None,
        price_out: float | None = None,
        port: int = 0,
    ) -> None:
        paths = [_lines_of(os.fspath(path)) for path in (output, compare) if path is not None]
        named = find_input(paths[0], None if source is None else os.fspath(source))
        try:
            self._service = OutputService(paths, named)
        except OSError as error:
            problem = f"{error.filename} cannot be read: {error.strerror}"
        else:
            self._prices = {"in": price_in, "out": price_out}
            self._port = port
            self._token = secrets.token_urlsafe(24)
            self._runner: web.AppRunner | None = None
            # Of its own: it ends with the viewer, and reads no more files at once than this.
            self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="konko-viewer")
            self._hosts: frozenset[str] = frozenset()
            self.address = ""
            return
        raise ViewerError(problem)

    async def start(self) -> None:
        """Listen.

        Raises:
            ViewerError: the port is taken.
        """
        app = web.Application(middlewares=[self._guard], client_max_size=1024)
        app.router.add_get("/{token}/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, _LOOPBACK, self._port)
        try:
            await site.start()
        except OSError as error:
            problem = f"cannot listen on {_LOOPBACK}:{self._port}: {error.strerror}"
        else:
            port = self._runner.addresses[0][1]
            self._hosts = frozenset({f"{_LOOPBACK}:{port}", f"localhost:{port}"})
            self.address = f"http://{_LOOPBACK}:{port}/{self._token}/"
            return
        await self.close()
        raise ViewerError(problem)

    async def close(self) -> None:
        """Stop listening, and close the files; idempotent."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()
        self._threads.shutdown()  # what runs takes half a second at most
        self._service.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # -- requests --------------------------------------------------------------------------------

    @web.middleware
    async def _guard(self, request: web.Request, handler: Any) -> web.StreamResponse:
        # A page elsewhere may point a name of its own at this machine (DNS rebinding).
        if request.headers.get("Host", "").lower() not in self._hosts:
            return _refusal(421, "this host is not served here")
        if request.method not in {"GET", "HEAD"}:
            return _refusal(405, "the viewer is read-only")
        token = request.match_info.get("token", "")
        if not secrets.compare_digest(token.encode(), self._token.encode()):
            return _refusal(404, "not found")
        try:
            response: web.StreamResponse = await handler(request)
        except (InvalidQueryError, ValueError) as error:
            return _refusal(400, str(error))
        return response

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        path, query = request.match_info["path"], request.query
        if path in _FILES:
            name, kind = _FILES[path]
            body = (resources.files(__package__) / "page" / name).read_bytes()
            return web.Response(body=body, content_type=kind, charset="utf-8", headers=_HEADERS)
        name, text = query.get("filter", "all"), query.get("q", "")
        first, count = _count(query.get("first", "0")), _count(query.get("count", "100"))
        questions: dict[str, Callable[[], dict[str, Any]]] = {
            "api/state": lambda: {**self._service.state(), "prices": self._prices},
            "api/rows": lambda: self._service.rows(name, text, first, count),
            "api/row": lambda: self._service.row(_count(query.get("place", ""))),
            "api/stats": self._service.stats,
        }
        if path == "api/export":
            return await self._export(request, name, text)
        if path not in questions:
            return _refusal(404, "not found")
        # In a thread: it reads files, for a quarter of a second at most.
        found = await self._aside(questions[path])
        return web.Response(
            body=msgspec.json.encode(found), content_type="application/json", headers=_HEADERS
        )

    async def _export(self, request: web.Request, name: str, text: str) -> web.StreamResponse:
        lines = self._service.export(name, text)
        first = await self._aside(_some, lines)  # a bad filter is refused before the head
        response = web.StreamResponse(headers={
            **_HEADERS, "Content-Type": "application/x-ndjson",
            "Content-Disposition": 'attachment; filename="selection.jsonl"',
        })  # fmt: skip
        await response.prepare(request)
        while first:
            await response.write(first)
            first = await self._aside(_some, lines)
        return response

    async def _aside(self, work: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)


def _some(lines: Any) -> bytes:
    found = []
    for line in lines:
        found.append(line)
        if len(found) == _PART:
            break
    return b"".join(found)


def _count(text: str) -> int:
    if not text.isdecimal() or len(text) > 12:  # noqa: PLR2004 - digits of any number of rows
        raise InvalidQueryError("a number is missing, or is none")
    return int(text)


def _refusal(status: int, text: str) -> web.Response:
    return web.Response(status=status, text=text, headers=_HEADERS)


def _lines_of(path: str) -> str:
    """Return the file of lines behind an output that is a table."""
    work = f"{path}{_WORK}"
    return work if Path(work).is_file() else path
