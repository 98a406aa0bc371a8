"""Kill a batch with SIGKILL at random moments, resume it, and check that no row is lost or twice.

    python tests/soak/killstorm.py --kills 500 [--mode rows|steps|shards]

The emulator runs in this process, the batch in another, which is killed: when the emulator has
received so many requests more, or at a moment drawn at random. In the end each row must stand in
the output once, and for each kill no more rows may have been asked again than were in flight.
With steps, each row has two calls, and an earlier one that was answered is not made again. Shards
are three outputs, killed in turns; merging them is killed too, and done anew.
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
MODES = ("rows", "steps", "shards")
SHARDS = 3
STEPS = [("one", "row {row} one {text}"), ("two", "row {row} two {answer}")]
_ROW = re.compile(r"^row (\d+)(?: (one|two))?")


async def child(args):
    """Run the batch; killed from outside, most times."""
    if args.merge:
        from konko_async.batch import merge_outputs

        paths = [f"{args.output}-{number}" for number in range(1, SHARDS + 1)]
        merge_outputs(paths, args.output, restart=True)
        return
    from konko_async import AsyncKonko
    from konko_async.batch import run_batch

    more = {"shard": args.shard or None}
    if args.mode == "steps":
        more |= {"steps": STEPS, "model": MODEL, "id_column": "name"}
    async with AsyncKonko(base_url=args.base_url, api_key="any") as client:
        await run_batch(
            client,
            args.input,
            args.output,
            max_concurrency=args.concurrency,
            checkpoint_rows=args.checkpoint_rows,
            shuffle=args.shuffle,
            prices={},
            **more,
        )


class Storm:
    """One input, killed until it is done.

    Args:
        folder: for the files.
        kills: at most so many.
        rng: what is random.
        mode: one of MODES.
    """

    def __init__(self, folder, kills, rng, mode="rows"):
        self.rng = rng
        self.mode = mode
        self.kills = kills
        self.rows = 25 * kills
        self.concurrency = rng.choice([1, 4, 16, 64])
        self.checkpoint_rows = rng.choice([1, 3, 10, 50, 1000])
        self.shuffle = rng.random() < 0.3
        # An answer of many pages may be cut by the kill in the middle of its write.
        self.answer_size = rng.choice([50, 2_000, 2_000 if mode == "steps" else 300_000])
        self.input = Path(folder, "in.jsonl")
        self.output = self.final = Path(folder, "out.jsonl")
        self.asked = Counter()
        self.asked_now = set()  # by the run that is on
        self.killed = self.torn = self.unfinished = self.again = 0
        self.problems = []

    def write_input(self):
        with self.input.open("w") as file:
            for row in range(self.rows):
                if self.mode == "steps":
                    fields = {"name": f"id-{row}", "row": row, "text": "x" * (row % 97)}
                    file.write(json.dumps(fields) + "\n")
                    continue
                body = {
                    "model": MODEL,
                    "messages": [{"role": "user", "content": f"row {row} {'x' * (row % 97)}"}],
                }
                line = {"custom_id": f"id-{row}", "method": "POST",
                        "url": "/v1/chat/completions", "body": body}  # fmt: skip
                file.write(json.dumps(line) + "\n")

    def answer(self, body):
        """The emulator's answer; and the count of what was asked."""
        number, step = _ROW.match(body["messages"][-1]["content"]).groups()
        row = int(number)
        self.asked[row, step] += 1
        self.asked_now.add(row)
        return f"answer {row} " + "y" * (self.answer_size if row % 5 == 0 else 20)

    async def start(self, emulator, shard=None):
        self.asked_now.clear()
        more = ["--mode", self.mode]
        if self.mode == "shards":
            shard = shard or self.rng.randint(1, SHARDS)
            self.output = Path(f"{self.final}-{shard}")
            more += ["--shard", f"{shard}/{SHARDS}"]
        arguments = [
            "--child", "--base-url", emulator.base_url, "--input", str(self.input),
            "--output", str(self.output), "--concurrency", str(self.concurrency),
            "--checkpoint-rows", str(self.checkpoint_rows), *more,
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
                    if self.mode == "shards" and sum(self.asked.values()) < self.rows:
                        continue  # this shard is done, another is not
                    break
                process.kill()
                await ended
                self.killed += 1
                await emulator.wait_until(lambda: emulator.in_flight == 0, timeout=30)
                self.after_kill()
            for shard in range(1, SHARDS + 1) if self.mode == "shards" else (None,):
                process = await self.start(emulator, shard)
                if await process.wait() != 0:
                    self.problems.append("the last run failed")
        if self.mode == "shards":
            await self.merge()
        self.check()

    async def merge(self):
        """Merge the shards; killed once in the middle of it."""
        self.output = self.final
        arguments = ["--child", "--merge", "--output", str(self.output)]
        for killed in (True, False):
            process = await asyncio.create_subprocess_exec(sys.executable, __file__, *arguments)
            if killed:
                await asyncio.sleep(self.rng.uniform(0.1, 0.8))
                if process.returncode is None:
                    process.kill()
            if await process.wait() and not killed:
                self.problems.append("merging failed")

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


async def main(kills, seed, mode):
    rng = random.Random(seed)
    total = Counter()
    problems = []
    while total["kills"] < kills:
        with tempfile.TemporaryDirectory() as folder:
            storm = Storm(folder, min(25, kills - total["kills"]), rng, mode)
            await storm.run()
        total["kills"] += storm.killed
        total["batches"] += 1
        total["rows"] += storm.rows
        total["requests"] += sum(storm.asked.values())
        total["torn_lines"] += storm.torn
        total["in_flight_at_kills"] += storm.unfinished
        total["paid_twice"] += storm.again
        problems += storm.problems
    print(json.dumps({"seed": seed, "mode": mode, **total, "problems": problems}))  # noqa: T201 - the result
    return 1 if problems else 0


def parse():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--mode", choices=MODES, default="rows")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--merge", action="store_true", help=argparse.SUPPRESS)
    for name in ("--base-url", "--input", "--output", "--shard"):
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
        sys.exit(asyncio.run(main(arguments.kills, arguments.seed, arguments.mode)))
