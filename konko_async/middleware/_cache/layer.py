"""The layer of a call that looks for its answer in the cache, and keeps what may be used again."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import msgspec
from multidict import CIMultiDict

from konko_async._core.key_source import KeySource
from konko_async._core.secret import Secret
from konko_async.errors import KonkoError
from konko_async.middleware._cache.database import Entry

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from konko_async._core.config import Settings
    from konko_async._core.pipeline import Handler, Operation, Request, Response, Upload
    from konko_async.middleware._cache.answer_cache import AnswerCache

__all__ = ["CacheMiddleware"]

_log = logging.getLogger("konko_async.cache")
_decode: Final = msgspec.json.Decoder().decode
_canonical: Final = msgspec.json.Encoder(order="sorted").encode
_FORMAT: Final = b"1"  # of the key; another one makes all that is kept unfindable
_LONGEST: Final = 32 << 20  # bytes of an answer that is kept
_KINDS: Final = frozenset({"chat", "text_completion", "embeddings"})
_PREFIXES: Final = 256  # places whose hash is remembered
# They differ from call to call, and no answer depends on them.
_IDS: Final = frozenset(
    {
        "baggage", "idempotency-key", "traceparent", "tracestate", "x-client-request-id",
        "x-correlation-id", "x-request-id",
    }
)  # fmt: skip
_KEPT_HEADERS: Final = ("content-type", "x-request-id")
# A model that ended by itself, or at the length that was asked for, says the same again. Whatever
# else a server may report (an error, a filter, nothing) may be otherwise next time.
_WHOLE: Final = frozenset(
    {
        "end_turn", "eos", "eos_token", "function_call", "length", "max_tokens", "stop",
        "stop_sequence", "tool_calls",
    }
)  # fmt: skip


class StoredHeaders(Mapping[str, str]):
    """Headers of an answer that comes from the cache, case-insensitive.

    Put together when somebody reads them, which few do: that costs as much as finding the answer.
    """

    __slots__ = ("_facts", "_whole")

    from_cache = True

    def __init__(self, entry: Entry, now: float) -> None:
        # Not the entry: its body may be large, and is let go once it has been read.
        self._facts = entry.head, len(entry.body), now - entry.created
        self._whole: CIMultiDict[str] | None = None

    @property
    def whole(self) -> CIMultiDict[str]:
        """All of them."""
        whole = self._whole
        if whole is None:
            head, length, age = self._facts
            whole = self._whole = CIMultiDict(
                {
                    **head,
                    "content-length": str(length),
                    "cache-status": "konko-async; hit",
                    "age": str(max(0, int(age))),
                }
            )
        return whole

    def __getitem__(self, name: str) -> str:
        return self.whole[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.whole)

    def __len__(self) -> int:
        return len(self.whole)

    def __contains__(self, name: object) -> bool:
        return name in self.whole

    def copy(self) -> CIMultiDict[str]:
        """Return them as a dict that may be changed."""
        return self.whole.copy()

    def __repr__(self) -> str:
        return f"<StoredHeaders {dict(self.whole)!r}>"


class StoredAnswer:
    """An answer out of the cache, in the form of one whose head has arrived.

    Its reads neither wait nor fail, so there is nothing to interrupt, and nothing left over.
    """

    __slots__ = (
        "_body",
        "at_eof",
        "headers",
        "host",
        "received_all",
        "redactor",
        "request_id",
        "status",
    )

    def __init__(self, entry: Entry, redactor: Any) -> None:
        self.status = 200
        self.headers = StoredHeaders(entry, time.time())
        request_id = entry.head.get("x-request-id")
        self.request_id = None if request_id is None else redactor.text(request_id)
        self.host = "the answer cache"
        self.redactor = redactor
        self.at_eof = self.received_all = False
        self._body = entry.body

    async def read(self) -> bytes:
        """Return all of the body, then nothing."""
        body, self._body = self._body, b""
        self.received_all, self.at_eof = True, not body
        return body

    def release(self) -> None:
        """Do nothing: there is no connection."""

    abort = release


class CacheMiddleware:
    """Answers from the cache; keeps answers that may be used again.

    Args:
        cache: the answers.
        settings: of the client, whose keys tell tenants apart.
        base_url: returns where a request goes.
        redactor: returns what masks the secrets of a request.
        replay: makes the response of an answer and its body.
    """

    __slots__ = (
        "_base_url", "_cache", "_own", "_prefixes", "_redactor", "_replay", "_settings",
    )  # fmt: skip

    def __init__(
        self,
        cache: AnswerCache,
        settings: Settings,
        *,
        base_url: Callable[[Request], str],
        redactor: Callable[[Request], Any],
        replay: Callable[[Request, Any, bytes], Awaitable[Response]],
    ) -> None:
        self._cache = cache
        self._settings = settings
        self._base_url = base_url
        self._redactor = redactor
        self._replay = replay
        self._prefixes: dict[Any, Any] = {}
        # Made once: the identity of nearly all calls, unless a function obtains the key.
        own = settings.api_key
        self._own: bytes | None = None
        if cache.namespace is not None:
            self._own = b"n" + cache.namespace.encode()
        elif not isinstance(own, KeySource):
            self._own = self._hashed(own)

    async def __call__(self, request: Request, call_next: Handler) -> Response:
        """Return the answer that is kept, else that of the server."""
        body = self._servable(request)
        if body is None:
            self._cache.pass_by()
            return await call_next(request)
        cache, identity = self._cache, self._own
        if identity is None or (request.target is not None and cache.namespace is None):
            identity = await self._identity(request)
        key = self._key(request, body, identity)
        # Awaited here: a coroutine for each step would cost as much as the step.
        found = cache.look_up(key)
        entry = found if found is None or isinstance(found, Entry) else await found
        cache.count(found=entry is not None)
        if entry is not None:
            try:
                response = await self._replay(
                    request, StoredAnswer(entry, self._redactor(request)), entry.body
                )
            except KonkoError as error:
                _log.warning("an answer in the cache cannot be read: %s", error)
            else:
                response.cached = True
                return response
        recorder = _Recorder(request.operation, partial(self._keep, key, self._redactor(request)))
        response = await call_next(request.replace(operation=recorder))
        recorder.keep_whole(response)
        return response

    def _keep(self, key: bytes, redactor: Any, headers: Any, body: bytes, result: Any) -> None:
        if len(body) > _LONGEST or not _may_be_used_again(result):
            return
        # Some servers repeat the key, and no key goes to the disk.
        text = body.decode("utf-8", "replace")
        if redactor.text(text) == text:
            head = {n: redactor.text(headers[n]) for n in _KEPT_HEADERS if n in headers}
            self._cache.keep(key, Entry(head, body, time.time()))

    def _servable(self, request: Request) -> bytes | None:
        """Return the request's body as canonical JSON, if its answer may come from the cache."""
        content = request.content
        # An operation that hands bytes on knows nothing of what makes an answer worth keeping.
        raw = getattr(request.operation, "is_raw", False)
        if raw or request.operation.name not in _KINDS or not isinstance(content, bytes):
            return None
        if not content:
            return None
        body = _decode(content)
        if (
            self._cache.every_call
            or request.operation.name == "embeddings"
            or body.get("temperature") == 0
            or body.get("seed") is not None
        ):
            # Not the decoded body: it would be held, and looked at by the collector, while the
            # answer is waited for.
            return _canonical(body)
        return None

    def _key(self, request: Request, body: bytes, identity: bytes) -> bytes:
        """Return the hash of what is sent (as canonical JSON), where, and by whom."""
        headers: tuple[tuple[str, str], ...] = ()
        if request.headers:
            headers = tuple(
                [
                    (name.lower(), value)
                    for name, value in request.headers.items()
                    if name.lower() not in _IDS
                ]
            )
        query = tuple(request.query.items()) if request.query else ()
        place = self._base_url(request), request.path, identity, headers, query
        prefix = self._prefixes.get(place)
        if prefix is None:
            if len(self._prefixes) >= _PREFIXES:
                self._prefixes.clear()
            prefix = self._prefixes[place] = self._prefix(place)
        hashed = prefix.copy()
        hashed.update(body)
        key: bytes = hashed.digest()
        return key

    def _prefix(self, place: tuple[Any, ...]) -> Any:
        base_url, path, identity, headers, query = place
        settings = self._settings
        own = {name.lower(): str(value) for name, value in settings.headers.items()}
        parts = [
            base_url,
            path,
            identity.hex(),
            sorted((name, str(value)) for name, value in {**own, **dict(headers)}.items()),
            sorted((name, str(value)) for name, value in {**settings.query, **dict(query)}.items()),
        ]
        # The line break ends it: none is in the JSON before or after.
        return hashlib.blake2b(
            msgspec.json.encode(parts) + b"\n", digest_size=24, person=b"konko" + _FORMAT
        )

    async def _identity(self, request: Request) -> bytes:
        """Return a hash of the caller's credentials where they are not the client's own."""
        target, settings = request.target, self._settings
        key = None if target is None else target.api_key
        if key is None and (target is None or target.base_url is None):
            key = settings.api_key
        # A function's key is hashed itself: two functions of one name may serve two tenants.
        if isinstance(key, KeySource):
            key = await key.secret()
        return self._hashed(key)

    def _hashed(self, key: Any) -> bytes:
        own, other = key.digest if isinstance(key, Secret) else b"", self._settings.openai_api_key
        return b"k" + own + (b"" if other is None else other.digest)


