"""The parent's side of the subprocess: start it, hear from it, be rid of it."""

import asyncio
import contextlib
import json
import os
import secrets
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from konko_async.errors import KonkoError
from konko_async.local._weights import make_private, remove_stale

_GRACE = 5.0  # seconds from SIGTERM to SIGKILL
_POLL = 0.02  # seconds between health checks
_TAIL_BYTES, _TAIL_LINES = 4096, 12
_LOG_AGE = 7 * 86400.0  # seconds after which a log that nobody removed is deleted
_HTTP_OK, _HTTP_UNAUTHORIZED = 200, 401


class LocalServerError(KonkoError):
    """The local model server did not start, or ended on its own; quotes the end of its log."""


class Child:
    """One subprocess, its pipes and its log."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self._process = process
        self._log = log

    @classmethod
    async def spawn(cls, log: Path) -> "Child":
        """Start the subprocess; it waits for its settings."""
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",  # no module from the current folder is taken for one of ours
                "-m",
                "konko_async.local._serve",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=descriptor,
                env=_environment(),
                start_new_session=True,  # Ctrl-C on the terminal is the parent's to handle
            )
        finally:
            os.close(descriptor)
        return cls(process, log)

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the process has not been seen to end."""
        return self._process.returncode is None

    async def exchange(self, settings: dict[str, Any]) -> str:
        """Send the settings and wait for the URL at which the server listens.

        Raises:
            LocalServerError: The subprocess ended, or said why it cannot serve.
        """
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is None or stdout is None:
            raise LocalServerError("the local model server was started without pipes")
        # A subprocess that is already dead shows in the missing answer, with a better reason.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            stdin.write(json.dumps(settings).encode() + b"\n")
            await stdin.drain()
        line = await stdout.readline()
        answer: dict[str, str] = json.loads(line) if line.endswith(b"\n") else {}
        if "url" in answer:
            return answer["url"]
        # Its end, first: the engine writes its log from a thread of its own.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_GRACE):
                await self._process.wait()
        if "error" in answer:
            reason = f"{answer['kind']}: {answer['error']}"
        else:
            reason = f"it ended with exit code {self._process.returncode}"
        raise LocalServerError(self.describe(f"the local model server did not start: {reason}"))

    async def ready(self, url: str) -> None:
        """Wait until the server answers over HTTP, and check that it asks for the key.

        Raises:
            LocalServerError: The subprocess ended, or it lets callers in without a key.
        """
        parts = urlsplit(url)
        host, port = parts.hostname or "127.0.0.1", parts.port or 0
        while await _status(host, port, "/health") != _HTTP_OK:
            if not self.alive:
                raise LocalServerError(self.describe("the local model server ended at its start"))
            await asyncio.sleep(_POLL)
        status = await _status(host, port, "/v1/models")
        if status != _HTTP_UNAUTHORIZED:
            raise LocalServerError(
                f"the local model server answered {status} to a call without a key, "
                "so it does not protect itself; it was stopped"
            )

    async def wait(self) -> int:
        """Wait until the process ends; return its exit code (negative: the signal)."""
        return await self._process.wait()

    async def stop(self) -> None:
        """End the process and wait until it is gone; cancelled meanwhile, kill it at once."""
        process = self._process
        try:
            # The life line is cut last: its end makes the subprocess drop dead, while SIGTERM
            # lets it delete a half-written file.
            if self.alive:
                _signal(process.terminate)
            try:
                async with asyncio.timeout(_GRACE):
                    await self._drain()
            except TimeoutError:
                _signal(process.kill)
                await self._drain()
        except asyncio.CancelledError:
            _signal(process.kill)
            raise

    async def _drain(self) -> None:
        """Wait for the end of the pipe and of the process, so that no transport stays open."""
        if self._process.stdout is not None:
            with contextlib.suppress(RuntimeError):  # `exchange` is waiting for it in another task
                await self._process.stdout.read()
        await self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()
            with contextlib.suppress(OSError):
                await self._process.stdin.wait_closed()

    def describe(self, message: str) -> str:
        """Add the end of the log to ``message``."""
        tail = _tail(self._log)
        return f"{message}\nThe end of its log ({self._log}):\n{tail}" if tail else message


def new_log(folder: Path) -> Path:
    """Return a path for the log of one more server, and clear away old ones."""
    make_private(folder)
    remove_stale(folder.glob("server-*.log"), _LOG_AGE)
    return folder / f"server-{os.getpid()}-{secrets.token_hex(4)}.log"


def _environment() -> dict[str, str]:
    # The child finds the same modules as we do, wherever ours came from; "" is the current folder.
    path = os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)
    # The engine's threads spin while they wait for each other. With another busy process on the
    # same cores (the client, for one) spinning makes it up to six times slower than sleeping.
    return {"OMP_WAIT_POLICY": "passive", **os.environ, "PYTHONPATH": path}


def _signal(send: Callable[[], None]) -> None:
    with contextlib.suppress(ProcessLookupError):
        send()


async def _status(host: str, port: int, path: str) -> int | None:
    """Return the HTTP status of one GET without a key, or None if nobody answers."""
    try:
        reader, writer = await asyncio.open_connection(host, port)
    except OSError:
        return None
    try:
        head = f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n"
        writer.write(head.encode("ascii"))
        line = await reader.readline()
        await reader.read()
        return int(line.split()[1])
    except (OSError, ValueError, IndexError):
        return None
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def _tail(log: Path) -> str:
    try:
        with log.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - _TAIL_BYTES))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    return "\n".join(lines[-_TAIL_LINES:])
