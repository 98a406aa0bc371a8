"""The emulator: a server on this machine that speaks the Konko API."""

import asyncio
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from aiohttp import web

from konko_async.testing._emulator_script import Match, Scripted, When
from konko_async.testing._emulator_service import Service
from konko_async.testing._emulator_state import EmulatorState

if TYPE_CHECKING:
    from collections.abc import Sequence

_MAX_BODY: Final = 64 * 2**20
_BACKLOG: Final = 4096
# Handlers end within a few turns of the loop once their connection is gone; one that does not, has
# a user's function in it that holds on.
_CLOSE_TURNS: Final = 100
_CLOSE_SECONDS: Final = 5.0


class Emulator(EmulatorState):
    """A server on a free loopback port that speaks the Konko (OpenAI) API, for tests.

    ```python
    async with Emulator(latency=0.05, tokens_per_second=200) as emulator:
        client = AsyncKonko(base_url=emulator.base_url, api_key=emulator.api_key)
    ```

    It serves `GET /models`, `GET /models/{id}`, `POST /chat/completions`, `/completions` and
    `/embeddings`, with and without `/v1`. An answer is a pure function of the request (its
    messages, model and `seed`), so it is the same in every run, streamed or whole. Every argument
    but `api_keys`, `log_limit`, `host`, `port` and `allow_remote` is an attribute too, and may be
    set while it runs: it holds for the calls that come after.

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
        log_limit: How many requests the log keeps; `None` for all of them.
        host: The address to listen on.
        port: The port; 0 for a free one.
        allow_remote: Allows a `host` that is not a loopback address, if there are `api_keys` too.

    Attributes:
        received: How many requests have come.
        rejected: How many of them were over a limit or above the capacity.
        in_flight: How many are being answered, or wait for a place.
        peak_in_flight: The most of them at once.
        closing: Whether it is being closed, or has been.

    Raises:
        ValueError: If an argument is out of its range, or the host is not allowed.
    """

    _server: web.Server | None = None
    _listener: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
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
        server = web.Server(
            Service(self).handle,
            request_factory=_make_request,
            handler_cancellation=True,
            access_log=None,
        )
        self._listener = await loop.create_server(server, self._host, self._port, backlog=_BACKLOG)
        self._server = server
        self.closing = False

    async def close(self) -> None:
        """Stop listening, cut what is in flight, and wait for its end. May be called again."""
        listener, server = self._listener, self._server
        self._listener = self._server = None
        if listener is None or server is None:
            return
        self.closing = True
        listener.close()
        await _cut(server)
        await server.shutdown(1.0)
        await listener.wait_closed()

    def script(
        self,
        *faults: Scripted,
        path: str | None = None,
        model: str | None = None,
        when: When | None = None,
    ) -> None:
        """Queue faults: each is used up by the next call that it is meant for.

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
        """Let faults happen to every call that they are meant for, until `clear()`.

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
    return web.BaseRequest(
        message, payload, protocol, writer, task, loop, client_max_size=_MAX_BODY
    )


async def _cut(server: web.Server) -> None:
    """Abort every connection, and wait until the last handler has ended."""
    loop = asyncio.get_running_loop()
    deadline, turn = loop.time() + _CLOSE_SECONDS, 0
    # A connection may have been accepted and not be known yet: hence at least a few turns.
    while turn < 3 or (server.connections and loop.time() < deadline):  # noqa: PLR2004 - turns
        connections: Sequence[Any] = server.connections
        for connection in connections:
            if connection.transport is not None:
                connection.transport.abort()
        turn += 1
        await asyncio.sleep(0 if turn < _CLOSE_TURNS else 0.01)
