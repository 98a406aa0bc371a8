"""What the questions are asked with: rounds of all rivals in turn, on one load server."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.load import Server, Unfit, Worker
from benchmarks.results import Figure, Results
from benchmarks.rivals.table import RIVALS, Rival
from benchmarks.scenes import Scene

Rounds = dict[str, list[dict[str, Any]]]


@dataclass
class Bench:
    """A run.

    Attributes:
        server: the load server.
        results: where findings go.
        rivals: the names of those who take part.
        quick: whether to ask for less where a question can.
        rounds: how many rounds instead of a question's own number; 0: its own.
        loop: the event loop of every rival; "best": each one's faster one, found by trying.
        scale: what sizes are multiplied with (tests use a tiny one).
    """

    server: Server
    results: Results
    rivals: Sequence[str]
    quick: bool = False
    rounds: int = 0
    loop: str = "asyncio"
    scale: float = 1.0
    workers: dict[tuple[str, str], Worker] = field(default_factory=dict)

    def size(self, number: int, least: int = 2) -> int:
        """Return a number of streams or requests, scaled."""
        return max(least, round(number * self.scale))

    def taking_part(self, *wanted: str) -> list[Rival]:
        """Return those of the named rivals that take part, and whose environment is there."""
        return [RIVALS[name] for name in wanted if name in self.rivals and RIVALS[name].ready()]

    def worker(self, rival: Rival, loop: str) -> Worker:
        """Return a rival's process, kept from question to question."""
        if (rival.name, loop) not in self.workers:
            self.workers[rival.name, loop] = Worker(rival, loop, self.server.client_core)
        return self.workers[rival.name, loop]

    def close(self) -> None:
        """End all processes."""
        while self.workers:
            self.workers.popitem()[1].close()

    def turns(
        self, rivals: Sequence[Rival], kind: str, scene: Scene, rounds: int, **order: Any
    ) -> Rounds:
        """Do rounds in turn: A B C, C B A, A B C, ...; one of each before, not counted.

        Going there and back lets a drift of the machine hit neighbours alike.
        """
        rounds = self.rounds or rounds
        workers = [self._fit(rival, kind, scene, order) for rival in rivals]
        found: Rounds = {rival.name: [] for rival in rivals}
        for turn in range(rounds):
            for worker in workers if turn % 2 == 0 else reversed(workers):
                done = worker.do(kind, self.server, scene, **order)
                found[worker.rival.name].append(done | {"loop": worker.loop})
            print(".", end="", file=sys.stderr, flush=True)
        print(file=sys.stderr)
        for worker in workers:
            worker.do("close", self.server, scene)
        return found

    def _fit(self, rival: Rival, kind: str, scene: Scene, order: dict[str, Any]) -> Worker:
        """Warm a rival up; with two loops to choose from, on both, and return the faster."""
        loops = ["asyncio", "uvloop"] if self.loop == "best" else [self.loop]
        tried = []
        for loop in loops:
            worker = self.worker(rival, loop)
            done = [worker.do(kind, self.server, scene, **order) for _ in range(len(loops))]
            tried.append((done[-1].get("cpu", 0), loop, worker))
            if len(loops) > 1:
                worker.do("close", self.server, scene)
        return min(tried, key=lambda item: item[:2])[2]

    def figures(
        self,
        question: str,
        what: str,
        unit: str,
        rounds: Rounds,
        value: Callable[[dict[str, Any]], float],
    ) -> dict[str, Figure]:
        """Add a figure per rival, and return them by name."""
        found = {}
        for name, done in rounds.items():
            extra = {
                "loop": done[0]["loop"],
                "client busy": sum(d["cpu"] for d in done) / sum(d["wall"] for d in done),
                "server busy": sum(d["server"]["cpu"] for d in done) / sum(d["wall"] for d in done),
            }
            samples = [value(one) for one in done]
            found[name] = Figure(question, RIVALS[name].label, what, unit, samples, extra)
        self.results.figures.extend(found.values())
        return found


def per_unit(done: dict[str, Any]) -> float:
    """Return microseconds of CPU per chunk or request."""
    return done["cpu"] / done["units"] * 1e6


def in_window(done: dict[str, Any]) -> float:
    """Return microseconds of CPU per chunk while all streams were open.

    Raises:
        Unfit: the round was over before the window was.
    """
    if not done.get("window") or not done["window"]["chunks"]:
        raise Unfit("a round was over before its window: raise the number of chunks")
    return done["window"]["cpu"] / done["window"]["chunks"] * 1e6
