"""Calls to the model's server on behalf of browsers, and the slots that they hold meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import ExitStack
from typing import Any

import msgspec

from konko_async import AsyncKonko
from konko_async.errors import ConfigurationError
from konko_async.relay._concurrency import CallerSlots
from konko_async.relay._errors import RefusalError, StoreUnavailableError
from konko_async.relay._formats.base import ChatCall, Dialect, Format
from konko_async.relay._formats.openai import completion_json as chat_completion_json
from konko_async.relay._http import RelayReply
from konko_async.relay._policy import RelayOptions, checked_call
from konko_async.relay._request_headers import as_asked
from konko_async.relay._stores.base import StreamStore
from konko_async.relay._stores.memory import MemoryStore
from konko_async.relay._stores.store_health import StreamStoreHealth
from konko_async.relay._streams.cancel_scope import Scope
from konko_async.relay._streams.chats import ChatCalls
from konko_async.relay._streams.hub import StreamHub
from konko_async.relay._streams.source import Source, StreamSource, stopped_early
from konko_async.relay._texts import CompletionFormat, TextCall, completion_json, embeddings_json

__all__ = ["ClientFor", "Prepare", "UpstreamCalls"]

ClientFor = Callable[[str], "AsyncKonko | Awaitable[AsyncKonko]"]
Prepare = Callable[[ChatCall, str], "ChatCall | Awaitable[ChatCall]"]


async def _awaited(value: Any) -> Any:
    return await value if inspect.isawaitable(value) else value


class UpstreamCalls:
    """Makes and tracks the upstream calls of one service.

    Args:
        client: as for the service.
        options: as for the service.
        store: of resumable streams, or None.
        prepare: as for the service.
        dialects: all that are spoken; streams are resumed in theirs.

    Attributes:
        live: sources that are being read.
        store: of resumable streams.
        store_health: whether that can be used.
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
        # Neither is live yet, as nobody reads them; a shutdown has to end them all the same.
        self._opening: set[Source] = set()  # they wait for their first delta
        self._asking: set[Scope] = set()  # whole answers that are waited for
        self.store: StreamStore = MemoryStore() if store is None else store
        self._client = client
        self._options = options
        self._prepare = prepare
        self._upstream = CallerSlots(options.max_calls, options.max_calls_per_identity)
        self._readers = CallerSlots(options.max_readers, options.max_readers_per_identity)
        self._chats = ChatCalls()
        self.store_health = StreamStoreHealth()
        self._hub = StreamHub(
            self.store, linger=options.linger, on_idle=self._look, health=self.store_health
        )
        self._dialects = {dialect.name: dialect for dialect in dialects}
        self._waiting: list[asyncio.Future[None]] = []

    @property
    def running(self) -> int:
        """Calls that are being answered upstream."""
        return self._upstream.taken

    # -- slots -----------------------------------------------------------------------------------
    #
    # How a request's clean-up travels. What a request holds (a reader's slot, an upstream slot, its
    # place among the live sources and among the calls of its chat) is collected in one ExitStack,
    # and has three owners, one after the other:
    #
    # 1. reading() makes the stack, and undoes it if anything goes wrong while the call is made.
    # 2. _reply() moves it (pop_all) into the RelayReply, whose close() undoes it: the adapter calls
    #    that when the reader has all of the answer, or has left.
    # 3. A resumable call outlives its reader. What it holds upstream therefore goes into a stack of
    #    its own, which its StreamRun undoes when nothing of it is under way upstream any more.
    #
    # Nothing else gives anything back; all callbacks may be called twice.

    @contextlib.contextmanager
    def reading(self, identity: str) -> Iterator[ExitStack]:
        """Take a reader's slot; it is given back at the end unless a reply has taken it over."""
        with ExitStack() as held:
            # Registered first, so it runs last: by then the slot is free, and until_idle() may
            # return.
            held.callback(self._look)
            held.callback(self._readers.take(identity))
            yield held

    def _reply(self, source: Source, held: ExitStack, *, early: bool = False) -> RelayReply:
        self.live.add(source)
        held.callback(self.live.discard, source)
        return RelayReply(200, source=source, early=early, on_close=held.pop_all().close)

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
        """Return the checked call of a request's body.

        Raises:
            RefusalError: it is not allowed.
        """
        # prepare comes last: it sees allowed calls only, and what it adds (a larger cap, parameters
        # that browsers may not send) is not checked against the lists.
        call = checked_call(dialect.parse(body, self._options), self._options)
        params = as_asked(call.params, headers, self._options)
        call = msgspec.structs.replace(call, params=params)
        if self._prepare is not None:
            call = await _awaited(self._prepare(call, identity))
        return call

    async def _arguments(
        self, call: ChatCall | TextCall, identity: str
    ) -> tuple[AsyncKonko, dict[str, Any]]:
        client = self._client
        if not isinstance(client, AsyncKonko):
            client = await _awaited(client(identity))
        options = self._options
        messages = {"messages": call.messages} if isinstance(call, ChatCall) else {}
        return client, {
            "timeout": options.timeout,
            "priority": options.priority,
            **call.params,  # also the two above, where the request or the application say otherwise
            # Behind the parameters, so that none of those can replace what was checked.
            "model": options.upstream_model(call.model),
            **messages,
        }

    async def whole(self, call: ChatCall, identity: str) -> bytes:
        """Return a whole chat answer as JSON.

        Raises:
            RefusalError: the call is not valid, or was stopped.
            KonkoError: it failed.
        """
        completion = await self._answered(
            call, identity, lambda client: client.chat.completions.create, call.key
        )
        options = self._options
        shown = options.shown_model(call.model)
        return chat_completion_json(completion, fields=options.answer_fields, model=shown)

    async def text(self, call: TextCall, identity: str) -> bytes:
        """Return a whole text completion, or vectors, as JSON; raises as :meth:`whole`."""
        options = self._options
        shown = options.shown_model(call.model)
        if call.endpoint == "embeddings":
            vectors = await self._answered(call, identity, lambda c: c.embeddings.create)
            return embeddings_json(vectors, model=shown, as_base64=call.as_base64)
        answer = await self._answered(call, identity, lambda c: c.completions.create)
        return completion_json(answer, fields=options.answer_fields, model=shown)

    async def _answered(
        self,
        call: ChatCall | TextCall,
        identity: str,
        endpoint: Callable[[AsyncKonko], Callable[..., Awaitable[Any]]],
        key: str | None = None,
    ) -> Any:
        scope = Scope()
        with ExitStack() as held:
            # The chat's earlier call ends first: it may hold the identity's last slot. over() is
            # registered before the slot, so the slot is free when a successor is let through.
            live = await self._chats.begin(identity, key)
            held.callback(live.over)
            held.callback(self._upstream.take(identity))
            client, arguments = await self._arguments(call, identity)
            self._asking.add(scope)
            held.callback(self._asking.discard, scope)
            live.stops_by(lambda _: scope.interrupt())
            try:
                # A scope rather than the request's task: the caller gets a 409 or 503, not a cut
                # connection.
                with scope:
                    asked = endpoint(client)(**arguments)
                    answer = await asked
            # The client refuses values of allowed parameters before it sends anything.
            except ConfigurationError as error:
                raise RefusalError(400, error.message) from None
            if scope.interrupted:
                raise stopped_early("stopped" if live.stopped else "shutdown")
        return answer

    async def _stream(self, call: ChatCall | TextCall, identity: str) -> Any:
        client, arguments = await self._arguments(call, identity)
        chat = isinstance(call, ChatCall)
        completions: Any = client.chat.completions if chat else client.completions
        try:
            stream = completions.stream(**arguments)
        except ConfigurationError as error:  # names the field and its fault
            raise RefusalError(400, error.message) from None
        return stream

    async def direct(
        self, dialect: Dialect, call: ChatCall, identity: str, held: ExitStack
    ) -> RelayReply:
        """Stream an answer to the caller alone.

        Raises:
            KonkoError: it failed before its first delta.
        """
        return await self._directly(
            call, dialect.format(call, self._options), identity, held, call.key
        )

    async def text_stream(self, call: TextCall, identity: str, held: ExitStack) -> RelayReply:
        """Stream a text completion; raises as :meth:`direct`."""
        options = self._options
        written = CompletionFormat(
            fields=options.answer_fields,
            stats=options.stats,
            model=options.shown_model(call.model),
        )
        return await self._directly(call, written, identity, held)

    async def _directly(
        self,
        call: ChatCall | TextCall,
        written: Format,
        identity: str,
        held: ExitStack,
        key: str | None = None,
    ) -> RelayReply:
        live = await self._chats.begin(identity, key)
        held.callback(live.over)
        held.callback(self._upstream.take(identity))
        stream = await self._stream(call, identity)
        source = StreamSource(stream, written)
        live.stops_by(source.stop)
        early = self._options.open_early
        if not early:
            self._opening.add(source)
            try:
                failure = await source.open()
            finally:
                self._opening.discard(source)
            if failure is not None:
                raise failure
        return self._reply(source, held, early=early)

    async def resumable(
        self, dialect: Dialect, call: ChatCall, identity: str, held: ExitStack
    ) -> RelayReply:
        """Stream an answer to the caller, and keep it so that it can be resumed.

        Where the store is away, the answer is streamed all the same, unless the options say
        otherwise: most readers never need to come back.

        Raises:
            KonkoError: it failed before its first delta.
        """
        try:
            return await self._resumable(dialect, call, identity, held)
        except StoreUnavailableError:
            if self._options.store_away == "refuse":
                raise
        return await self.direct(dialect, call, identity, held)

    async def _resumable(
        self, dialect: Dialect, call: ChatCall, identity: str, held: ExitStack
    ) -> RelayReply:
        live = await self._chats.begin(identity, call.key)
        call_held = ExitStack()  # the run's, not the reader's: 3. above
        call_held.callback(live.over)
        try:
            call_held.callback(self._upstream.take(identity))
            stream = await self._stream(call, identity)
            written = dialect.format(call, self._options)
            run = await self._hub.start(
                stream,
                written,
                owner=identity,
                key=call.key,
                name=dialect.name,
                on_end=call_held.close,
            )
        # Until start() has returned, nobody else knows of this stack.
        except BaseException:
            call_held.close()
            raise
        live.stops_by(run.stop)
        early = self._options.open_early
        if not early:
            try:
                await run.opened()
            except asyncio.CancelledError:
                if call.key is None:  # the browser left before it learnt the stream's id
                    run.stop("abandoned")
                raise
        return self._reply(
            self._hub.source(run.info, 0, written.fail, written.stop), held, early=early
        )

    async def resume(
        self, stream_id: str, after: int, identity: str, held: ExitStack
    ) -> RelayReply:
        """Stream what follows an event of a stream.

        Raises:
            RefusalError: 404 not one of this identity's; 410 it is no longer kept.
        """
        use = self.store_health.use
        info = await self._owned(stream_id, identity)
        if info.state == "expired":
            raise RefusalError(410, "this stream is no longer kept", type="expired")
        if info.state == "finished":
            page = await use(self.store.read(stream_id, after, wait=0))
            if page.finished and not page.payloads:
                return RelayReply(204)  # what makes an EventSource stop asking
        dialect = self._dialects.get(info.format)
        if dialect is None:
            raise RefusalError(404, "there is no such stream", type="not_found")
        call = ChatCall(model=self._options.default_model, messages=[])
        written = dialect.format(call, self._options)  # for a last event that may be needed
        return self._reply(self._hub.source(info, after, written.fail, written.stop), held)

    async def stop(self, stream_id: str, identity: str) -> None:
        """End a stream for all who read it.

        Raises:
            RefusalError: 404 not one of this identity's.
        """
        # Our own streams first: that works while the store is away, too.
        if self._hub.stop(stream_id, identity):
            return
        info = await self._owned(stream_id, identity)
        if info.state == "active":
            await self.store_health.use(self.store.request_stop(stream_id))

    async def find(self, key: str, identity: str) -> str | None:
        """Return the id of a chat's stream that is being written, or None."""
        return await self.store_health.use(self.store.find(identity, key))

    async def stop_chat(self, key: str, identity: str) -> None:
        """End all calls of a chat: those of this process, and the latest of any other."""
        self._chats.stop(identity, key)
        try:
            stream_id = await self.find(key, identity)
        except StoreUnavailableError:
            return  # streams of other processes are out of reach; they end unread
        if stream_id is not None:
            await self.stop(stream_id, identity)

    async def _owned(self, stream_id: str, identity: str) -> Any:
        info = await self.store_health.use(self.store.info(stream_id))
        # Of another owner's stream not even its existence is confirmed.
        if info is None or info.owner != identity:
            raise RefusalError(404, "there is no such stream", type="not_found")
        return info
