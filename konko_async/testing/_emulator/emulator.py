"""The emulator: a server on this machine that speaks the Konko API."""

import asyncio
from typing import TYPE_CHECKING, Any, Final, Self

from aiohttp import web

from konko_async.testing._emulator.script import Match, Scripted, When
from konko_async.testing._emulator.service import Service
from konko_async.testing._emulator.state import EmulatorState

if TYPE_CHECKING:
    from collections.abc import Sequence

# aiohttp's own limit is 1 MiB, which a request with images exceeds.
_MAX_BODY: Final = 64 * 2**20
# Load tests open thousands of connections at once. The kernel drops what its queue cannot hold, and
# a client's next SYN is a second later: that would be measured as latency.
_BACKLOG: Final = 4096
# Handlers end within a few event-loop iterations once their connection is gone; one that does not
# is held up by a user's function.
_CLOSE_TURNS: Final = 100
_FEWEST_TURNS: Final = 10
_CLOSE_SECONDS: Final = 5.0


class Emulator(EmulatorState):
    """A server on a free loopback port that speaks the Konko (OpenAI) API, for tests.

    ```python
    async with Emulator(latency=0.05, tokens_per_second=200) as emulator:
        client = AsyncKonko(base_url=emulator.base_url, api_key=emulator.api_key)
    ```

    It serves `GET /models`, `GET /models/{id}`, `GET /health`, `POST /chat/completions`,
    `/completions` and `/embeddings`, and `/files` and `/batches`, with and without `/v1`. An answer
    is a pure function of the request (its messages, model and `seed`), so it is the same in every
    run, streamed or whole.
    Every argument but `api_keys`, `log_limit`, `host`, `port` and `allow_remote` is an attribute
    too, and may be set while it runs: it holds for the calls that come after.

    Args:
        models: What is listed: ids, or mappings with an `id`; `None` for the models of Konko's
            documentation. As an attribute: the mappings by id.
        api_keys: The keys that are accepted; `None` for any that is not empty.
        answer: A function of the decoded request that returns the answer, or an awaitable of it: a
            string, the tokens of one, or the assistant's message as a mapping. `None` for generated
            text. `stop` and `max_tokens` hold for it too.
        answer_tokens: The length of a generated text, in tokens; `None` for 16 to 64 of them,
            which depends on the request.
        latency: Seconds before the first byte.
        tokens_per_second: The pace of each choice; `None` for no pace. A whole answer comes when
            its last token would.
        chunk_tokens: Tokens in each delta of a stream.
        capacity: How many calls are served at once; `None` for any number.
        overload: What happens to a call above the capacity: `"reject"`, or `"queue"` (first come,
            first served).
        overload_status: The status of a call that is rejected, such as 429.
        requests_per_minute: How many calls of one key and model are allowed in any stretch of
            `limit_window` seconds; `None` for any number.
        tokens_per_minute: The same for tokens, prompt and completion, all counted when a call
            arrives.
        limit_window: The length of both windows, in seconds.
        enforce_model_kind: Whether a model whose `is_chat` (`is_text`) is false is refused by the
            chat (completion) endpoint.
        dialect: How chat answers are written: the name of one of
            `konko_async.testing.dialects.DIALECTS`, such as `"gemini"`, or a `ServerDialect`;
            `None` for OpenAI's way.
        prefill: The server whose way of going on with the beginning of an answer is understood:
            `"vllm"`, `"sglang"`, `"llama.cpp"`, `"mistral"` (which repeats the beginning) or
            `"deepseek"`; its list of models says so, if it is one of the first three. The rest of
            the answer to the conversation before is generated, so that a text that was cut and
            continued is the same. `answer` gets the request without the beginning. `None`: a last
            message of the assistant's is one of the conversation.
        strict_history: Whether a conversation is refused as the strictest servers refuse it: each
            call of an assistant's message has the text of a JSON object as its arguments, a name
            and an id of its own, and exactly one result, which follows it; a message without calls
            has content.
        batches: How batches are run: a `BatchSettings`; `None` for as fast as they go. Their rows
            are answered like calls, but are not in the log, and no limits apply to them.
        log_limit: How many requests the log keeps; `None` for all of them.
        host: The address to listen on.
        port: The port; 0 for a free one.
        allow_remote: Allows a `host` that is not a loopback address, if there are `api_keys` too.

    Attributes:
        received: How many requests have come.
        rejected: How many of them were over a limit or above the capacity.
        in_flight: How many are being answered, or wait for a slot.
        peak_in_flight: The most of them at once.
        closing: Whether it is being closed, or has been.

    Raises:
        ValueError: If an argument is out of its range, the host is not allowed, or there is no
            dialect of that name.
    """

    # On the class: `EmulatorState` does no I/O, and its `__init__` is the only one.
    _server: web.Server | None = None
    _listener: asyncio.Server | None = None
    _service: Service | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __repr__(self) -> str:
        where = self.base_url if self._listener else "not running"
        return f"<Emulator {where}, {self.received} received, {self.in_flight} in flight>"

    @property
    def base_url(self) -> str:
        """The URL for clients; it ends with `/v1`.

        Raises:
            RuntimeError: If the emulator is not running.
        """
        if self._listener is None:
            raise RuntimeError("the emulator is not running: use `async with`, or await start()")
        port = self._listener.sockets[0].getsockname()[1]
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{port}/v1"

    @property
    def connections(self) -> int:
        """How many connections are open now."""
        return len(self._server.connections) if self._server else 0

    async def start(self) -> None:
        """Listen. Does nothing if it already does.

        Raises:
            OSError: If the address cannot be listened on.
        """
        if self._listener is not None:
            return
        loop = asyncio.get_running_loop()
        self._service = Service(self)
        server = web.Server(
            self._service.handle,
            request_factory=_make_request,
            # Off by default in aiohttp: without it a handler would go on after its client left, and
            # `disconnected` would never be noted.
            handler_cancellation=True,
            access_log=None,
        )
        self._listener = await loop.create_server(server, self._host, self._port, backlog=_BACKLOG)
        self._server = server
        self.closing = False

    async def close(self) -> None:
        """Stop listening, cut what is in flight, and wait for its end. May be called again."""
        listener, server = self._listener, self._server
        # Cleared before the first await, so that a second `close()` meanwhile returns at once.
        self._listener = self._server = None
        if listener is None or server is None:
            return
        # Before connections are cut: what they end with must not be logged as a client that left.
        self.closing = True
        listener.close()
        # Handlers first: `Server.shutdown` would wait for them, and one that stalls on purpose
        # never ends.
        await _cut(server)
        if self._service is not None:
            await self._service.jobs.close()
        await server.shutdown(1.0)
        await listener.wait_closed()

    def script(
        self,
        *faults: Scripted,
        path: str | None = None,
        model: str | None = None,
        when: When | None = None,
    ) -> None:
        """Queue faults: each is used up by the next call that matches.

        Args:
            *faults: For each call a fault, or several in a list; `None` lets that call pass.
            path: Only for calls of this path, such as `"/chat/completions"`.
            model: Only for calls that ask for this model.
            when: Only for calls for whose record (as it is when they come) this is true.

        Raises:
            TypeError: If something is not a fault.
        """
        self._script.queue(Match(path, model, when), faults)

    def always(
        self,
        *faults: Scripted,
        path: str | None = None,
        model: str | None = None,
        when: When | None = None,
    ) -> None:
        """Apply faults to every call that matches, until `clear()`.

        Args:
            *faults: All of them happen to each call.
            path: As for `script()`.
            model: As for `script()`.
            when: As for `script()`.

        Raises:
            TypeError: If something is not a fault.
        """
        self._script.stay(Match(path, model, when), faults)

    def clear(self) -> None:
        """Forget all faults, queued and standing, and end an outage."""
        self._script.clear()
        self.outage = None

    @property
    def scripted(self) -> int:
        """How many queued faults still wait for their call."""
        return len(self._script)


def _make_request(
    message: Any, payload: Any, protocol: Any, writer: Any, task: Any
) -> web.BaseRequest:
    loop = asyncio.get_running_loop()
    # aiohttp's own factory takes no size limit; everything else is as there.
    return web.BaseRequest(
        message, payload, protocol, writer, task, loop, client_max_size=_MAX_BODY
    )


async def _cut(server: web.Server) -> None:
    """Abort every connection, and wait until the last handler has ended."""
    loop = asyncio.get_running_loop()
    deadline, turn = loop.time() + _CLOSE_SECONDS, 0
    # Connections may have been accepted and not be known yet, and one that was aborted is closed an
    # iteration later: hence some iterations in any case.
    while turn < _FEWEST_TURNS or (server.connections and loop.time() < deadline):
        connections: Sequence[Any] = server.connections
        for connection in connections:
            if connection.transport is not None:
                connection.transport.abort()
        turn += 1
        # Iterations without a pause let a usual close end at once; a handler that is held up must
        # not keep a core busy for the rest of the deadline.
        await asyncio.sleep(0 if turn < _CLOSE_TURNS else 0.01)
