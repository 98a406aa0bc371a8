"""The relay's endpoints, independent of any web framework."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal

import msgspec

from konko_async import AsyncKonko
from konko_async._core.loopback import is_loopback
from konko_async.errors import ConfigurationError, KonkoError
from konko_async.relay._errors import RefusalError
from konko_async.relay._formats.ag_ui import AG_UI
from konko_async.relay._formats.base import Dialect
from konko_async.relay._formats.ui_message import UI_MESSAGE
from konko_async.relay._http import RelayReply, RelayRequest, error_reply, json_reply
from konko_async.relay._page_files import page_reply
from konko_async.relay._page_options import PageOptions, page_settings
from konko_async.relay._policy import OPENAI, RelayOptions, chat_key
from konko_async.relay._request_headers import as_asked
from konko_async.relay._security import (
    check_host,
    check_origin,
    cross_origin_headers,
    preflight,
    read_json,
)
from konko_async.relay._stores.base import StreamStore
from konko_async.relay._streams.cancel_scope import ReaderWatch
from konko_async.relay._streams.source import RESTART, Source, note_fault
from konko_async.relay._streams.upstream import ClientFor, Prepare, UpstreamCalls
from konko_async.relay._texts import parse_text_call

__all__ = ["AuthHook", "RelayService"]

AuthHook = Callable[[RelayRequest], Awaitable[str | None]]
"""Given a request, returns the caller's identity (any text that is stable), or None: refused."""

Handler = Callable[[RelayRequest], Awaitable[RelayReply]]
_OPEN = "open"
_MOST_DIGITS = 15  # of an event's number; it fits into a float of JavaScript
_TEXTS: Mapping[str, Literal["completions", "embeddings"]] = {
    "/v1/completions": "completions",
    "/v1/embeddings": "embeddings",
}


