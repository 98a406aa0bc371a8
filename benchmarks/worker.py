"""The process of one rival: does the rounds it is asked for, one JSON line in, one out.

python -m benchmarks.worker RIVAL MODE LOOP CPU

Loads nothing but the standard library, the rival's module and the rounds, so that it runs in every
rival's environment and its memory is the rival's.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import json
import os
import sys
import traceback


def loop_factory(name: str):
    if name == "uvloop":
        import uvloop  # noqa: PLC0415 - not in every environment

        return uvloop.new_event_loop
    return asyncio.SelectorEventLoop


def main() -> None:
    rival, mode, loop, cpu = sys.argv[1:5]
    if int(cpu) >= 0:
        os.sched_setaffinity(0, {int(cpu)})
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no answer
    rounds = importlib.import_module("benchmarks.rounds")
    rounds.RIVAL = (importlib.import_module(f"benchmarks.rivals.{rival}"), mode)
    with asyncio.Runner(loop_factory=loop_factory(loop)) as runner:
        print("{}", file=answers, flush=True)
        for line in sys.stdin:
            order = json.loads(line)
            kind = order.pop("do")
            gc.collect()
            try:
                done = runner.run(rounds.run(kind, order))
            except Exception:  # noqa: BLE001 - told to the harness, which fails the run
                done = {"error": traceback.format_exc()}
            print(json.dumps(done), file=answers, flush=True)
        runner.run(rounds.close())


if __name__ == "__main__":
    main()
