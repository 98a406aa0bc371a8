"""The processes of a run: the load server on one core, a worker per rival on the other."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from benchmarks.rivals.table import Rival
from benchmarks.scenes import Scene

ROOT = Path(__file__).parent.parent
PATIENCE = 120  # seconds; the longest round takes a fraction of it
SOURCE = Path(__file__).parent / "server" / "loadserver.c"


class Unfit(Exception):  # noqa: N818 - what it says
    """The run cannot go on."""


def cores() -> tuple[int, int]:
    """Return the client's core and the server's; the same one where there is only one."""
    free = sorted(os.sched_getaffinity(0))
    return free[0], free[-1]


class Server:
    """The load server, compiled and running; a context manager."""

    def __init__(self) -> None:
        self.client_core, self.core = cores()
        self._folder = Path(tempfile.mkdtemp(prefix="benchmark-"))
        self._process: subprocess.Popen[str] | None = None
        self.port = 0
        self.total: dict[str, float] = {}

    def __enter__(self) -> Self:
        compiler = shutil.which(os.environ.get("CC", "cc"))
        if compiler is None:
            raise Unfit(
                "the load server is written in C and there is no compiler (cc); on Debian: "
                "scripts/install-debian.sh bench"
            )
        program = self._folder / "loadserver"
        subprocess.run([compiler, "-O2", "-Wall", "-o", program, SOURCE], check=True)
        scripts = self._folder / "scripts"
        scripts.mkdir()
        self._process = subprocess.Popen(
            [program, scripts, "127.0.0.1"], stdout=subprocess.PIPE, text=True
        )
        os.sched_setaffinity(self._process.pid, {self.core})
        self.port = int(self._process.stdout.readline())
        return self

    def url(self, scene: Scene) -> str:
        """Return the base URL at which that scene is played."""
        path = self._folder / "scripts" / scene.name
        if not path.exists():
            scene.write_to(path.parent)
        return f"http://127.0.0.1:{self.port}/{scene.name}/v1"

    def usage(self) -> dict[str, float]:
        """Return what the server did since it was last asked."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/_usage") as answer:
            return json.load(answer)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            said, _ = self._process.communicate(timeout=10)
            with contextlib.suppress(ValueError):
                self.total = json.loads(said)
        shutil.rmtree(self._folder, ignore_errors=True)


class Worker:
    """A rival's process, which does one round after the other."""

    def __init__(self, rival: Rival, loop: str, core: int) -> None:
        self.rival, self.loop = rival, loop
        self._process = subprocess.Popen(
            [
                rival.python(), "-m", "benchmarks.worker",
                rival.module, rival.mode, loop, str(core),
            ],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._hear()

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    def _hear(self) -> dict[str, Any]:
        if not select.select([self._process.stdout], [], [], PATIENCE)[0]:
            raise Unfit(f"{self.rival.name} ({self.loop}) said nothing for {PATIENCE} s")
        line = self._process.stdout.readline()
        if not line:
            raise Unfit(f"the process of {self.rival.name} ended: {self._process.wait()}")
        answer = json.loads(line)
        if "error" in answer:
            raise Unfit(f"{self.rival.name}: {answer['error']}")
        return answer

    def do(self, kind: str, server: Server, scene: Scene, **order: Any) -> dict[str, Any]:
        """Do one round and return its figures, with what the server used meanwhile."""
        server.usage()
        order |= {"do": kind, "base_url": server.url(scene), "expect": expectation(scene)}
        print(json.dumps(order), file=self._process.stdin, flush=True)
        return self._hear() | {"server": server.usage()}

    def close(self) -> None:
        """End the process."""
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.stdout.close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def expectation(scene: Scene) -> dict[str, Any]:
    """Return what each answer must be, for :func:`benchmarks.rounds.check`.

    Typed readers see every chunk, those of text only the ones with a text.
    """
    found = dataclasses.asdict(scene.expected())
    return found | {"counts": [found["chunks"], found["chunks"] - 2]}