class RelayService:
    """The endpoints of a relay; an adapter gives it requests and sends its replies.

    Args:
        client: what calls the model's server, or a function (async or not) that returns it for an
            identity. Not closed with the service.
        options: what is let through.
        auth: an async function that returns the caller's identity; or ``"open"``: no
            authentication, which is accepted on a loopback address only.
        host: the address that is bound; needed where ``auth`` is ``"open"``.
        store: keeps resumable streams. Default: a MemoryStore of the service's own.
        health: what ``GET /readyz`` reports; its ``"ready"`` decides between 200 and 503.
        prepare: changes a checked call, given it and the identity: a system message of yours, a
            larger cap for some. Async or not.
        dialects: further paths for POST and their dialects. OpenAI's at ``/v1/chat/completions``
            the UI message stream at ``/api/chat`` and AG-UI at ``/api/ag-ui`` are there.
        page: whether ``GET /`` is the web page, or what that shows beside the answers. Default
            False.

    Attributes:
        options: as given.
        draining: while True, new calls are answered with 503.
        retry_after: seconds, for those; a Drain sets its own. Default 5.

    Raises:
        ConfigurationError: neither an auth hook, nor open on loopback.
    """

    def __init__(
        self,
        client: AsyncKonko | ClientFor,
        options: RelayOptions,
        *,
        auth: AuthHook | Literal["open"],
        host: str | None = None,
        store: StreamStore | None = None,
        health: Callable[[], Mapping[str, Any]] | None = None,
        prepare: Prepare | None = None,
        dialects: Mapping[str, Dialect] | None = None,
        page: bool | PageOptions = False,
    ) -> None:
        _check_auth(auth, host)
        self.options = options
        self.draining = False
        self.retry_after = RESTART
        self._auth = auth
        self._health = health
        self._page = PageOptions() if page is True else page
        self._dialects = {
            "/v1/chat/completions": OPENAI,
            "/api/chat": UI_MESSAGE,
            "/api/ag-ui": AG_UI,
            **(dialects or {}),
        }
        self._calls = UpstreamCalls(client, options, store, prepare, tuple(self._dialects.values()))
        self._routes: dict[tuple[str, str], Handler] = {
            ("GET", "/v1/models"): self._models,
            ("GET", "/healthz"): self._alive,
            ("GET", "/readyz"): self._ready,
        }
        for path in self._dialects:
            self._routes["POST", path] = self._chat
        for path in _TEXTS:
            # An application's dialect may have taken this path.
            self._routes.setdefault(("POST", path), self._text)

    @property
    def live(self) -> frozenset[Source]:
        """Sources that are being read."""
        return frozenset(self._calls.live)

    @property
    def running(self) -> int:
        """Calls that are being answered upstream, those of resumable streams included."""
        return self._calls.running

    @property
    def paths(self) -> list[str]:
        """The paths that are served, ``{name}`` standing for one segment."""
        fixed = sorted({path for _, path in self._routes})
        kept = [f"{p}/{{key}}/stream" for p, dialect in self._dialects.items() if dialect.resumable]
        page = ["/", "/assets/{file:.*}"] if self._page else []
        return [*fixed, *kept, "/v1/streams/{id}", "/v1/streams/{id}/stop", *page]

    async def handle(self, request: RelayRequest) -> RelayReply:
        """Answer a request; waits for the first delta of a stream, unless told otherwise.

        The browser is watched meanwhile; if it leaves, so does the upstream call.

        Raises:
            ReaderGoneError: the browser left; there is nobody to answer.
        """
        with ReaderWatch(request.gone, self.options.delivery.look):
            # Known after a failure, too: a page can read an error only with the headers of its
            # origin.
            origin = None
            try:
                if request.path not in {"/healthz", "/readyz"}:  # probes use any name
                    check_host(request, self.options)
                origin = check_origin(request, self.options)
                if request.method == "OPTIONS":
                    return preflight(origin, self.options, request.headers)
                reply = await self._route(request)(request)
            except KonkoError as error:
                reply = error_reply(error)
            except Exception as error:  # noqa: BLE001 - a hook's own; the browser gets an answer
                note_fault(error)
                reply = error_reply(KonkoError("the relay failed"))
            reply.headers.update(cross_origin_headers(origin, self.options))
            return reply
        raise AssertionError("unreachable")  # pragma: no cover - a ReaderWatch swallows nothing

    async def until_idle(self) -> None:
        """Wait until nothing is being read, and nothing is being answered upstream."""
        await self._calls.until_idle()

    async def close(self) -> None:
        """End everything that is still running: readers get the final event of a shutdown."""
        self.draining = True
        await self._calls.close()

    # -- identity and routes -------------------------------------------------------------------

    def _route(self, request: RelayRequest) -> Handler:
        # The frameworks drop the body of an answer to HEAD.
        method = "GET" if request.method == "HEAD" else request.method
        found = self._routes.get((method, request.path))
        if found is not None:
            return found
        kind = _kind(request.path, self._dialects)
        allowed = {
            ("GET", "stream"): self._resume,
            ("DELETE", "stream"): self._stop,
            ("POST", "stop"): self._stop,
            ("GET", "key"): self._resume_key,
            ("DELETE", "key"): self._stop_key,
        }.get((request.method, kind))
        if allowed is not None:
            return allowed
        if self._page and method == "GET" and _is_page(request.path):
            return self._show
        if kind or any(path == request.path for _, path in self._routes):
            raise RefusalError(405, "this method is not allowed here")
        raise RefusalError(404, "not found", type="not_found")

    async def _identify(self, request: RelayRequest) -> str:
        if self._auth == _OPEN:
            # For each connection: the server may be bound to more than ``host`` says.
            if request.local is None or not is_loopback(request.local):
                raise RefusalError(403, "this relay is open to its own machine only")
            return ""
        identity = await self._auth(request)  # type: ignore[operator]  # the other is "open"
        if identity is None:
            raise RefusalError(401, "authentication required", type="authentication_error")
        # True, say, would be one identity that all callers share.
        if not isinstance(identity, str):
            raise ConfigurationError("the auth hook must return a text or None")
        return identity

    # -- endpoints -----------------------------------------------------------------------------

    def _check_draining(self) -> None:
        if self.draining:
            raise RefusalError(
                503,
                "the relay is shutting down",
                type="overloaded",
                retry_after=self.retry_after,
            )

    async def _chat(self, request: RelayRequest) -> RelayReply:
        self._check_draining()
        identity = await self._identify(request)
        dialect = self._dialects[request.path]
        with self._calls.reading(identity) as held:
            # Within the slot: bodies that arrive slowly count against who sends them.
            body = await read_json(request, self.options)
            call = await self._calls.checked(dialect, body, identity, request.headers)
            if not call.stream:
                return json_reply(await self._calls.whole(call, identity))
            wish = request.headers.get("x-resumable")
            resumable = self.options.resumable or dialect.resumable if wish is None else wish == "1"
            if resumable:
                return await self._calls.resumable(dialect, call, identity, held)
            return await self._calls.direct(dialect, call, identity, held)

    async def _text(self, request: RelayRequest) -> RelayReply:
        self._check_draining()
        identity = await self._identify(request)
        with self._calls.reading(identity) as held:
            body = await read_json(request, self.options)
            call = parse_text_call(body, _TEXTS[request.path], self.options)
            params = as_asked(call.params, request.headers, self.options)
            call = msgspec.structs.replace(call, params=params)
            if call.stream:
                return await self._calls.text_stream(call, identity, held)
            return json_reply(await self._calls.text(call, identity))

    async def _resume(self, request: RelayRequest) -> RelayReply:
        identity = await self._identify(request)
        stream_id = _stream_id(request.path)
        # EventSource sends the header when it reconnects, but cannot set it on its first request.
        last = request.headers.get("last-event-id") or request.query.get("last_event_id", "")
        after = _number(last, stream_id)
        with self._calls.reading(identity) as held:
            return await self._calls.resume(stream_id, after, identity, held)

    async def _resume_key(self, request: RelayRequest) -> RelayReply:
        identity = await self._identify(request)
        key = request.path.split("/")[-2]
        with self._calls.reading(identity) as held:
            stream_id = await self._calls.find(chat_key(key), identity)
            if stream_id is None:
                return RelayReply(204)  # useChat takes that for nothing to resume
            return await self._calls.resume(stream_id, 0, identity, held)

    async def _stop(self, request: RelayRequest) -> RelayReply:
        identity = await self._identify(request)
        await self._calls.stop(_stream_id(request.path), identity)
        return RelayReply(204)

    async def _stop_key(self, request: RelayRequest) -> RelayReply:
        identity = await self._identify(request)
        key = request.path.split("/")[-2]
        await self._calls.stop_chat(chat_key(key), identity)
        return RelayReply(204)

    async def _models(self, request: RelayRequest) -> RelayReply:
        await self._identify(request)
        models = [
            {"id": name, "object": "model", "created": 0, "owned_by": "relay"}
            for name in self.options.models
        ]
        told: dict[str, Any] = {"object": "list", "data": models}
        if self._page:
            # In the same answer: the page has to know both before it can show anything.
            told["relay"] = page_settings(self.options, self._page)
        return json_reply(told)

    async def _show(self, request: RelayRequest) -> RelayReply:
        found = page_reply(request.path[1:], request.headers.get("if-none-match"))
        if found is None:
            raise RefusalError(404, "not found", type="not_found")
        return RelayReply(*found)

    async def _alive(self, request: RelayRequest) -> RelayReply:  # noqa: ARG002 - a route handler
        return json_reply({"status": "ok"})

    async def _ready(self, request: RelayRequest) -> RelayReply:
        told = dict(self._health()) if self._health is not None else {}
        ready = bool(told.pop("ready", True)) and not self.draining
        # A store that is away leaves it ready: other processes use the same store.
        degraded = self._calls.store_health.away or told.get("status") == "degraded"
        status = "degraded" if degraded else "ok"
        if not ready:
            status = "draining" if self.draining else "unavailable"
        brief: dict[str, Any] = {"status": status}
        try:
            await self._identify(request)
        except RefusalError:
            told = {}  # a probe needs no more, and strangers get no details
        else:
            brief |= {"streams": len(self.live), "calls": self.running}
        return json_reply({**told, **brief}, 200 if ready else 503)


