"""Serves one connection of the fault server: reads requests, sends answers, sees its peer leave."""

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import Callable
from typing import Final, cast

from konko_async.testing._fault_server.answer import Answer
from konko_async.testing._fault_server.request import NotHTTPError, ReceivedRequest, take_request
from konko_async.testing._fault_server.stage import Stage
from konko_async.testing._fault_server.steps import HangUp, How, Send, SendPause, SendStall, Step

# Linger for 0 seconds: closing then discards what is unsent and resets the connection.
_LINGER_0: Final = struct.pack("hh" if os.name == "nt" else "ii", 1, 0)


class PeerLeftError(Exception):
    """The client has closed the connection: ends the task that serves it."""


class ServedConnection(asyncio.Protocol):
    """An accepted connection, served by a task of its own."""

    def __init__(self, stage: Stage, number: int) -> None:
        self.number = number
        self._stage = stage
        self._transport: asyncio.Transport
        self._socket: socket.socket
        self._task: asyncio.Task[None] | None = None
        self._inbox = bytearray()
        self._wake = asyncio.Event()
        self._writable = True
        self._closing = False
        self._lost = asyncio.Event()

    # Called by the event loop.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the task that serves the connection."""
        self._transport = cast("asyncio.Transport", transport)
        # Almost no buffer of our own, so that "written" means that the kernel has taken it. (With
        # none at all, TLS would pause at every write and never resume.)
        self._transport.set_write_buffer_limits(high=1, low=0)
        self._socket = transport.get_extra_info("socket")
        # Else Nagle's algorithm would join small writes to one segment, and the reads of a client
        # would no longer be the writes of the test.
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._stage.open:
            self._task = asyncio.get_running_loop().create_task(self._serve())
        else:
            self.close("rst")
        self._stage.made(self)

    def data_received(self, data: bytes) -> None:
        """Buffer the bytes for the task that serves the connection."""
        self._stage.idle.discard(self)
        self._inbox += data
        self._wake.set()

    def pause_writing(self) -> None:
        """Called when the kernel takes no more bytes: the peer does not read."""
        self._writable = False

    def resume_writing(self) -> None:
        """Called when the kernel takes bytes again."""
        self._writable = True
        self._wake.set()

    def connection_lost(self, exc: Exception | None) -> None:
        """Note who closed it."""
        del exc
        self._lost.set()
        self._wake.set()
        # `_closing` is set before the transport is closed, so the side that closed first is named.
        self._stage.lost(self, "server" if self._closing else "peer")

    # Called by the server.

    def close(self, how: How) -> None:
        """Close the connection now, by FIN or by RST."""
        if self._closing or self._lost.is_set():
            return
        self._closing = True
        self._stage.idle.discard(self)
        if how == "rst":
            # Under TLS the socket may be closed already, which is reported a little later.
            with contextlib.suppress(OSError):
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_0)
            self._transport.abort()
        else:
            self._transport.close()

    def release(self) -> None:
        """Resume a stalled answer."""
        self._stage.stalled.discard(self)
        self._wake.set()

    def drop(self) -> None:
        """Abort the connection if it is open; unsent bytes are lost."""
        if self in self._stage.live:
            self._closing = True
            self._transport.abort()

    async def finished(self) -> None:
        """Wait until nothing of it is left, after `drop`.

        Raises:
            Exception: What the user's function that makes answers raised, if it did.
        """
        if self in self._stage.live:
            await self._lost.wait()
        if self._task is not None:
            await self._task

    # The task.

    async def _serve(self) -> None:
        try:
            if (greeting := self._stage.greeting()) is not None:
                await self._send(greeting)
            while not self._closing:
                request = await self._next_request()
                await self._send(self._stage.answer_to(request))
                # With `keep_alive=False` no header announces it: the client learns that a pooled
                # connection is gone when it uses it again.
                if not (request.keep_alive and self._stage.keep_alive):
                    self.close("fin")
        except (PeerLeftError, NotHTTPError):
            pass
        finally:
            # Also when the user's own function has failed: the client must not hang.
            self.close("fin")

    async def _next_request(self) -> ReceivedRequest:
        # Whatever came before the peer left is read, so that the log has it.
        while (request := take_request(self._inbox, self.number)) is None:
            self._check()
            self._wake.clear()
            await self._wake.wait()
        return request

    async def _send(self, answer: Answer) -> None:
        for step in answer.steps():
            await self._take(step)
        # A pipelined request is there already: the connection is not idle, and `kill_idle` must not
        # hit it.
        if not self._inbox and not self._closing:
            self._stage.idle.add(self)
            self._stage.changed()

    async def _take(self, step: Step) -> None:
        self._check()
        match step:
            case Send(data):
                self._transport.write(data)
                await self._until(lambda: self._writable)
                # A peer on the same loop sees this piece in the next iteration, but after us: it
                # takes two iterations until it has read it by itself.
                await asyncio.sleep(0)
                await asyncio.sleep(0)
            case SendPause(seconds):
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(seconds):
                        # Not a plain sleep: a pause ends at once when the peer leaves.
                        await self._until(lambda: False)
            case SendStall():
                self._stage.stalled.add(self)
                # A count as well as a set: `wait_for_stall` has to see a stall that was released
                # meanwhile.
                self._stage.stalls += 1
                self._stage.changed()
                await self._until(lambda: self not in self._stage.stalled)
            case HangUp(how):
                self.close(how)

    async def _until(self, ready: Callable[[], bool]) -> None:
        """Wait until `ready()` is true; raises PeerLeftError if the peer leaves first."""
        self._check()
        while not ready():
            self._wake.clear()
            await self._wake.wait()
            self._check()

    def _check(self) -> None:
        if self._lost.is_set():
            raise PeerLeftError
