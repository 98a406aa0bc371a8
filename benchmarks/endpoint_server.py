"""One server of ``bench_endpoints``: slots, a speed, and a cache of prompts' beginnings.

    python -m benchmarks.endpoint_server '{"port": 0, "capacity": 8, "latency": 0.2, "cache": 10}'

Prints its address, and serves until it is killed. An answer says ``hit`` or ``miss``: whether the
first message was among the latest that it read. With ``drawn`` answers are of 16 to 64 tokens.
"""

import asyncio
import json
import sys

from konko_async.testing import Emulator


async def serve(options: dict) -> None:
    """Serve as the options say."""
    size, known, drawn = options.pop("cache", 0), {}, options.pop("drawn", False)

    def answer(body: dict) -> list[str]:
        start = body["messages"][0]["content"]
        found = known.pop(start, False)
        known[start] = True
        if len(known) > max(size, 1):
            del known[next(iter(known))]
        return ["hit" if found else "miss", *[" word"] * 9]

    emulator = Emulator(
        answer=None if drawn else answer, overload="queue", log_limit=10, models=["m"], **options
    )
    async with emulator:
        print(emulator.base_url, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(json.loads(sys.argv[1])))