def _check_auth(auth: object, host: str | None) -> None:
    if auth == _OPEN:
        if host is None or not is_loopback(host):
            raise ConfigurationError(
                'auth="open" means no authentication: it needs host="127.0.0.1", and a server that '
                "is bound to that only; else pass an auth hook"
            )
    elif not callable(auth):
        raise ConfigurationError('auth must be an async function of a request, or "open"')


def _kind(path: str, dialects: Mapping[str, Dialect]) -> str:
    """Return what a path with an id in it is: ``stream``, ``stop``, ``key``, or nothing."""
    parts = path.split("/")
    match parts:
        case ["", "v1", "streams", _]:
            return "stream"
        case ["", "v1", "streams", _, "stop"]:
            return "stop"
        case [*head, key, "stream"] if key and "/".join(head) in dialects:
            return "key"
    return ""


def _is_page(path: str) -> bool:
    return path == "/" or path.startswith("/assets/")


def _stream_id(path: str) -> str:
    return path.split("/")[3]


def _number(last_event_id: str, stream_id: str) -> int:
    """Return the number in an event's id.

    Raises:
        RefusalError: it is not an id of this stream.
    """
    if not last_event_id:
        return 0
    number = last_event_id.removeprefix(f"{stream_id}.")
    if not (number.isascii() and number.isdigit() and len(number) <= _MOST_DIGITS):
        raise RefusalError(400, "Last-Event-ID is no id of this stream", param="Last-Event-ID")
    return int(number)
