"""Streams of llama.cpp that are cut by ``kill -9`` at random places: each is one text all the same.

Two servers of the tiny model, which knows its answers by heart, serve a client that resumes. While
a stream is read, its server is killed, and another is started in its place.

    python tests/soak/resumestorm.py --cuts 200 --seed 1
"""

import argparse
import asyncio
import os
import random
import signal
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path

FOREIGN = Path(__file__).parents[1] / "foreign"
sys.path.insert(0, str(FOREIGN))
from dialogues import ANSWERS  # noqa: E402 - found by the line above

from konko_async import AsyncKonko, Endpoint  # noqa: E402 - after the path
from konko_async.local import LocalServer  # noqa: E402 - after the path

MODEL = FOREIGN / "tiny.gguf"
# Thoughts are a field of their own, which cannot be continued.
QUESTIONS = ("count", "unicode", "lines", "hello")


class Fleet:
    """Servers that are killed and started anew."""

    def __init__(self, folder):
        self.folder, self.servers, self.count = folder, {}, 0

    async def start(self, client=None):
        self.count += 1
        server = LocalServer(
            model_path=MODEL, n_parallel=2, n_ctx=2048, n_threads=1,
            log_path=self.folder / f"log{self.count}",
        )  # fmt: skip
        await server.__aenter__()
        name = f"llama{self.count}"
        self.servers[name] = server
        endpoint = Endpoint(server.base_url, server.api_key, name=name)
        if client is not None:
            client.endpoints.add(endpoint)
        return endpoint

    async def replace(self, client, name):
        server = self.servers.pop(name)
        await self.start(client)
        await client.endpoints.remove(name, patience=5)
        await server.__aexit__(None, None, None)

    async def close(self):
        for server in self.servers.values():
            await server.__aexit__(None, None, None)


async def one_stream(fleet, client, rng):
    """Read one answer and kill its server meanwhile; return how often it was resumed."""
    question = rng.choice(QUESTIONS)
    stream = client.chat.completions.stream(
        model=MODEL.stem, messages=[{"role": "user", "content": question}],
        temperature=0, max_tokens=500, resume="prefill",
    )  # fmt: skip
    async with stream:
        texts, text, killed = stream.text(), "", None
        after = rng.randrange(60 if question == "count" else 8)
        pieces = 0
        async for piece in texts:
            text += piece
            pieces += 1
            if pieces > after and killed is None:
                killed = stream.attempts[-1].endpoint
                os.kill(fleet.servers[killed].pid, signal.SIGKILL)
        resumed, whole = stream.resumed, await stream.completion()
    assert text == ANSWERS[question], (question, after, text, ANSWERS[question])
    assert whole.choices[0].message.content == text
    assert whole.choices[0].finish_reason == "stop"
    if killed is not None:
        await fleet.replace(client, killed)
    return resumed


async def storm(cuts, seed):
    """Cut streams until so many cuts were survived; return what there is to say."""
    rng, began, streams, survived = random.Random(seed), time.monotonic(), 0, 0
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        fleet = Fleet(folder)
        stack.push_async_callback(fleet.close)
        endpoints = [await fleet.start(), await fleet.start()]
        client = await stack.enter_async_context(AsyncKonko(endpoints=endpoints))
        while survived < cuts:
            survived += await one_stream(fleet, client, rng)
            streams += 1
    return {"cuts": survived, "streams": streams, "seconds": round(time.monotonic() - began, 1)}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cuts", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    found = asyncio.run(storm(options.cuts, options.seed))
    sys.stdout.write(
        f"{found['cuts']} cuts by kill -9 in {found['streams']} streams of llama.cpp survived, each "
        f"text equal to the uncut one, in {found['seconds']} s\n"
    )


if __name__ == "__main__":
    main()
