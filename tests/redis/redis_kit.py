"""A real Redis of Debian's, on a free loopback port, and processes that share its limits."""

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import time
from contextlib import contextmanager

import pytest
from ports import free_port

# Another binary, such as one of Valkey or of an older Redis.
SERVER = os.environ.get("KONKO_REDIS_SERVER") or shutil.which("redis-server")


class Server:
    """A server's process, which can be stopped, killed, and started again, empty, in its place."""

    def __init__(self, *options):
        self.options = options
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.process = None
        self.start()

    def start(self):
        assert self.process is None
        command = [
            SERVER, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "",
            "--appendonly", "no", "--loglevel", "warning",
            *self.options,
        ]  # fmt: skip
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        until = time.monotonic() + 60
        while True:
            try:
                with socket.create_connection(("127.0.0.1", self.port), 1) as connection:
                    connection.sendall(b"PING\r\n")
                    if connection.recv(16).startswith(b"+PONG"):
                        return
            except OSError:
                pass
            assert time.monotonic() < until, "the server does not start"
            time.sleep(0.01)

    def stop(self):
        """Let it keep its connections and answer nothing."""
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self):
        self.process.send_signal(signal.SIGCONT)

    def kill(self):
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


@contextmanager
def running_server(*options):
    if SERVER is None:
        pytest.skip("no redis-server: apt-get install redis-server")
    server = Server(*options)
    try:
        yield server
    finally:
        server.kill()


class Counted:
    """A store that counts how often it is asked."""

    def __init__(self, store):
        self.store = store
        self.turns = []

    async def exchange(self, lane, turn):
        self.turns.append(turn)
        return await self.store.exchange(lane, turn)

    async def close(self):
        await self.store.close()


def most_in(window, events):
    """The most that any stretch of `window` seconds holds: events are (time, amount)."""
    events = sorted(events)
    most = total = start = 0
    for at, amount in events:
        total += amount
        while events[start][0] <= at - window:
            total -= events[start][1]
            start += 1
        most = max(most, total)
    return most


async def until(condition, timeout=60.0):
    """Wait until something is so, looking at it on every turn of the loop's clock."""
    async with asyncio.timeout(timeout):
        while not condition():
            await asyncio.sleep(0.005)
