"""Kill actors, nodes and drivers of a Ray cluster of two nodes, and count: rows lost, twice, repaid.

    python tests/soak/raystorm.py [--rows 2000] [--kills 3] [--only batch-actor,data-driver]

The emulator and the cluster run from this process, on loopback; the driver is another process, which
makes a batch (``run_batch(workers=RayWorkers(...))``) or a Ray Data set (``chat_completions``, with
Ray's checkpoints and with kept answers). Actors, a node (its raylet) and the driver are killed with
SIGKILL while calls are in flight; a driver that died is started again. In the end each row must be
there once, and no more calls may have been made again than were in flight at the kills. Prints
one line of JSON for each scenario; exits with 1 if anything is wrong.
"""

import os

os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # all of it listens on loopback
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

import argparse
import asyncio
import functools
import json
import re
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

MODEL = "codellama/codellama-13b-instruct"
SCENARIOS = ("batch-actor", "batch-node", "batch-driver", "data-actor", "data-node", "data-driver")
IN_FLIGHT = 64
ACTORS = 2
_ROW = re.compile(r"row (\d+)")


# -- the driver -----------------------------------------------------------------------------------


async def batch(args):
    from konko_async import AsyncKonko
    from konko_async.batch import run_batch
    from konko_async.integrations.ray import RayWorkers

    async with AsyncKonko("any", args.base_url) as client:
        report = await run_batch(
            client, args.folder / "in.jsonl", args.folder / "out.jsonl", prices={},
            workers=RayWorkers(ACTORS), max_concurrency=IN_FLIGHT,
        )  # fmt: skip
    said = {"repeated": report.repeated, "failed": report.failed}
    (args.folder / "said.json").write_text(json.dumps(said))


def data(args):
    import ray
    from ray.data.checkpoint import CheckpointConfig

    from konko_async import AsyncKonko
    from konko_async.integrations.ray import chat_completions

    ray.init(address=os.environ["RAY_ADDRESS"], log_to_driver=False, logging_level="error")
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.checkpoint_config = CheckpointConfig(
        id_column="id",
        checkpoint_path=str(args.folder / "done"),
        delete_checkpoint_on_success=False,
    )
    rows = ray.data.read_parquet(str(args.folder / "in.parquet"))
    chat_completions(
        rows,
        model=MODEL,
        prompt="{text}",
        params={"max_tokens": 16},
        client=functools.partial(AsyncKonko, "any", args.base_url),
        actors=ACTORS,
        max_concurrency=IN_FLIGHT // ACTORS,
        rows_per_block=100,
        key_column="id",
        answers=str(args.folder / "answers"),
    ).write_parquet(str(args.folder / "out"))


# -- the storm ------------------------------------------------------------------------------------