class _Recorder:
    """An operation that also notes what was received, of each attempt."""

    __slots__ = ("_keep", "_operation", "_whole", "method", "name")

    def __init__(self, operation: Operation, keep: Callable[[Any, bytes, Any], None]) -> None:
        self._operation = operation
        self._keep = keep
        self._whole: list[tuple[Any, Any, bytes]] = []
        self.name = operation.name
        self.method = operation.method

    def encode(self, params: Any) -> bytes | Upload | None:
        return self._operation.encode(params)

    def sink(self, params: Any) -> Any:
        return self._operation.sink(params)

    def decode(self, body: bytes, answer: Any, params: Any = None) -> Any:
        result = self._operation.decode(body, answer, params)
        self._whole.append((result, answer.headers, body))
        return result

    def open_stream(
        self, request: Request, answer: Any, response: Response, first_token_due: float | None
    ) -> Any:
        tape = _Tape(answer)
        reader = self._operation.open_stream(request, answer, response, first_token_due)
        response.on_close(partial(self._ended, tape, answer.headers, reader))
        return reader

    def _ended(self, tape: _Tape, headers: Any, reader: Any, response: Response) -> None:
        # One that was left before its end may look well, but lack what would have followed.
        if response.outcome == "ok" and reader.decoder.done and not tape.broken:
            self._keep(headers, b"".join(tape.parts), reader.accumulated.result())
        tape.parts.clear()

    def keep_whole(self, response: Any) -> None:
        """Keep the answer that was returned, unless somebody's middleware made it."""
        for result, headers, body in self._whole:
            if getattr(response, "result", None) is result:
                self._keep(headers, body, result)
        self._whole.clear()


