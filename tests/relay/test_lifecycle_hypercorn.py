"""SIGTERM under hypercorn: drained with ``-w 0``, warned of in its worker processes."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import aiohttp
import pytest

from konko_async.testing import Answer, FaultServer

HERE = Path(__file__).parent
ANSWER = Answer.stream(["one", "two"])
MIDDLE = ANSWER.wire.index(b'"two"') - 120


@pytest.mark.parametrize(
    ("options", "drained"), [(["-w", "0"], True), (["--graceful-timeout", "1"], False)]
)
async def test_sigterm(options, drained):
    async with FaultServer(ANSWER.stall(MIDDLE)) as upstream, asyncio.timeout(60):
        env = {**os.environ, "UPSTREAM": upstream.base_url}
        server = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "hypercorn", "shutdown_hypercorn:app", "-b", "127.0.0.1:0", *options,
            cwd=HERE, env=env, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        said = b""
        while b"Running on http://" not in said:
            line = await server.stdout.readline()
            assert line, said
            said += line
        address = said.partition(b"Running on ")[2].split()[0].decode()
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{address}/chat") as response,
        ):
            await upstream.wait_for_stall()
            server.send_signal(signal.SIGTERM)
            try:
                body = await response.read()
            except aiohttp.ClientPayloadError:
                body = b""
        out, _ = await server.communicate()
        said += out
        assert (b"relay.shutdown" in body) == drained
        assert (b"run it with -w 0" in said) != drained