def processes_of(parents, title):
    """The ids of processes with a title that are children of the given ones: ours."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            name = (path / "cmdline").read_text().strip("\0").strip()
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError):
            continue
        if parent in parents and name.startswith(title):
            found.append(int(path.name))
    return sorted(found)


class Storm:
    """One scenario.

    Args:
        name: what is run, and what is killed.
        folder: for its files.
        args: of the command line.
        cluster: of Ray, which the scenarios share.
        nodes: of the cluster; a killed one is replaced there.
    """

    def __init__(self, name, folder, args, cluster, nodes):
        self.kind, self.victim = name.split("-")
        self.cluster, self.nodes = cluster, nodes
        self.name, self.folder, self.rows, self.kills = name, folder, args.rows, args.kills
        self.asked = Counter()
        self.cut = self.killed = self.starts = 0
        self.problems = []
        self.said = {}

    def answer(self, body):
        row = int(_ROW.search(body["messages"][-1]["content"])[1])
        self.asked[row] += 1
        return f"answer {row}"

    def write_input(self):
        if self.kind == "batch":
            with (self.folder / "in.jsonl").open("w") as file:
                for row in range(self.rows):
                    body = {"model": MODEL, "messages": [{"role": "user", "content": f"row {row}"}]}
                    line = {"custom_id": f"id-{row}", "method": "POST",
                            "url": "/v1/chat/completions", "body": body}  # fmt: skip
                    file.write(json.dumps(line) + "\n")
        else:
            import pyarrow as pa
            import pyarrow.parquet as pq

            names = list(range(self.rows))
            table = pa.table({"id": names, "text": [f"row {row}" for row in names]})
            pq.write_table(table, self.folder / "in.parquet")

    async def start_driver(self, emulator):
        self.starts += 1
        return await asyncio.create_subprocess_exec(
            sys.executable, __file__, "--child", self.kind, "--folder", str(self.folder),
            "--base-url", emulator.base_url,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
            env={**os.environ, "RAY_ADDRESS": self.cluster.address},
        )  # fmt: skip

    def strike(self, driver):
        """Kill one of what is to be killed; returns whether there was one."""
        raylets = [node.all_processes["raylet"][0].process.pid for node in self.nodes]
        if self.victim == "driver":
            driver.kill()
        elif self.victim == "node":
            self.nodes[-1].kill_raylet()
            self.nodes[-1:] = [self.cluster.add_node(num_cpus=2)]
        else:
            title = "ray::_Actor" if self.kind == "batch" else "ray::MapWorker"
            actors = processes_of(raylets, title)
            if not actors:
                return False
            os.kill(actors[self.killed % len(actors)], signal.SIGKILL)
        return True

    async def run(self):
        from konko_async.testing import Emulator

        self.write_input()
        began = time.monotonic()
        async with Emulator(answer=self.answer, latency=0.1, log_limit=1) as emulator:
            await self.until_done(emulator)
        self.seconds = time.monotonic() - began
        self.check()

    async def until_done(self, emulator):
        driver = await self.start_driver(emulator)
        ended = asyncio.ensure_future(driver.communicate())
        for strike in range(self.kills):
            wanted = self.rows * (strike + 1) // (self.kills + 2)
            moment = asyncio.ensure_future(self.moment(emulator, wanted))
            await asyncio.wait([ended, moment], return_when=asyncio.FIRST_COMPLETED)
            moment.cancel()
            await asyncio.wait([moment])
            if ended.done():
                break
            self.cut += emulator.in_flight
            self.killed += self.strike(driver)
            if self.victim == "driver":
                await ended
                await emulator.wait_until(lambda: emulator.in_flight == 0, timeout=60)
                driver = await self.start_driver(emulator)
                ended = asyncio.ensure_future(driver.communicate())
        out, _ = await ended
        if driver.returncode:
            self.problems.append(f"the driver ended with {driver.returncode}")
            print(out.decode(errors="replace")[-4000:], file=sys.stderr)  # noqa: T201
        said = self.folder / "said.json"
        self.said = json.loads(said.read_text()) if said.exists() else {}

    async def moment(self, emulator, wanted):
        """Wait for so many rows to have been asked, and for some to be in flight."""
        await emulator.wait_until(
            lambda: len(self.asked) >= wanted and emulator.in_flight > 0, timeout=300
        )

    def found(self):
        if self.kind == "batch":
            for line in (self.folder / "out.jsonl").read_bytes().splitlines():
                entry = json.loads(line)
                body = (entry["response"] or {}).get("body", {})
                text = body["choices"][0]["message"]["content"] if "choices" in body else None
                yield int(entry["custom_id"][3:]), text
        else:
            import pyarrow.parquet as pq

            for path in sorted((self.folder / "out").rglob("*.parquet")):
                for row in pq.read_table(path, columns=["id", "answer"]).to_pylist():
                    yield row["id"], row["answer"]

    def check(self):
        seen = Counter()
        for row, text in self.found():
            seen[row] += 1
            if text != f"answer {row}":
                self.problems.append(f"row {row} has the answer {text!r}")
        again = sum(self.asked.values()) - len(self.asked)
        lost = self.rows - len(seen)
        twice = sum(count - 1 for count in seen.values())
        if lost or twice:
            self.problems.append(f"{lost} rows lost, {twice} written twice")
        if self.killed < self.kills:
            self.problems.append(f"only {self.killed} kills")
        # What was in flight anywhere, as the dead one's share of it is not known here.
        if again > self.kills * 2 * IN_FLIGHT:
            self.problems.append(f"{again} calls repeated, {self.cut} in flight at the kills")
        figures = {
            "scenario": self.name, "rows": self.rows, "kills": self.killed,
            "drivers": self.starts, "lost": lost, "twice": twice, "calls_repeated": again,
            "in_flight_at_kills": self.cut, "seconds": round(self.seconds, 1), **self.said,
            "problems": self.problems[:5],
        }  # fmt: skip
        print(json.dumps(figures), flush=True)  # noqa: T201


def scenarios(args):
    """Run what is asked for, on one cluster; returns the number of problems."""
    from ray.cluster_utils import Cluster

    problems = 0
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
    try:
        nodes = [cluster.head_node, cluster.add_node(num_cpus=2)]
        for name in args.only.split(","):
            with tempfile.TemporaryDirectory() as folder:
                storm = Storm(name, Path(folder), args, cluster, nodes)
                asyncio.run(storm.run())
                problems += len(storm.problems)
    finally:
        cluster.shutdown()
    return problems


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--only", default=",".join(SCENARIOS))
    parser.add_argument("--child", choices=["batch", "data"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--base-url", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child == "batch":
        asyncio.run(batch(args))
    elif args.child == "data":
        data(args)
    else:
        sys.exit(bool(scenarios(args)))


if __name__ == "__main__":
    main()
