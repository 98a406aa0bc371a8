"""``chat_completions`` on Ray Data beside Ray's own HttpRequestProcessorConfig.

    python -m benchmarks.bench_ray [--rows 1024] [--json FILE]

The same emulator (in this process), the same cluster of two CPUs on loopback, two actors each. Four
servers: one that answers after 50 ms; one that enforces a strict sliding window (both clients are
which know the limit); the same limit, whose number neither knows; and one that rejects every
twentieth call with a 400. Rows per second count from the first call to the last, without the start
of Ray; a row is without an answer if the result does not hold it, and told as an error if it holds
one instead.
"""

# ruff: noqa: PLC0415 - each process imports what it needs
import os

os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import argparse
import asyncio
import functools
import json
import sys
import tempfile
import time
from pathlib import Path

MODEL = "codellama/codellama-13b-instruct"
LIMIT = 100  # calls in any second
ACTORS = 2


def ours(args, rows):
    from konko_async import AsyncKonko, RateLimit
    from konko_async.integrations.ray import chat_completions

    limits = {
        "limit": RateLimit(requests_per_minute=LIMIT, window=1.0),
        "untold": RateLimit(window=1.0),  # what a server says counts per minute by default
    }
    out = chat_completions(
        rows, model=MODEL, prompt="{text}", params={"max_tokens": 16}, actors=ACTORS,
        client=functools.partial(AsyncKonko, "any", args.base_url),
        rate_limit=limits.get(args.case), rows_per_block=256, key_column="id",
    )  # fmt: skip
    return [(row["id"], row["answer"], row["error"]) for row in out.take_all()]


def peer(args, rows):
    from ray.data.llm import HttpRequestProcessorConfig, build_processor

    config = HttpRequestProcessorConfig(
        url=f"{args.base_url}/chat/completions",
        headers={"Authorization": "Bearer any"},
        concurrency=ACTORS,
        qps=LIMIT // ACTORS if args.case == "limit" else None,
        max_retries=2,
        base_retry_wait_time_in_s=0.5,
    )

    def before(row):
        messages = [{"role": "user", "content": row["text"]}]
        return {
            "id": row["id"],
            "payload": {"model": MODEL, "messages": messages, "max_tokens": 16},
        }

    def after(row):
        told = row["http_response"]
        choices = told.get("choices")
        answer = None if choices is None else choices[0]["message"]["content"]
        return {"id": row["id"], "answer": answer, "said": json.dumps(told)}

    out = build_processor(config, preprocess=before, postprocess=after)(rows)
    # What was no answer is a row like all others: nothing marks it as an error.
    return [(row["id"], row["answer"], None) for row in out.take_all()]


def child(args):
    import ray

    ray.init(
        address="local", num_cpus=4, include_dashboard=False, log_to_driver=False,
        logging_level="error",
    )  # fmt: skip
    ray.data.DataContext.get_current().enable_progress_bars = False
    items = [{"id": number, "text": f"row {number}"} for number in range(args.rows)]
    told = {"aborted": None, "rows": []}
    try:
        told["rows"] = (ours if args.child == "ours" else peer)(args, ray.data.from_items(items))
    except Exception as error:  # noqa: BLE001 - what became of the job is the figure
        told["aborted"] = f"{type(error).__name__}: {error}"[-200:]
    args.out.write_text(json.dumps(told))
    ray.shutdown()


async def measure(who, case, rows):
    from konko_async.testing import Emulator, faults

    times = []

    def answer(body):
        times.append(time.monotonic())
        return "re: " + body["messages"][-1]["content"]

    limited = case in {"limit", "untold"}
    limit = {"requests_per_minute": LIMIT, "limit_window": 1.0} if limited else {}
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "out.json")
        async with Emulator(answer=answer, latency=0.05, log_limit=None, **limit) as emulator:
            if case == "400":
                emulator.script(*([faults.Status(400), *[None] * 19] * (rows // 20)))
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "benchmarks.bench_ray", "--child", who, "--case", case,
                "--base-url", emulator.base_url, "--rows", str(rows), "--out", str(out),
                stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
            )  # fmt: skip
            await process.wait()
            calls = [record for record in emulator.requests if record.body]
            begun = min((record.started for record in calls), default=0.0)
            ended = max((record.finished or record.started for record in calls), default=0.0)
            peak = emulator.peak_in_flight
        told = json.loads(out.read_text())  # noqa: ASYNC240 - nothing else runs
    good = {number for number, text, _ in told["rows"] if text == f"re: row {number}"}
    seconds = ended - begun
    errors = sum(error is not None for _, _, error in told["rows"])
    return {
        "who": who, "case": case, "rows": rows, "calls": len(calls), "peak_in_flight": peak,
        "seconds": round(seconds, 2), "rows_per_second": round(len(good) / seconds, 1),
        "answers_429": sum(record.status == 429 for record in calls),
        "without_answer": rows - len(good), "told_as_errors": errors,
        "aborted": told["aborted"],
    }  # fmt: skip


async def main(args):
    found = []
    for case in args.only.split(","):
        for who in ("ours", "peer"):
            found.append(await measure(who, case, args.rows))
            print(json.dumps(found[-1]), flush=True)
    if args.json:
        args.json.write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1024)
    parser.add_argument("--only", default="plain,limit,untold,400")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", choices=["ours", "peer"], help=argparse.SUPPRESS)
    parser.add_argument("--case", help=argparse.SUPPRESS)
    parser.add_argument("--base-url", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments)
    else:
        asyncio.run(main(arguments))
