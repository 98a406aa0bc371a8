"""One client of many servers, for ``bench_endpoints --rivals``: ours, litellm's or vllm-router.

    python -m benchmarks.endpoint_rivals "litellm least-busy" URL...

Keeps 125 calls in flight for 35 s; the servers are stalled and killed from outside. Prints a line
when it has begun, and a line of figures.
"""

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

ASK = [{"role": "user", "content": "hello"}]
WIDTH, SECONDS, KILLED = 125, 35.0, 20.0


async def ours(urls):
    """Ask by our client."""
    from konko_async import AsyncKonko, Endpoint  # noqa: PLC0415 - one rival per process

    client = AsyncKonko(endpoints=[Endpoint(url, "key") for url in urls])
    return lambda: client.chat.completions.create(model="m", messages=ASK), client.close, None


async def litellm(urls, strategy):
    """Ask by litellm.Router."""
    from litellm import Router  # noqa: PLC0415 - one rival per process

    router = Router(
        model_list=[
            {"model_name": "m", "litellm_params": {
                "model": "openai/m", "api_base": url, "api_key": "key"}}
            for url in urls
        ],
        routing_strategy=strategy, num_retries=3, allowed_fails=3, cooldown_time=5,
    )  # fmt: skip

    async def close():
        pass

    return lambda: router.acompletion(model="m", messages=ASK), close, None


async def vllm(urls):
    """Ask by our client of one server, which is vllm-router."""
    from konko_async import AsyncKonko  # noqa: PLC0415 - one rival per process

    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    router = subprocess.Popen(  # noqa: ASYNC220 - before anything is measured
        [Path(sys.executable).parent / "vllm-router", "--host", "127.0.0.1",
         "--port", str(port), "--policy", "power_of_two", "--worker-urls",
         *[url.removesuffix("/v1") for url in urls]],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    client = AsyncKonko("key", f"http://127.0.0.1:{port}/v1", circuit_breaker=None)
    for _ in range(300):
        try:
            await client.with_options(retry=None).models.list()
            break
        except Exception:  # noqa: BLE001 - it has not begun
            await asyncio.sleep(0.1)

    async def close():
        await client.close()
        router.terminate()

    return lambda: client.chat.completions.create(model="m", messages=ASK), close, router.pid


def cpu_of(pid):
    """Return the CPU seconds of this process, and of another."""
    own = time.process_time()
    if pid is None:
        return own
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return own + (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def main():
    """Ask, and print what came of it."""
    name, *urls = sys.argv[1:]
    if name == "ours":
        ask, close, pid = await ours(urls)
    elif name == "vllm-router":
        ask, close, pid = await vllm(urls)
    else:
        strategies = {"least-busy": "least-busy", "latency": "latency-based-routing"}
        ask, close, pid = await litellm(urls, strategies[name.split()[1]])
    print("begun", flush=True)
    loop = asyncio.get_running_loop()
    began, cpu, done, failed = loop.time(), cpu_of(pid), [], 0

    async def work():
        nonlocal failed
        while loop.time() < began + SECONDS:
            start = loop.time()
            try:
                await ask()
            except Exception:  # noqa: BLE001 - counted
                failed += 1
                await asyncio.sleep(0.01)
            else:
                done.append((loop.time() - began, loop.time() - start))

    await asyncio.gather(*(work() for _ in range(WIDTH)))
    spent = cpu_of(pid) - cpu
    await close()
    before = sorted(duration for at, duration in done if 8 <= at < KILLED)
    figures = {
        "calls a second before": len(before) / (KILLED - 8),
        "p99 before": before[int(len(before) * 0.99)],
        "calls a second after": sum(at >= KILLED + 2 for at, _ in done) / (SECONDS - KILLED - 2),
        "failed calls": failed,
        "CPU per call": spent / len(done) * 1e3,
    }
    print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
