"""The fault server: misbehaves on purpose, on raw sockets, to test what a client does about it."""

import asyncio
import socket
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from konko_async.testing._fault_server.connection import ServedConnection
from konko_async.testing._fault_server.request import ReceivedRequest
from konko_async.testing._fault_server.stage import Script, Stage
from konko_async.testing._fault_server.steps import How

_HOST: Final = "127.0.0.1"
# asyncio's defaults are 60 s for the handshake and 30 s for the shutdown: a client that disappears
# would hold up the end of a test for that long.
_TLS_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class Connections:
    """How many connections there were, and who ended them."""

    opened: int
    """All that were ever accepted."""
    open: int
    closed_by_peer: int
    closed_by_server: int


class FaultServer:
    """An HTTP server on a loopback port that answers with exactly the bytes that it was given.

    Each request, also one of several on a connection, takes the next answer; when they are used up,
    `default` is sent, or else the last one again::

        async with FaultServer(Answer.stream(["Hel", "lo"]).cut(250, how="rst")) as server:
            client = AsyncKonko(base_url=server.base_url, api_key="any")
            ...
            await server.wait_until_closed()

    Args:
        *answers: What to answer: `Answer`s, or functions of the `ReceivedRequest` giving one.
        default: The answer once those are used up.
        keep_alive: Whether a connection stays open after an answer. If not, it is closed without
            having been announced, as an impatient load balancer does.
        ssl_context: Speak TLS with this server-side context.
        patience: Seconds after which a `wait_...` method gives up with a `TimeoutError`.

    An exception in a function of the user's closes that connection, and is raised again on leaving
    the `async with`.
    """

    def __init__(
        self,
        *answers: Script,
        default: Script | None = None,
        keep_alive: bool = True,
        ssl_context: ssl.SSLContext | None = None,
        patience: float = 30.0,
    ) -> None:
        self._stage = Stage(answers, default, keep_alive)
        self._ssl_context = ssl_context
        self._patience = patience
        # Closed ones stay in it: `close()` raises what their tasks have raised.
        self._connections: list[ServedConnection] = []
        self._server: asyncio.Server | None = None
        self._port = 0

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            await self.close()
        except Exception:
            # The body's own exception says more.
            if exc is None:
                raise

    async def start(self) -> None:
        """Listen on a free loopback port; `async with` does it.

        Raises:
            RuntimeError: It was started before.
        """
        if self._port:
            raise RuntimeError("a FaultServer is started once")
        seconds = None if self._ssl_context is None else _TLS_SECONDS
        self._server = await asyncio.get_running_loop().create_server(
            self._accept,
            _HOST,
            0,
            ssl=self._ssl_context,
            ssl_handshake_timeout=seconds,
            ssl_shutdown_timeout=seconds,
            backlog=1024,
        )
        self._port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Close every connection and the port; nothing is left afterwards. Idempotent.

        Raises:
            Exception: What a function of the user's that makes answers raised, if one did.
        """
        if self._server is None:
            return
        server, self._server = self._server, None
        self._stage.open = False
        server.close()
        # All that must happen does so before the first await, where we may be cancelled.
        for connection in self._connections:
            connection.drop()
        # One that was accepted in this very event-loop iteration becomes a connection in the next.
        await asyncio.sleep(0)
        finished = [connection.finished() for connection in self._connections]
        results = await asyncio.gather(*finished, return_exceptions=True)
        await server.wait_closed()
        for result in results:
            if result is not None:
                raise result

    # Where it is.

    @property
    def base_url(self) -> str:
        """What to give a client, e.g. `http://127.0.0.1:40123/v1`.

        Raises:
            RuntimeError: It has not been started.
        """
        if not self._port:
            raise RuntimeError("the FaultServer has not been started: use `async with`")
        scheme = "http" if self._ssl_context is None else "https"
        return f"{scheme}://{_HOST}:{self._port}/v1"

    @staticmethod
    def refused_url() -> str:
        """A base URL of a loopback port at which connections are refused."""
        # Of the low ports: a free one of the kernel's choice could be given to somebody else, and a
        # client that connects to it may even be given the same one, and be talking to itself.
        for port in range(1, 1024):
            with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
                if probe.connect_ex((_HOST, port)):
                    return f"http://{_HOST}:{port}/v1"
        raise RuntimeError("every low port of this machine is in use")

    # What it answers.

    def push(self, *answers: Script) -> None:
        """Add answers to the end of the queue."""
        self._stage.queue.extend(answers)

    def release(self) -> int:
        """Resume every stalled answer; returns how many there were."""
        stalled = tuple(self._stage.stalled)
        for line in stalled:
            line.release()
        return len(stalled)

    def kill_idle(self, how: How = "rst") -> int:
        """Close the kept-alive connections that wait for their next request.

        Args:
            how: `"rst"` for a reset, or `"fin"`.

        Returns:
            How many there were. See `wait_until_idle`.
        """
        # A copy: closing takes the connection out of the set.
        idle = tuple(self._stage.idle)
        for line in idle:
            line.close(how)
        return len(idle)

    def kill_all(self, how: How = "rst") -> int:
        """Close every connection, in the middle of whatever it is doing.

        Args:
            how: `"rst"` for a reset, or `"fin"` (after what has been written).

        Returns:
            How many there were.
        """
        live = tuple(self._stage.live)
        for line in live:
            line.close(how)
        return len(live)

    # What it saw.

    @property
    def requests(self) -> Sequence[ReceivedRequest]:
        """Every request that has come in full, in order; credentials are redacted."""
        return tuple(self._stage.requests)

    @property
    def connections(self) -> Connections:
        """The count of connections at this moment."""
        stage = self._stage
        closed = stage.closed_by
        return Connections(stage.opened, len(stage.live), closed["peer"], closed["server"])

    async def wait_for_request(self, n: int = 1) -> ReceivedRequest:
        """Wait until `n` requests have come, and return number `n` (from 1).

        Raises:
            TimeoutError: `patience` is over.
        """
        await self._until(lambda: len(self._stage.requests) >= n, f"{n} requests")
        return self._stage.requests[n - 1]

    async def wait_for_connection(self, n: int = 1) -> None:
        """Wait until `n` connections have been opened in all.

        Raises:
            TimeoutError: `patience` is over.
        """
        await self._until(lambda: self._stage.opened >= n, f"{n} connections")

    async def wait_for_stall(self, n: int = 1) -> None:
        """Wait until `n` answers in all have sent what comes before their stall.

        Raises:
            TimeoutError: `patience` is over.
        """
        await self._until(lambda: self._stage.stalls >= n, f"{n} stalls")

    async def wait_until_idle(self, n: int = 1) -> None:
        """Wait until `n` connections are open and wait for their next request.

        Raises:
            TimeoutError: `patience` is over.
        """
        await self._until(lambda: len(self._stage.idle) >= n, f"{n} idle ones")

    async def wait_until_closed(self, n: int | None = None) -> None:
        """Wait until `n` connections in all have been closed, by either side.

        Args:
            n: How many; `None`: until none is open. `connections` says who closed them.

        Raises:
            TimeoutError: `patience` is over: a connection leaks, or a disconnect did not get here.
        """

        def closed() -> bool:
            now = self.connections
            return now.open == 0 if n is None else now.opened - now.open >= n

        await self._until(closed, f"{'all' if n is None else n} connections closed")

    async def _until(self, ready: Callable[[], bool], what: str) -> None:
        if not await self._stage.until(ready, self._patience):
            raise TimeoutError(
                f"waited {self._patience} s for {what}; "
                f"there are {len(self.requests)} requests, and {self.connections}"
            )

    def _accept(self) -> ServedConnection:
        connection = ServedConnection(self._stage, len(self._connections) + 1)
        self._connections.append(connection)
        return connection
