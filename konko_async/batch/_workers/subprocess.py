"""Workers that are processes of this machine, each at the end of a socket pair."""

from __future__ import annotations

import asyncio
import os
import pickle
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from konko_async import ConfigurationError
from konko_async.batch._errors import BatchError
from konko_async.batch._workers.protocol import Message

__all__ = ["Pipe", "Processes"]

_SIZE: Final = 8  # bytes of a frame's length
# Seconds in which a process may end by itself; then it is killed.
_PATIENCE: Final = 5.0


class Pipe(asyncio.Protocol):
    """Messages in frames: what is sent in one iteration of the loop goes out as one.

    Args:
        heard: called with messages.
        ended: called when the other side is gone.
    """

    def __init__(self, heard: Callable[[list[Message]], None], ended: Callable[[], object]) -> None:
        self._heard = heard
        self._ended = ended
        self._out: list[Message] = []
        self._in = bytearray()
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self.closed = self._loop.create_future()

    def connection_made(self, transport: Any) -> None:
        """Keep the transport; called by the loop."""
        self._transport = transport

    def send(self, message: Message) -> None:
        """Send a message with the others of this iteration."""
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(message)

    def _flush(self) -> None:
        messages, self._out = self._out, []
        if self._transport is not None and not self._transport.is_closing():
            data = pickle.dumps(messages, pickle.HIGHEST_PROTOCOL)
            self._transport.write(len(data).to_bytes(_SIZE, "big") + data)

    def data_received(self, data: bytes) -> None:
        """Take in frames; both ends are ours, so that a pickle may be trusted."""
        buffer = self._in
        buffer += data
        place = 0
        while len(buffer) - place >= _SIZE:
            size = int.from_bytes(buffer[place : place + _SIZE], "big")
            if len(buffer) - place - _SIZE < size:
                break
            place += _SIZE
            # Released before the buffer is cut: a bytearray with
            # a view on it cannot change its size.
            with memoryview(buffer) as view:
                messages = pickle.loads(view[place : place + size])  # noqa: S301 - both ends of the pipe are ours
            place += size
            self._heard(messages)
        del buffer[:place]

    def connection_lost(self, _error: Exception | None) -> None:
        """Report that the other side is gone; called by the loop."""
        self._transport = None
        if not self.closed.done():
            self.closed.set_result(None)
        self._ended()

    def close(self) -> None:
        """Hang up; what was not sent is dropped."""
        if self._transport is not None:
            # Not close(), which would first wait for a worker that may not read any more.
            self._transport.abort()


class _ProcessLink:
    """The link to one worker process."""

    def __init__(self, process: asyncio.subprocess.Process, lost: Callable[[str], None]) -> None:
        self._process = process
        self._lost = lost
        self._reaper: asyncio.Task[None] | None = None
        self.pipe: Pipe | None = None

    @property
    def pid(self) -> int:
        """The process id of the worker."""
        return self._process.pid

    def send(self, message: Message) -> None:
        """Send a message."""
        if self.pipe is not None:
            self.pipe.send(message)

    def ended(self) -> None:
        """Its end of the pair is closed: it is dead, or about to be."""
        self._reaper = asyncio.get_running_loop().create_task(self._reap())

    async def _reap(self) -> None:
        code = await self._wait()
        self._lost(f"signal {-code}" if code < 0 else f"exit code {code}")

    async def _wait(self) -> int:
        try:
            async with asyncio.timeout(_PATIENCE):
                return await self._process.wait()
        except TimeoutError:
            self._process.kill()
            return await self._process.wait()

    async def close(self) -> None:
        """Hang up, and wait for the end of the process, which is at once."""
        if self.pipe is not None:
            self.pipe.close()
            await self.pipe.closed
        await self._wait()
        # The reaper calls ``lost``, which may close this link: it cannot wait for itself.
        if self._reaper is not None and self._reaper is not asyncio.current_task():
            await asyncio.wait([self._reaper])


class Processes:
    """Worker processes on this machine: the calls are made there, all else stays here.

    They are started anew (no fork) when a run begins and end with it; one that is killed is
    replaced, and the rows that it had are given to others. If this process dies, they end at once.

    Args:
        count: how many.

    Raises:
        ConfigurationError: not a number of at least 1, or the system is Windows.
    """

    def __init__(self, count: int) -> None:
        if type(count) is not int or count < 1:
            raise ConfigurationError(
                f"Processes: count must be an integer of at least 1, not {count!r}"
            )
        if sys.platform == "win32":
            raise ConfigurationError("worker processes need a POSIX system")
        self.count = count

    async def start(
        self, heard: Callable[[list[Message]], None], lost: Callable[[str], None]
    ) -> _ProcessLink:
        """Start a process; see :class:`Workers`."""
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        try:
            # Closed on this side once the child has it: its death is
            # noticed as the end of the connection.
            with theirs:
                process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    # Keeps the current folder out of the path, unless _environment() puts it there.
                    "-P",
                    "-m",
                    "konko_async.batch._workers",
                    type(loop).__module__,
                    stdin=theirs.fileno(),
                    env=_environment(),
                    start_new_session=True,  # Ctrl-C on the terminal is this process's to handle
                )
        except OSError as error:
            ours.close()
            raise BatchError(f"a worker process cannot be started: {error.strerror}") from None
        link = _ProcessLink(process, lost)
        _, link.pipe = await loop.create_unix_connection(lambda: Pipe(heard, link.ended), sock=ours)
        return link


def _environment() -> dict[str, str]:
    # It finds the same modules as we do, wherever ours came from; "" is the current folder.
    path = os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)
    return {**os.environ, "PYTHONPATH": path}
