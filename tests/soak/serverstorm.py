"""Kill a batch that the server runs with SIGKILL at random moments, and check each row is there once.

    python tests/soak/serverstorm.py --rows 200000 --rows-per-file 50000 --kills 20

The emulator runs in this process, and the batch in another, which is killed: after so many requests
more, when the output has grown by so much, or at a moment drawn at random. In the end each row must
stand in the output once, with its own answer, and the server must have been asked for it once.
Prints the figures as JSON; exits with 1 if anything is wrong.
"""

import argparse
import asyncio
import json
import random
import re
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

MODEL = "codellama/codellama-13b-instruct"
_ROW = re.compile(r"^row (\d+)")
_LOOK = 0.005  # seconds between two looks at the output's size


async def child(args):
    """Run the batch; killed from outside, most times."""
    from konko_async import AsyncKonko
    from konko_async.batch import ServerSide, run_batch

    settings = ServerSide(rows_per_file=args.rows_per_file, first_poll=0.02, longest_poll=0.2)
    async with AsyncKonko(base_url=args.base_url, api_key="any") as client:
        await run_batch(
            client, args.input, args.output, server_side=settings, prices={},
            checkpoint_rows=args.checkpoint_rows, on_notice=lambda _text: None,
        )  # fmt: skip


class Storm:
    """One input, killed until it is done.

    Args:
        folder: for the files.
        args: of the command line.
        rng: what is random.
    """

    def __init__(self, folder, args, rng):
        self.rng = rng
        self.args = args
        self.rows = args.rows
        self.checkpoint_rows = rng.choice([50, 1000, 20_000])
        self.input, self.output = Path(folder, "in.jsonl"), Path(folder, "out.jsonl")
        self.asked = Counter()
        self.killed = Counter()
        self.torn = 0
        self.problems = []

    def write_input(self):
        with self.input.open("w") as file:
            for row in range(self.rows):
                body = {"model": MODEL, "max_tokens": 4,
                        "messages": [{"role": "user", "content": f"row {row}"}]}  # fmt: skip
                line = {"custom_id": f"id-{row}", "method": "POST",
                        "url": "/v1/chat/completions", "body": body}  # fmt: skip
                file.write(json.dumps(line) + "\n")

    def answer(self, body):
        """The emulator's answer; and the count of what was asked."""
        row = int(_ROW.match(body["messages"][-1]["content"])[1])
        self.asked[row] += 1
        return f"answer {row}"

    def size(self):
        return self.output.stat().st_size if self.output.exists() else 0

    async def start(self, emulator):
        return await asyncio.create_subprocess_exec(
            sys.executable, __file__, "--child", "--base-url", emulator.base_url,
            "--input", str(self.input), "--output", str(self.output),
            "--rows-per-file", str(self.args.rows_per_file),
            "--checkpoint-rows", str(self.checkpoint_rows),
        )  # fmt: skip

    async def moment(self, emulator):
        """Wait for the moment to kill; returns its kind."""
        kind = self.rng.choice(["requests", "output", "time"])
        wanted = emulator.received + self.rng.randint(1, 10)
        # A line has more than 400 bytes. Each kill has its share of what is left, so that the run
        # is not over before the last one.
        left = max(1, 400 * self.rows - self.size()) // (self.args.kills - self.killed.total() + 1)
        grown = self.size() + self.rng.randint(1, left + 1)
        until = time.monotonic() + self.rng.uniform(0.3, 0.3 + self.rows / 40_000)
        while True:
            if kind == "requests" and emulator.received >= wanted:
                return kind
            if kind == "time" and time.monotonic() >= until:
                return kind
            if self.size() >= grown:
                return "output"
            await asyncio.sleep(_LOOK)

    async def run(self):
        from konko_async.testing import BatchSettings, Emulator

        self.write_input()
        pace = self.rows / self.args.pace
        settings = BatchSettings(rows_per_second=pace, reverse=self.rng.random() < 0.5)
        async with Emulator(answer=self.answer, batches=settings, log_limit=1) as emulator:
            while self.killed.total() < self.args.kills:
                process = await self.start(emulator)
                ended = asyncio.ensure_future(process.wait())
                moment = asyncio.ensure_future(self.moment(emulator))
                await asyncio.wait([ended, moment], return_when=asyncio.FIRST_COMPLETED)
                moment.cancel()
                await asyncio.wait([moment])
                if ended.done():
                    break
                process.kill()
                await ended
                self.killed[moment.result()] += 1
                self.torn += self.output.exists() and self.output.read_bytes()[-1:] not in {
                    b"",
                    b"\n",
                }
            process = await self.start(emulator)
            if await process.wait() != 0:
                self.problems.append("the last run failed")
            self.jobs = sum(1 for shown in await self.batches(emulator) if shown)
        self.check()

    async def batches(self, emulator):
        from konko_async import AsyncKonko

        async with AsyncKonko(base_url=emulator.base_url, api_key="any") as client:
            return [batch async for batch in client.batches.list(limit=100)]

    def check(self):
        seen = Counter()
        for line in self.output.read_bytes().splitlines():
            entry = json.loads(line)
            seen[entry["custom_id"]] += 1
            row = entry["custom_id"].removeprefix("id-")
            text = entry["response"]["body"]["choices"][0]["message"]["content"]
            if text != f"answer {row}" or entry["error"] is not None:
                self.problems.append(f"row {row} has the answer of another")
        self.lost = sum(1 for row in range(self.rows) if not seen[f"id-{row}"])
        self.twice = sum(1 for count in seen.values() if count > 1)
        self.paid_twice = sum(count - 1 for count in self.asked.values())
        if self.lost or self.twice or self.paid_twice:
            self.problems.append("rows were lost, written twice or paid twice")


async def main(args):
    rng = random.Random(args.seed)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        storm = Storm(folder, args, rng)
        await storm.run()
    found = {
        "seed": args.seed, "rows": args.rows, "jobs": storm.jobs,
        "kills": storm.killed.total(), "kills_by": dict(storm.killed), "torn_lines": storm.torn,
        "lost": storm.lost, "twice": storm.twice, "paid_twice": storm.paid_twice,
        "seconds": round(time.monotonic() - began, 1), "problems": storm.problems[:5],
    }  # fmt: skip
    print(json.dumps(found))  # noqa: T201 - the result
    return 1 if storm.problems else 0


def parse():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--rows-per-file", type=int, default=50_000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--pace", type=float, default=60.0, help="seconds that each job takes")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    for name in ("--base-url", "--input", "--output"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    parser.add_argument("--checkpoint-rows", type=int, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    arguments = parse()
    if arguments.child:
        asyncio.run(child(arguments))
    else:
        sys.exit(asyncio.run(main(arguments)))