class _Tape:
    """Notes what is read of an answer."""

    __slots__ = ("_read", "_size", "broken", "parts")

    def __init__(self, answer: Any) -> None:
        self.parts: list[bytes] = []
        self.broken = False
        self._size = 0
        self._read = answer.read
        answer.read = self.read

    async def read(self) -> bytes:
        """Read, and note what came."""
        try:
            data: bytes = await self._read()
        except BaseException:
            self.broken = True  # what had arrived before may be read by another way
            raise
        self._size += len(data)
        if self._size > _LONGEST:
            self.broken = True
            self.parts.clear()
        else:
            self.parts.append(data)
        return data


def _may_be_used_again(result: Any) -> bool:
    """Whether an answer is whole, and says something."""
    choices = getattr(result, "choices", None)
    if choices is None:
        return bool(getattr(result, "data", None))  # embeddings
    return bool(choices) and all(
        isinstance(choice.finish_reason, str)
        and choice.finish_reason.lower() in _WHOLE
        and _says_something(choice)
        for choice in choices
    )


def _says_something(choice: Any) -> bool:
    message = getattr(choice, "message", None)
    if message is None:
        return bool(choice.text and choice.text.strip())
    content = message.content
    return bool(
        (content.strip() if isinstance(content, str) else content)
        or getattr(message, "tool_calls", None)
        or getattr(message, "function_call", None)
    )
