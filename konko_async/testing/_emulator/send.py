"""Sends replies: in one write where nothing is in the way, else step by step."""

import asyncio
import os
import socket
import struct
from collections.abc import Callable
from typing import Final

from aiohttp import web

from konko_async.testing._emulator.log import LoggedCall, loop_time
from konko_async.testing._emulator.reply import Events, Hangup, Pause, Reply

_HTTP_1_1: Final = (1, 1)
# Linger for 0 seconds: closing then resets the connection. Windows has two shorts in this struct.
_NO_LINGER: Final = struct.pack("hh" if os.name == "nt" else "ii", 1, 0)


async def send(
    request: web.BaseRequest, reply: Reply, call: LoggedCall, changed: Callable[[], None]
) -> web.StreamResponse:
    """Send the reply and note in `call` how far that came.

    Args:
        request: What is answered.
        reply: The answer.
        call: Where the status and the counts are written down.
        changed: Called after each of those changes.

    Raises:
        ConnectionError: If the client has left.
        asyncio.CancelledError: If it leaves, or the emulator closes, during a pause.
    """
    for step in reply.before:
        await _wait(request, step, call, None)
    # After the pauses: until then the call has no status, and a client that leaves has seen none.
    call.status = reply.status
    # The one case in which events need not exist before they are sent; see `Events`.
    if reply.interval and reply.unmade:
        return await _Sender(request, reply, call, changed).run(reply.unmade)
    reply.make()
    # Only faults put anything but bytes into the steps.
    plain = not call.faults or all(isinstance(step, bytes) for step in reply.steps)
    if plain and not reply.interval:
        return await _send_whole(request, reply, call)
    return await _Sender(request, reply, call, changed).run(None)


async def _send_whole(
    request: web.BaseRequest, reply: Reply, call: LoggedCall
) -> web.StreamResponse:
    """Headers and body with one write."""
    body = reply.body
    response = web.Response(body=body, status=reply.status, headers=reply.headers)
    # Chunked, as servers stream, and a client must not learn the length of a stream in advance.
    # HTTP/1.0 has no chunks: there the end of the connection ends the body.
    if reply.sse and request.version >= _HTTP_1_1:
        response.enable_chunked_encoding()
    call.first_byte = loop_time()
    call.bytes_sent = len(body)
    if reply.sse:
        # Counted by looking at each event only where faults may have changed them; else all steps
        # but `[DONE]` are chunks, and this is the path of load tests.
        call.chunks_sent = len(reply.events()) if call.faults else len(reply.steps) - 1
    await response.prepare(request)
    await response.write_eof()
    return response


class _Sender:
    """Sends the steps of one reply one after the other."""

    def __init__(
        self, request: web.BaseRequest, reply: Reply, call: LoggedCall, changed: Callable[[], None]
    ) -> None:
        self._request, self._reply, self._call, self._changed = request, reply, call, changed
        self._response = web.StreamResponse(status=reply.status, headers=reply.headers)
        self._held: list[bytes] = []
        self._clock = asyncio.get_running_loop().time

    async def run(self, events: Events | None) -> web.StreamResponse:
        """Send these events, or the reply's steps if there are none."""
        # With its length, so that a cut in the middle is one to the client: without a length the
        # end of the connection would be the regular end of the body.
        if not self._reply.sse:
            self._response.content_length = len(self._reply.body)
        await self._response.prepare(self._request)
        self._call.first_byte = loop_time()
        self._changed()
        await (self._send_steps() if events is None else self._send_events(events))
        await self._flush()
        await self._response.write_eof()
        return self._response

    async def _send_events(self, events: Events) -> None:
        """Send a stream at its pace, each event made when it is due."""
        self._hold(*events.lead)
        # Due times are added up, instead of a sleep of one interval each: a busy loop delays one
        # event, and the pace of the stream as a whole is kept.
        due = self._clock()
        for number, event in enumerate(events.content):
            if number:
                due += self._reply.interval
                await self._wait_until(due)
            self._hold(event)
        self._hold(*events.tail)
        self._call.chunks_sent -= 1  # [DONE]

    async def _send_steps(self) -> None:
        """Send the steps of a reply that faults have edited."""
        reply, due = self._reply, self._clock()
        chunks = set(reply.events()) if reply.sse else set()
        last = len(reply.steps) - reply.tail
        for at, step in enumerate(reply.steps):
            if not isinstance(step, bytes):
                await self._flush()
                response = self._response if reply.sse else None
                await _wait(self._request, step, self._call, response)
                # A pause moves the schedule: without this, all that fell due meanwhile would be
                # sent in a burst.
                due = max(due, self._clock())
                continue
            if reply.interval and reply.lead < at < last:
                due += reply.interval
                await self._wait_until(due)
            self._hold(step)
            # `_hold` has counted the step as a chunk; comments and `[DONE]` are none.
            self._call.chunks_sent += (at in chunks) - 1

    def _hold(self, *events: bytes) -> None:
        self._held += events
        self._call.chunks_sent += len(events)

    async def _wait_until(self, due: float) -> None:
        """Flush and wait until `due`; when late already, the event joins the next write."""
        delay = due - self._clock()
        if delay > 0:
            await self._flush()
            await asyncio.sleep(delay)

    async def _flush(self) -> None:
        if self._held:
            data = b"".join(self._held)
            self._held.clear()
            self._call.bytes_sent += len(data)
            await self._response.write(data)
            self._changed()


async def _wait(
    request: web.BaseRequest,
    step: Pause | Hangup,
    call: LoggedCall,
    response: web.StreamResponse | None,
) -> None:
    """Perform a pause or a hang-up; in a stream, a pause may send heartbeats."""
    if isinstance(step, Hangup):
        call.hung_up = True
        hang_up(request, reset=step.reset)
        # The connection's end cancels this handler; until then there is nothing to answer with.
        await _forever()
    elif response is None or step.heartbeat is None:
        await (_forever() if step.seconds is None else asyncio.sleep(step.seconds))
    else:
        await _beat(step, step.heartbeat, response)


async def _beat(pause: Pause, interval: float, response: web.StreamResponse) -> None:
    clock, comment = asyncio.get_running_loop().time, f"{pause.comment}\n\n".encode()
    end = None if pause.seconds is None else clock() + pause.seconds
    while end is None or clock() < end:
        # A comment at once, then one per interval: a client's read timeout has just begun.
        await response.write(comment)
        left = interval if end is None else min(interval, max(end - clock(), 0))
        await asyncio.sleep(left)


async def _forever() -> None:
    await asyncio.get_running_loop().create_future()


def hang_up(request: web.BaseRequest, *, reset: bool) -> None:
    """Close the connection of a request, by RST or by FIN."""
    transport = request.transport
    if transport is None:
        return
    if not reset:
        # FIN, after what is in the buffer: the client sees all of it, and then an early end.
        transport.close()
        return
    # Options belong to the socket and not to its descriptor, so this works on a copy, whatever
    # the event loop hands out as the socket.
    own = transport.get_extra_info("socket")
    with socket.fromfd(own.fileno(), own.family, own.type) as copy:
        copy.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
    # Not `close()`, which would first send what is buffered.
    transport.abort()
