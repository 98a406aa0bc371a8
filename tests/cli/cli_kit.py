"""Runs `konko-async` as a user does: a process of its own, on pipes or on a terminal."""

import asyncio
import contextlib
import fcntl
import os
import pty
import re
import struct
import termios
import threading
from dataclasses import dataclass
from pathlib import Path

from command_server import COMMAND, TAKE_TERMINAL, settings

from konko_async.testing import Emulator

KEY = "canary-5ca1ab1e-0ddba11"  # of every test; must appear in no output
CHAT_MODEL = "codellama/codellama-13b-instruct"
_PATIENCE = 60.0
_ESCAPES = re.compile(r"\x1b\[[0-9;?>=]*[a-zA-Z]|\x1b[=>]|\x1b\][^\x07]*\x07")


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str


def environment(emulator=None, home=None, **more):
    """The environment of a command: nothing of the person who runs the tests but the path."""
    names = ["PATH", "HOME", "XDG_CACHE_HOME", "VIRTUAL_ENV", "COVERAGE_PROCESS_CONFIG"]
    env = {name: os.environ[name] for name in names if name in os.environ}
    env |= {**settings(), "TERM": "xterm-256color"}
    env |= {"KONKO_LOG": "0"}  # the first time, a terminal is told that conversations are kept
    # Where the local model's weights are put together once, and nothing else is kept.
    cached = {"XDG_CACHE_HOME": str(Path.home() / ".cache")}
    env = cached | env
    if home is not None:
        env |= {"HOME": str(home), "XDG_STATE_HOME": str(home / "state")}
        env |= {"XDG_DATA_HOME": str(home / "data"), "XDG_CONFIG_HOME": str(home / "config")}
    if emulator is not None:
        env |= {"KONKO_BASE_URL": emulator.base_url, "KONKO_API_KEY": KEY}
    return {**env, **more}


class Command:
    """A running command on pipes; `seen` grows while `wait_for` reads."""

    def __init__(self, process):
        self.process = process
        self.seen = ""

    async def wait_for(self, text):
        """Read standard output until `text` has come."""
        async with asyncio.timeout(_PATIENCE):
            while text not in self.seen:
                data = await self.process.stdout.read(4096)
                assert data, f"the command ended; it had written {self.seen!r}"
                self.seen += data.decode()
        return self.seen

    def signal(self, number):
        self.process.send_signal(number)

    async def finish(self, stdin=None, patience=_PATIENCE):
        async with asyncio.timeout(patience):
            out, err = await self.process.communicate(stdin)
        return Result(self.process.returncode, self.seen + out.decode(), (err or b"").decode())


@contextlib.asynccontextmanager
async def command(*arguments, env, executable=COMMAND, cwd=None, stderr=asyncio.subprocess.PIPE):
    process = await asyncio.create_subprocess_exec(
        *executable,
        *arguments,
        env=env,
        cwd=cwd,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=stderr,
    )
    running = Command(process)
    try:
        yield running
    finally:
        if process.returncode is None:
            process.kill()
            await running.finish()


async def run(*arguments, env, stdin=b"", executable=COMMAND, cwd=None, patience=_PATIENCE):
    """Run a command to its end."""
    async with command(*arguments, env=env, executable=executable, cwd=cwd) as running:
        return await running.finish(stdin, patience)


class Terminal:
    """A running command on a pseudo-terminal."""

    def __init__(self, process, master):
        self.process = process
        self.seen = ""
        self._master = master
        self._mark = 0

    def type(self, text):
        os.write(self._master, text.encode())

    async def wait_for(self, text):
        """Wait until `text` has come since the last wait; returns what came, without escapes."""
        async with asyncio.timeout(_PATIENCE):
            while (found := self._plain().find(text, self._mark)) < 0:
                assert await self._read(), f"the command ended; it had written {self.seen!r}"
        plain = self._plain()[self._mark : found + len(text)]
        self._mark = found + len(text)
        return plain

    async def finish(self):
        """Wait for the end; returns the exit code."""
        async with asyncio.timeout(_PATIENCE):
            while await self._read():
                pass
            return await self.process.wait()

    def _plain(self):
        return _ESCAPES.sub("", self.seen).replace("\r", "")

    async def _read(self):
        loop = asyncio.get_running_loop()
        ready = loop.create_future()
        loop.add_reader(self._master, lambda: ready.done() or ready.set_result(None))
        try:
            await ready
        finally:
            loop.remove_reader(self._master)
        try:
            data = os.read(self._master, 65536)
        except OSError:  # Linux's word for: the last writer has closed it
            return False
        self.seen += data.decode(errors="replace")
        self.heard(data)
        return bool(data)

    def heard(self, data):
        if b"\x1b[6n" in data:  # where is the cursor? prompt_toolkit waits for an answer
            os.write(self._master, b"\x1b[1;1R")


@contextlib.asynccontextmanager
async def terminal(*arguments, env, width=100, height=24, make=Terminal, executable=COMMAND):
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))
    try:
        process = await asyncio.create_subprocess_exec(
            *(*TAKE_TERMINAL, *executable, *arguments),
            env=env,
            stdin=slave,
            stdout=slave,
            stderr=slave,
        )
    finally:
        os.close(slave)
    running = make(process, master)
    try:
        yield running
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        os.close(master)


def chats(emulator):
    """The requests but for those for the model list, which a conversation asks for, too."""
    return [request for request in emulator.requests if "/chat/" in request.path]


def join_waiters():
    """Python 3.11 waits for each process in a thread, which ends a moment after the process."""
    for thread in threading.enumerate():
        if "waitpid" in thread.name:
            thread.join(60)


@contextlib.contextmanager
def emulator_in_a_thread(**options):
    """An emulator beside a test that is not async itself."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    def run(work):
        return asyncio.run_coroutine_threadsafe(work, loop).result(_PATIENCE)

    try:
        running = Emulator(**options)
        run(running.start())
        try:
            yield running
        finally:
            run(running.close())
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(_PATIENCE)
        loop.close()
