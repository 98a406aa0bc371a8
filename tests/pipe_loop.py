"""An event loop on which connections are pipes in memory, and time jumps when nothing is to do.

The client, aiohttp's connector and parsers, and the servers of `konko_async.testing` run on it as
they are. What they do takes no time, and happens in the same order in every run: times can be
compared with `==`, and what is counted is counted the same twice.
"""

import asyncio
import errno
import functools

from konko_async.testing import TimeJumpingLoop


class PipeLoop(TimeJumpingLoop):
    """Serves and connects within itself; no socket is ever watched."""

    def __init__(self):
        super().__init__()
        self._servers = {}
        self._addresses = {}

    async def create_server(self, protocol_factory, _host=None, port=None, **_options):
        port = port or 50000 + len(self._servers)
        server = self._servers[port] = _Server(self._servers, port, protocol_factory)
        return server

    async def sock_connect(self, sock, address):
        if address[1] not in self._servers:
            raise ConnectionRefusedError(errno.ECONNREFUSED, "no such pipe")
        self._addresses[sock] = address[1]

    async def create_connection(self, protocol_factory, *, sock, **_options):
        server = self._servers[self._addresses.pop(sock)]
        sock.close()
        here, there = _Pipe(self, protocol_factory()), _Pipe(self, server.factory())
        here.other, there.other = there, here
        there.protocol.connection_made(there)
        here.protocol.connection_made(here)
        return here, here.protocol


def run_on_pipes(coro):
    """Run a coroutine on a loop of its own, with pipes and jumping time."""
    with asyncio.Runner(loop_factory=PipeLoop) as runner:
        return runner.run(coro)


def on_pipes(test):
    """Run an async test on a loop of its own, with pipes and jumping time."""

    @functools.wraps(test)
    def run(*args, **kwargs):
        run_on_pipes(test(*args, **kwargs))

    return run


class _Server:
    """What `create_server` returns."""

    def __init__(self, servers, port, factory):
        self._servers, self._port, self.factory = servers, port, factory
        self.sockets = [self]

    def getsockname(self):
        return "127.0.0.1", self._port

    def close(self):
        self._servers.pop(self._port, None)

    async def wait_closed(self):
        """Nothing is left to wait for."""


class _Pipe(asyncio.Transport):
    """One end; what is written arrives at the other in the next turn of the loop."""

    def __init__(self, loop, protocol):
        super().__init__({"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 2)})
        self.protocol, self.other = protocol, None
        self._loop, self._closing, self._paused = loop, False, False
        self._waiting = []

    def _arrive(self, data):
        if self._paused:
            self._waiting.append(data)
        elif data is None:
            self._lose(None)
        elif not self._closing:
            self.protocol.data_received(data)

    def _lose(self, error):
        if not self._closing:
            self._closing = True
            self._loop.call_soon(self.protocol.connection_lost, error)

    def write(self, data):
        if data and not self._closing:
            self._loop.call_soon(self.other._arrive, bytes(data))

    def writelines(self, parts):
        self.write(b"".join(parts))

    def pause_reading(self):
        self._paused = True

    def resume_reading(self):
        self._paused = False
        waiting, self._waiting = self._waiting, []
        for data in waiting:
            self._loop.call_soon(self._arrive, data)

    def close(self):
        if not self._closing:
            self._loop.call_soon(self.other._arrive, None)
            self._lose(None)

    def abort(self):
        if not self._closing:
            self._loop.call_soon(self.other._lose, ConnectionResetError(errno.ECONNRESET, "reset"))
            self._lose(None)

    def is_closing(self):
        return self._closing

    def is_reading(self):
        return not self._paused

    def set_protocol(self, protocol):
        self.protocol = protocol

    def get_protocol(self):
        return self.protocol

    def get_write_buffer_size(self):
        return 0

    def set_write_buffer_limits(self, high=None, low=None):
        """Nothing is ever held back."""

    def can_write_eof(self):
        return False
