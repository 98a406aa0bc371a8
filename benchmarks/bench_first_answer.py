"""Where the time of the terminal's first answer goes; every sample is a fresh process.

    python -m benchmarks.bench_first_answer [--rounds 20] [--local]

``konko-async chat "Hello"`` is started with its output on a pipe. The steps, in milliseconds, are
medians with their quartiles: until Python runs the command's module, until the request has reached
the server, until the first byte of the answer stands in the output, and until the process has
ended. The emulator answers without delay, so that what is left is ours. ``--local`` asks the real
model on this machine instead, started anew each time, as the first command of a newcomer does.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import time

from konko_async.testing import Emulator

MODEL = "codellama/codellama-13b-instruct"
STEPS = ("python starts", "request at the server", "first byte of the answer", "process ended")
# Prints the clock when the package begins to be imported, then does as `python -m konko_async`.
PROGRAM = (
    "import sys, time; sys.stderr.write(f'{time.monotonic()}\\n'); sys.stderr.flush(); "
    "from konko_async.cli import main; sys.exit(main())"
)


async def answer(arguments: list[str], environment: dict[str, str]) -> tuple[float, ...]:
    """Ask once.

    Returns:
        The times at which the process was started, its program began, the first byte came, and it
        ended; of the monotonic clock, in seconds.
    """
    began = time.monotonic()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, *arguments,
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE, env=environment,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stderr is not None
    ran = float(await process.stderr.readline())
    said = asyncio.ensure_future(process.stderr.read())  # so that it is never full
    first = await process.stdout.read(1)
    arrived = time.monotonic()
    rest = await process.stdout.read()
    code = await process.wait()
    ended = time.monotonic()
    if code or not (first + rest).strip():
        raise SystemExit(f"no answer: {(await said).decode()}")
    await said
    return began, ran, arrived, ended


async def with_emulator(rounds: int) -> dict[str, list[float]]:
    """Measure the steps with the emulator on loopback."""
    found: dict[str, list[float]] = {step: [] for step in STEPS}
    async with Emulator() as emulator:
        environment = os.environ | {"KONKO_API_KEY": "any", "KONKO_BASE_URL": emulator.base_url}
        for _ in range(rounds):
            began, ran, arrived, ended = await answer(
                ["chat", "--model", MODEL, "Hello"], environment
            )
            asked = emulator.requests[-1].started
            moments = (began, ran, asked, arrived, ended)
            for step, before, after in zip(STEPS, moments[:-1], moments[1:], strict=True):
                found[step].append(after - before)
    return found


async def with_local_model(rounds: int) -> dict[str, list[float]]:
    """Measure with the real model; its server is a process of its own, whose log is not read."""
    found: dict[str, list[float]] = {step: [] for step in (STEPS[0], *STEPS[2:])}
    for _ in range(rounds):
        moments = await answer(["chat", "--local", "Say hello."], dict(os.environ))
        for step, before, after in zip(found, moments[:-1], moments[1:], strict=True):
            found[step].append(after - before)
    return found


def main() -> None:
    """Measure, and print a line for each step."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--local", action="store_true")
    told = parser.parse_args()
    measured = asyncio.run(
        with_local_model(told.rounds) if told.local else with_emulator(told.rounds)
    )
    for step, seconds in measured.items():
        low, middle, high = (part * 1e3 for part in statistics.quantiles(seconds, n=4))
        print(f"{step:28} {middle:8.1f} ms   ({low:.1f} to {high:.1f})")
    total = statistics.median(map(sum, zip(*measured.values(), strict=True)))
    print(f"{'in all':28} {total * 1e3:8.1f} ms")


if __name__ == "__main__":
    main()
