"""Calls to the model's server on behalf of browsers, and what they hold meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import ExitStack
from typing import Any

from konko_async import AsyncKonko, ChatStream
from konko_async.errors import ConfigurationError
from konko_async.relay._asked import as_asked
from konko_async.relay._errors import RefusalError
from konko_async.relay._format import ChatCall, Dialect
from konko_async.relay._http import RelayReply
from konko_async.relay._hub import StreamHub
from konko_async.relay._memory import MemoryStore
from konko_async.relay._openai import completion_json
from konko_async.relay._places import Places
from konko_async.relay._policy import RelayOptions, checked_call
from konko_async.relay._scope import Scope
from konko_async.relay._source import Source, StreamSource, stopped_early
from konko_async.relay._store import StreamStore

__all__ = ["Calls", "ClientFor", "Prepare"]

ClientFor = Callable[[str], "AsyncKonko | Awaitable[AsyncKonko]"]
Prepare = Callable[[ChatCall, str], "ChatCall | Awaitable[ChatCall]"]


async def _awaited(value: Any) -> Any:
    return await value if inspect.isawaitable(value) else value


class Calls:
    """What a service has under way.

    Args:
        client: as for the service.
        options: as for the service.
        store: of resumable streams, or None.
        prepare: as for the service.
        dialects: all that are spoken; streams are resumed in theirs.

    Attributes:
        live: sources that are being read.
        store: of resumable streams.
    """

    def __init__(
        self,
        client: AsyncKonko | ClientFor,
        options: RelayOptions,
        store: StreamStore | None,
        prepare: Prepare | None,
        dialects: tuple[Dialect, ...],
    ) -> None:
        self.live: set[Source] = set()
        self._opening: set[Source] = set()  # they wait for their first delta
        self._asking: set[Scope] = set()  # whole answers that are waited for
        self.store: StreamStore = MemoryStore() if store is None else store
        self._client = client
        self._options = options
        self._prepare = prepare
        self._upstream = Places(options.max_calls, options.max_calls_per_identity)
        self._readers = Places(options.max_readers, options.max_readers_per_identity)
        self._hub = StreamHub(self.store, linger=options.linger, on_idle=self._look)
        self._dialects = {dialect.name: dialect for dialect in dialects}
        self._waiting: list[asyncio.Future[None]] = []

    @property
    def running(self) -> int:
        """Calls that are being answered upstream."""
        return self._upstream.taken

    # -- places --------------------------------------------------------------------------------

    @contextlib.contextmanager
    def reading(self, identity: str) -> Iterator[ExitStack]:
        """Take a reader's place; it is given back at the end unless a reply has taken it over."""
        with ExitStack() as place:
            place.callback(self._look)
            place.callback(self._readers.take(identity))
            yield place

    def _reply(self, source: Source, place: ExitStack, *, early: bool = False) -> RelayReply:
        self.live.add(source)
        place.callback(self.live.discard, source)
        return RelayReply(200, source=source, early=early, on_close=place.pop_all().close)

    def _look(self) -> None:
        if not self.live and not self.running:
            for waiting in self._waiting:
                if not waiting.done():
                    waiting.set_result(None)
            self._waiting.clear()

    async def until_idle(self) -> None:
        """Wait until nothing is read and nothing is answered upstream."""
        if self.live or self.running:
            waiting = asyncio.get_running_loop().create_future()
            self._waiting.append(waiting)
            await waiting

    async def close(self) -> None:
        """End all streams with the event of a shutdown; waits for the upstream calls only."""
        for source in [*self.live, *self._opening]:
            source.stop("shutdown")
        for scope in list(self._asking):
            scope.interrupt()
        await self._hub.close()

    # -- calls ---------------------------------------------------------------------------------

    async def checked(
        self, dialect: Dialect, body: Any, identity: str, headers: Mapping[str, str]
    ) -> ChatCall:
        """Return the call that a body asks for.

        Raises:
            RefusalError: it is not allowed.
        """
        call = checked_call(dialect.parse(body, self._options), self._options)
        call = as_asked(call, headers, self._options)
        if self._prepare is not None:
            call = await _awaited(self._prepare(call, identity))
        return call

    async def _arguments(self, call: ChatCall, identity: str) -> tuple[AsyncKonko, dict[str, Any]]:
        client = self._client
        if not isinstance(client, AsyncKonko):
            client = await _awaited(client(identity))
        options = self._options
        return client, {
            "timeout": options.timeout,
            "priority": options.priority,
            **call.params,  # also the two above, where the request or the application say otherwise
            "model": options.upstream_model(call.model),
            "messages": call.messages,
        }

    async def whole(self, call: ChatCall, identity: str) -> bytes:
        """Return a whole answer as JSON."""
        give_back = self._upstream.take(identity)
        try:
            client, arguments = await self._arguments(call, identity)
            scope = Scope()
            self._asking.add(scope)
            try:
                with scope:
                    asked = client.chat.completions.create(**arguments)
                    completion = await asked
            except ConfigurationError as error:
                raise RefusalError(400, error.message) from None
            finally:
                self._asking.discard(scope)
            if scope.interrupted:
                raise stopped_early()
        finally:
            give_back()
        options = self._options
        shown = options.shown_model(call.model)
        return completion_json(completion, fields=options.answer_fields, model=shown)

    async def _stream(self, call: ChatCall, identity: str) -> ChatStream:
        client, arguments = await self._arguments(call, identity)
        try:
            stream: ChatStream = client.chat.completions.stream(**arguments)
        except ConfigurationError as error:  # tells which field, and what is wrong with it
            raise RefusalError(400, error.message) from None
        return stream

    async def direct(
        self, dialect: Dialect, call: ChatCall, identity: str, place: ExitStack
    ) -> RelayReply:
        """Stream an answer to the one who asked.

        Raises:
            KonkoError: it failed before its first delta.
        """
        place.callback(self._upstream.take(identity))
        stream = await self._stream(call, identity)
        source = StreamSource(stream, dialect.format(call, self._options))
        early = self._options.open_early
        if not early:
            self._opening.add(source)
            try:
                failure = await source.open()
            finally:
                self._opening.discard(source)
            if failure is not None:
                raise failure
        return self._reply(source, place, early=early)

    async def resumable(
        self, dialect: Dialect, call: ChatCall, identity: str, place: ExitStack
    ) -> RelayReply:
        """Stream an answer to the one who asked, and keep it for when it comes back.

        Raises:
            KonkoError: it failed before its first delta.
        """
        give_back = self._upstream.take(identity)
        try:
            stream = await self._stream(call, identity)
            written = dialect.format(call, self._options)
            run = await self._hub.start(
                stream, written, owner=identity, key=call.key, name=dialect.name, on_end=give_back
            )
        except BaseException:
            give_back()
            raise
        early = self._options.open_early
        if not early:
            try:
                await run.opened()
            except asyncio.CancelledError:
                if call.key is None:  # the browser left, and nobody was ever told the stream's id
                    run.stop("abandoned")
                raise
        return self._reply(
            self._hub.source(run.info, 0, written.fail, written.stop), place, early=early
        )

    async def resume(
        self, stream_id: str, after: int, identity: str, place: ExitStack
    ) -> RelayReply:
        """Stream what follows an event of a stream.

        Raises:
            RefusalError: 404 not one of this identity's; 410 it is no longer kept.
        """
        info = await self._owned(stream_id, identity)
        if info.state == "expired":
            raise RefusalError(410, "this stream is no longer kept", type="expired")
        if info.state == "finished":
            page = await self.store.read(stream_id, after, wait=0)
            if page.finished and not page.payloads:
                return RelayReply(204)  # what makes an EventSource stop asking
        dialect = self._dialects.get(info.format)
        if dialect is None:
            raise RefusalError(404, "there is no such stream", type="not_found")
        call = ChatCall(model=self._options.default_model, messages=[])
        written = dialect.format(call, self._options)  # for what may have to be said at its end
        return self._reply(self._hub.source(info, after, written.fail, written.stop), place)

    async def stop(self, stream_id: str, identity: str) -> None:
        """End a stream for all who read it.

        Raises:
            RefusalError: 404 not one of this identity's.
        """
        info = await self._owned(stream_id, identity)
        if info.state == "active":
            await self.store.request_stop(stream_id)

    async def _owned(self, stream_id: str, identity: str) -> Any:
        info = await self.store.info(stream_id)
        if info is None or info.owner != identity:
            raise RefusalError(404, "there is no such stream", type="not_found")
        return info
