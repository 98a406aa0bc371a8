"""Start the whole deployment on this machine: Redis, workers, nginx, Prometheus.

    apt-get install redis-server nginx-light prometheus
    pip install 'konko-async[redis,starlette,prometheus,speed]' fastapi uvicorn
    python up.py                    # with KONKO_API_KEY and KONKO_BASE_URL, until Ctrl-C
    python up.py --load 500         # with a made-up model: load, kill a worker, print figures

Everything listens on loopback, and lives in a folder that is removed in the end. A worker that
dies is started again, as systemd or Docker would do it.
"""

import argparse
import asyncio
import contextlib
import os
import secrets
import shutil
import signal
import socket
import sys
import tempfile
from pathlib import Path

import aiohttp
from load import run_load

HERE = Path(__file__).parent
PATIENCE = 60.0  # seconds until everything answers
USERS = 100


def free_port() -> int:
    """Return a port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Deployment:
    """The processes, and where they listen."""

    def __init__(self, folder: Path, workers: int, environment: dict[str, str]) -> None:
        self.folder, self.environment = folder, environment
        self.redis, self.nginx, self.prometheus = free_port(), free_port(), free_port()
        self.ports = [free_port() for _ in range(workers)]
        self.workers: dict[int, asyncio.subprocess.Process] = {}
        self.restarts = 0
        self._log = (folder / "log").open("wb")  # of Redis, nginx and Prometheus
        self._others: list[asyncio.subprocess.Process] = []
        self._keepers: list[asyncio.Task[None]] = []

    @property
    def url(self) -> str:
        """Where browsers reach it."""
        return f"http://127.0.0.1:{self.nginx}"

    async def start(self) -> None:
        """Start everything, and wait until it answers."""
        await self._spawn(
            program("redis-server"), "--port", str(self.redis), "--bind", "127.0.0.1", "--save", "",
            "--maxmemory", "256mb", "--maxmemory-policy", "noeviction", "--maxclients", "10000",
            "--loglevel", "warning",
        )  # fmt: skip
        self._keepers = [asyncio.create_task(self._keep(port)) for port in self.ports]
        await self._spawn(program("nginx"), "-g", "daemon off;", "-c", str(self._nginx_conf()))
        await self._spawn(
            program("prometheus"), f"--config.file={self._prometheus_conf()}",
            f"--web.listen-address=127.0.0.1:{self.prometheus}",
            f"--storage.tsdb.path={self.folder / 'prometheus'}", "--log.level=error",
        )  # fmt: skip
        await self.ready()

    async def ready(self) -> None:
        """Wait until everything answers, also workers that were started again."""
        async with aiohttp.ClientSession() as session, asyncio.timeout(PATIENCE):
            for port in (*self.ports, self.nginx):
                await answers(session, f"http://127.0.0.1:{port}/readyz")
            await answers(session, f"http://127.0.0.1:{self.prometheus}/-/ready")

    async def stop(self) -> None:
        """End everything in order: the workers drain first."""
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        for process in [*self.workers.values(), *reversed(self._others)]:
            if process.returncode is None:
                process.terminate()
                await process.wait()
        self._log.close()

    async def _spawn(self, *command: str) -> asyncio.subprocess.Process:
        # A session of its own: Ctrl-C is for this script, which ends them in order.
        log = self._log.fileno()
        process = await asyncio.create_subprocess_exec(
            *command, stdout=log, stderr=log, start_new_session=True
        )
        self._others.append(process)
        return process

    async def _keep(self, port: int) -> None:
        """Run a worker, and start it again whenever it ends."""
        command = (sys.executable, "-m", "uvicorn", "app:app", "--app-dir", str(HERE))
        options = ("--port", str(port), "--log-level", "warning", "--no-access-log")
        while True:
            process = await asyncio.create_subprocess_exec(
                *command, *options, env=self.environment | {"REDIS_URL": self._redis_url()},
                start_new_session=True,
            )  # fmt: skip
            self.workers[port] = process
            await process.wait()
            self.restarts += 1
            await asyncio.sleep(1)  # not in a circle, if it cannot start

    def _redis_url(self) -> str:
        return f"redis://127.0.0.1:{self.redis}/0"

    def _nginx_conf(self) -> Path:
        servers = [f"server 127.0.0.1:{port} max_fails=1 fail_timeout=2s;" for port in self.ports]
        return self._filled(
            "nginx.conf",
            folder=str(self.folder),
            listen=f"127.0.0.1:{self.nginx}",
            workers="\n        ".join(servers),
        )

    def _prometheus_conf(self) -> Path:
        targets = ", ".join(f'"127.0.0.1:{port}"' for port in self.ports)
        return self._filled("prometheus.yml", targets=targets)

    def _filled(self, name: str, **values: str) -> Path:
        text = (HERE / name).read_text()
        for key, value in values.items():
            text = text.replace(f"@{key}@", value)
        path = self.folder / name
        path.write_text(text)
        return path


def program(name: str) -> str:
    """Return where a program of Debian's is."""
    # Debian keeps nginx in /usr/sbin, which is not on everybody's path.
    found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin")
    if found is None:
        raise SystemExit(f"{name} is missing: apt-get install redis-server nginx-light prometheus")
    return found


async def answers(session: aiohttp.ClientSession, url: str) -> None:
    """Wait until an address answers with 200."""
    while True:
        with contextlib.suppress(aiohttp.ClientError):
            async with session.get(url) as response:
                if response.ok:
                    return
        await asyncio.sleep(0.1)


async def upstream(stack: contextlib.AsyncExitStack) -> dict[str, str]:
    """Start a server that makes answers up, in a process of its own."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(HERE / "load.py"), "upstream", stdout=asyncio.subprocess.PIPE
    )
    stack.callback(process.terminate)
    if process.stdout is None:
        raise RuntimeError("there is a pipe")
    url = (await process.stdout.readline()).decode().strip()
    return {"KONKO_BASE_URL": url, "KONKO_API_KEY": "made-up", "MODELS": "made-up"}


async def main(streams: int, workers: int) -> int:
    """Run the deployment until Ctrl-C, or for as long as the load takes."""
    tokens = [secrets.token_urlsafe(16) for _ in range(USERS)]
    environment = {**os.environ}
    ended = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    async with contextlib.AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="konko-deployment-"))
        if streams:
            environment |= await upstream(stack)
        if streams or not environment.get("APP_TOKENS"):
            environment["APP_TOKENS"] = ",".join(
                f"{token}:user{number}" for number, token in enumerate(tokens)
            )
        deployment = Deployment(Path(folder), workers, environment)
        stack.push_async_callback(deployment.stop)
        await deployment.start()
        if streams:
            return await run_load(deployment, tokens, streams)
        print(f"chat:       {deployment.url}/v1/chat/completions")
        print(f"a token:    {environment['APP_TOKENS'].partition(':')[0]}")
        print(f"Prometheus: http://127.0.0.1:{deployment.prometheus}")
        await ended.wait()
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--load", type=int, default=0, metavar="N", help="streams at the same time")
    given = parser.parse_args()
    sys.exit(asyncio.run(main(given.load, given.workers)))
