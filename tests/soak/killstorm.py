"""Kill a batch with SIGKILL at random moments, resume it, and check that no row is lost or twice.

    python tests/soak/killstorm.py --kills 500

The emulator runs in this process, the batch in another, which is killed: when the emulator has
received so many requests more, or at a moment drawn at random. In the end each row must stand in
the output once, and for each kill no more rows may have been asked again than were in flight.
Prints the figures as JSON; exits with 1 if anything is wrong.
"""

import argparse
import asyncio
import json
import random
import re
import sys
import tempfile
from collections import Counter
from pathlib import Path

MODEL = "codellama/codellama-13b-instruct"
_ROW = re.compile(r"^row (\d+)")


async def child(args):
    """Run the batch; killed from outside, most times."""
    from konko_async import AsyncKonko
    from konko_async.batch import run_batch

    async with AsyncKonko(base_url=args.base_url, api_key="any") as client:
        await run_batch(
            client,
            args.input,
            args.output,
            max_concurrency=args.concurrency,
            checkpoint_rows=args.checkpoint_rows,
            shuffle=args.shuffle,
            prices={},
        )


class Storm:
    """One input, killed until it is done.

    Args:
        folder: for the files.
        kills: at most so many.
        rng: what is random.
    """

    def __init__(self, folder, kills, rng):
        self.rng = rng
        self.kills = kills
        self.rows = 25 * kills
        self.concurrency = rng.choice([1, 4, 16, 64])
        self.checkpoint_rows = rng.choice([1, 3, 10, 50, 1000])
        self.shuffle = rng.random() < 0.3
        # An answer of many pages may be cut by the kill in the middle of its write.
        self.answer_size = rng.choice([50, 2_000, 300_000])
        self.input = Path(folder, "in.jsonl")
        self.output = Path(folder, "out.jsonl")
        self.asked = Counter()
        self.asked_now = set()  # by the run that is on
        self.killed = self.torn = self.unfinished = self.again = 0
        self.problems = []

    def write_input(self):
        with self.input.open("w") as file:
            for row in range(self.rows):
                body = {
                    "model": MODEL,
                    "messages": [{"role": "user", "content": f"row {row} {'x' * (row % 97)}"}],
                }
                line = {"custom_id": f"id-{row}", "method": "POST",
                        "url": "/v1/chat/completions", "body": body}  # fmt: skip
                file.write(json.dumps(line) + "\n")

    def answer(self, body):
        """The emulator's answer; and the count of what was asked."""
        row = int(_ROW.match(body["messages"][-1]["content"])[1])
        self.asked[row] += 1
        self.asked_now.add(row)
        return f"answer {row} " + "y" * (self.answer_size if row % 5 == 0 else 20)

    async def start(self, emulator):
        self.asked_now.clear()
        arguments = [
            "--child", "--base-url", emulator.base_url, "--input", str(self.input),
            "--output", str(self.output), "--concurrency", str(self.concurrency),
            "--checkpoint-rows", str(self.checkpoint_rows),
        ]  # fmt: skip
        if self.shuffle:
            arguments.append("--shuffle")
        return await asyncio.create_subprocess_exec(sys.executable, __file__, *arguments)

    async def until_kill(self, emulator, process):
        """Wait for the moment to kill."""
        ended = asyncio.ensure_future(process.wait())
        if self.rng.random() < 0.75:
            wanted = emulator.received + self.rng.randint(1, 2 * self.rows // self.kills)
            moment = asyncio.ensure_future(
                emulator.wait_until(lambda: emulator.received >= wanted, timeout=120)
            )
        else:
            moment = asyncio.ensure_future(asyncio.sleep(self.rng.uniform(0.05, 0.8)))
        await asyncio.wait([ended, moment], return_when=asyncio.FIRST_COMPLETED)
        moment.cancel()
        await asyncio.wait([moment])
        return ended

    async def run(self):
        from konko_async.testing import Emulator

        self.write_input()
        async with Emulator(answer=self.answer, latency=0.002, log_limit=1) as emulator:
            while self.killed < self.kills:
                process = await self.start(emulator)
                ended = await self.until_kill(emulator, process)
                if ended.done():
                    break
                process.kill()
                await ended
                self.killed += 1
                await emulator.wait_until(lambda: emulator.in_flight == 0, timeout=30)
                self.after_kill()
            process = await self.start(emulator)
            if await process.wait() != 0:
                self.problems.append("the last run failed")
        self.check()

    def after_kill(self):
        """What this run asked and is not in the output is what it has in flight."""
        written = set()
        data = self.output.read_bytes() if self.output.exists() else b""
        *lines, tail = data.split(b"\n")
        self.torn += bool(tail)
        for line in lines:
            written.add(json.loads(line)["custom_id"])
        lost = [row for row in self.asked_now if f"id-{row}" not in written]
        if len(lost) > self.concurrency:
            self.problems.append(f"{len(lost)} rows lost by one kill, {self.concurrency} in flight")
        self.unfinished += len(lost)

    def check(self):
        seen = Counter()
        for line in self.output.read_bytes().splitlines():
            entry = json.loads(line)
            seen[entry["custom_id"]] += 1
            row = entry["custom_id"].removeprefix("id-")
            text = entry["response"]["body"]["choices"][0]["message"]["content"]
            if not text.startswith(f"answer {row} ") or entry["error"] is not None:
                self.problems.append(f"row {row} has the answer of another")
        missing = [row for row in range(self.rows) if not seen[f"id-{row}"]]
        twice = [name for name, count in seen.items() if count > 1]
        if missing or twice:
            self.problems.append(f"{len(missing)} rows lost, {len(twice)} twice")
        self.again = sum(count - 1 for count in self.asked.values())
        if self.again > self.unfinished:
            self.problems.append(f"{self.again} paid twice, {self.unfinished} were in flight")


async def main(kills, seed):
    rng = random.Random(seed)
    total = Counter()
    problems = []
    while total["kills"] < kills:
        with tempfile.TemporaryDirectory() as folder:
            storm = Storm(folder, min(25, kills - total["kills"]), rng)
            await storm.run()
        total["kills"] += storm.killed
        total["batches"] += 1
        total["rows"] += storm.rows
        total["requests"] += sum(storm.asked.values())
        total["torn_lines"] += storm.torn
        total["in_flight_at_kills"] += storm.unfinished
        total["paid_twice"] += storm.again
        problems += storm.problems
    print(json.dumps({"seed": seed, **total, "problems": problems}))  # noqa: T201 - the result
    return 1 if problems else 0


def parse():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    for name in ("--base-url", "--input", "--output"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    for name in ("--concurrency", "--checkpoint-rows"):
        parser.add_argument(name, type=int, help=argparse.SUPPRESS)
    parser.add_argument("--shuffle", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    arguments = parse()
    if arguments.child:
        asyncio.run(child(arguments))
    else:
        sys.exit(asyncio.run(main(arguments.kills, arguments.seed)))
