"""The relay's endpoints, for no framework in particular."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal

from konko_async import AsyncKonko
from konko_async.errors import ConfigurationError, KonkoError
from konko_async.relay._calls import Calls, ClientFor, Prepare
from konko_async.relay._errors import RefusalError
from konko_async.relay._format import Dialect
from konko_async.relay._gate import (
    check_host,
    check_origin,
    cross_origin_headers,
    preflight,
    read_json,
)
from konko_async.relay._http import RelayReply, RelayRequest, error_reply, json_reply
from konko_async.relay._page import page_reply
from konko_async.relay._policy import OPENAI, RelayOptions, is_loopback
from konko_async.relay._scope import Watch
from konko_async.relay._source import RESTART, Source, note_fault
from konko_async.relay._store import StreamStore
from konko_async.relay._ui_message import UI_MESSAGE

__all__ = ["AuthHook", "RelayService"]

AuthHook = Callable[[RelayRequest], Awaitable[str | None]]
"""Given a request, returns who asks (any text that is stable per user), or None: refused."""

Handler = Callable[[RelayRequest], Awaitable[RelayReply]]
_OPEN = "open"


class RelayService:
    """The endpoints of a relay; an adapter gives it requests and sends its replies.

    Args:
        client: what calls the model's server, or a function (async or not) that returns it for an
            identity. Not closed with the service.
        options: what is let through.
        auth: who asks, per request; or ``"open"``: everybody who can reach it, which is allowed on
            a loopback address only.
        host: the address that is bound; needed where ``auth`` is ``"open"``.
        store: keeps resumable streams. Default: a MemoryStore of the service's own.
        health: what ``GET /readyz`` tells; its ``"ready"`` decides between 200 and 503.
        prepare: changes a checked call, given it and the identity: a system message of yours, a
            larger cap for some. Async or not.
        dialects: further paths for POST and their dialects. OpenAI's at ``/v1/chat/completions``
            and the UI message stream at ``/api/chat`` are there.
        page: whether ``GET /`` is the web page. Default False.

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
        page: bool = False,
    ) -> None:
        _check_auth(auth, host)
        self.options = options
        self.draining = False
        self.retry_after = RESTART
        self._auth = auth
        self._health = health
        self._page = page
        self._dialects = {
            "/v1/chat/completions": OPENAI,
            "/api/chat": UI_MESSAGE,
            **(dialects or {}),
        }
        self._calls = Calls(client, options, store, prepare, tuple(self._dialects.values()))
        self._routes: dict[tuple[str, str], Handler] = {
            ("GET", "/v1/models"): self._models,
            ("GET", "/healthz"): self._alive,
            ("GET", "/readyz"): self._ready,
        }
        for path in self._dialects:
            self._routes["POST", path] = self._chat

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
        with Watch(request.gone, self.options.delivery.look):
            origin = None
            try:
                if request.path not in {"/healthz", "/readyz"}:  # probes use any name
                    check_host(request, self.options)
                origin = check_origin(request, self.options)
                if request.method == "OPTIONS":
                    return preflight(origin, self.options)
                reply = await self._route(request)(request)
            except KonkoError as error:
                reply = error_reply(error)
            except Exception as error:  # noqa: BLE001 - a hook's; a browser gets an answer anyway
                note_fault(error)
                reply = error_reply(KonkoError("the relay failed"))
            reply.headers.update(cross_origin_headers(origin, self.options))
            return reply
        raise AssertionError("unreachable")  # pragma: no cover - a Watch swallows nothing

    async def until_idle(self) -> None:
        """Wait until nothing is being read, and nothing is being answered upstream."""
        await self._calls.until_idle()

    async def close(self) -> None:
        """End everything that is still running: readers get the final event of a shutdown."""
        self.draining = True
        await self._calls.close()

    # -- who asks, and for what ----------------------------------------------------------------

    def _route(self, request: RelayRequest) -> Handler:
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
        raise RefusalError(404, "there is nothing here", type="not_found")

    async def _identify(self, request: RelayRequest) -> str:
        if self._auth == _OPEN:
            if request.local is None or not is_loopback(request.local):
                raise RefusalError(403, "this relay is open to its own machine only")
            return ""
        identity = await self._auth(request)  # type: ignore[operator]  # the other is "open"
        if identity is None:
            raise RefusalError(401, "who are you?", type="authentication_error")
        if not isinstance(identity, str):
            raise ConfigurationError("the auth hook must return a text or None")
        return identity

    # -- endpoints -----------------------------------------------------------------------------

    async def _chat(self, request: RelayRequest) -> RelayReply:
        if self.draining:
            raise RefusalError(
                503,
                "the relay is shutting down",
                type="overloaded",
                retry_after=self.retry_after,
            )
        identity = await self._identify(request)
        dialect = self._dialects[request.path]
        with self._calls.reading(identity) as place:
            body = await read_json(request, self.options)
            call = await self._calls.checked(dialect, body, identity, request.headers)
            if not call.stream:
                return json_reply(await self._calls.whole(call, identity))
            wish = request.headers.get("x-resumable")
            resumable = self.options.resumable or dialect.resumable if wish is None else wish == "1"
            if resumable:
                return await self._calls.resumable(dialect, call, identity, place)
            return await self._calls.direct(dialect, call, identity, place)

    async def _resume(self, request: RelayRequest) -> RelayReply:
        identity = await self._identify(request)
        stream_id = _stream_id(request.path)
        last = request.headers.get("last-event-id") or request.query.get("last_event_id", "")
        after = _number(last, stream_id)
        with self._calls.reading(identity) as place:
            return await self._calls.resume(stream_id, after, identity, place)

    async def _resume_key(self, request: RelayRequest) -> RelayReply:
        identity = await self._identify(request)
        key = request.path.split("/")[-2]
        with self._calls.reading(identity) as place:
            stream_id = await self._calls.store.find(identity, key)
            if stream_id is None:
                return RelayReply(204)
            return await self._calls.resume(stream_id, 0, identity, place)

    async def _stop(self, request: RelayRequest) -> RelayReply:
        identity = await self._identify(request)
        await self._calls.stop(_stream_id(request.path), identity)
        return RelayReply(204)

    async def _stop_key(self, request: RelayRequest) -> RelayReply:
        identity = await self._identify(request)
        stream_id = await self._calls.store.find(identity, request.path.split("/")[-2])
        if stream_id is not None:
            await self._calls.stop(stream_id, identity)
        return RelayReply(204)

    async def _models(self, request: RelayRequest) -> RelayReply:
        await self._identify(request)
        models = [
            {"id": name, "object": "model", "created": 0, "owned_by": "relay"}
            for name in self.options.models
        ]
        return json_reply({"object": "list", "data": models})

    async def _show(self, request: RelayRequest) -> RelayReply:
        found = page_reply(request.path[1:], request.headers.get("if-none-match"))
        if found is None:
            raise RefusalError(404, "there is nothing here", type="not_found")
        return RelayReply(*found)

    async def _alive(self, request: RelayRequest) -> RelayReply:  # noqa: ARG002 - a handler
        return json_reply({"status": "ok"})

    async def _ready(self, request: RelayRequest) -> RelayReply:
        told = dict(self._health()) if self._health is not None else {}
        ready = bool(told.pop("ready", True)) and not self.draining
        status = "draining" if self.draining else "ok" if ready else "unavailable"
        brief: dict[str, Any] = {"status": status}
        try:
            await self._identify(request)
        except RefusalError:
            told = {}  # a probe needs no more, and others are not to know
        else:
            brief |= {"streams": len(self.live), "calls": self.running}
        return json_reply({**told, **brief}, 200 if ready else 503)


def _check_auth(auth: object, host: str | None) -> None:
    if auth == _OPEN:
        if host is None or not is_loopback(host):
            raise ConfigurationError(
                'auth="open" lets everybody in: say host="127.0.0.1", and bind to that only; '
                "or give an auth hook"
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
        RefusalError: it is no id of this stream.
    """
    if not last_event_id:
        return 0
    number = last_event_id.removeprefix(f"{stream_id}.")
    if not (number.isascii() and number.isdigit() and len(number) < 16):  # noqa: PLR2004 - fits
        raise RefusalError(400, "Last-Event-ID is no id of this stream", param="Last-Event-ID")
    return int(number)
