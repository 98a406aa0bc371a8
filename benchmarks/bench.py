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
# Short rounds that tell which event loop suits a rival.
TRIALS: dict[str, tuple[str, Scene, dict[str, Any]]] = {
    "one": ("streams", Scene(chunks=2_000, write=20, pace=100_000), {"streams": 1}),
    "many": ("streams", Scene(chunks=40, pace=100), {"streams": 200}),
    "whole": ("wholes", Scene(size=1_200), {"requests": 200, "at_once": 100}),
}


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
    loops: dict[tuple[str, str], str] = field(default_factory=dict)

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
        workers = [self.worker(rival, self.loop_of(rival, kind, order)) for rival in rivals]
        for worker in workers:
            worker.do(kind, self.server, scene, **order)
        found: Rounds = {rival.name: [] for rival in rivals}
        for turn in range(self.rounds or rounds):
            for worker in workers if turn % 2 == 0 else reversed(workers):
                done = worker.do(kind, self.server, scene, **order)
                found[worker.rival.name].append(done | {"loop": worker.loop})
            print(".", end="", file=sys.stderr, flush=True)
        for worker in workers:
            worker.do("close", self.server, scene)
        return found

    def loop_of(self, rival: Rival, kind: str, order: dict[str, Any]) -> str:
        """Return the event loop to use: with "best" that on which the rival needs less CPU.

        Found once for whole answers, for one stream, and for many, in short rounds in turn.
        """
        if self.loop != "best":
            return self.loop
        case = "whole" if kind == "wholes" else "one" if order.get("streams") == 1 else "many"
        if (rival.name, case) not in self.loops:
            kind, scene, order = TRIALS[case]
            spent: dict[str, list[float]] = {"asyncio": [], "uvloop": []}
            for turn in range(3):
                for loop, cpu in spent.items():
                    done = self.worker(rival, loop).do(kind, self.server, scene, **order)
                    cpu.extend([done["cpu"]] if turn else [])
            self.loops[rival.name, case] = min(spent, key=lambda loop: min(spent[loop]))
        return self.loops[rival.name, case]

    def ratios(self, found: dict[str, Figure], *wanted: tuple[str, str, float | None]) -> None:
        """Add the ratios of pairs of rivals, as far as both were measured, each with its limit.

        A pair that begins with one of ours must be at most that; one that begins with a rival at
        least.
        """
        for above, below, limit in wanted:
            if above in found and below in found:
                what = f"{RIVALS[above].short} / {RIVALS[below].short}"
                theirs = not above.startswith("ours")
                self.results.compare(what, found[above], found[below], limit, at_least=theirs)

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
            if not done:
                continue
            wall = sum(one["wall"] for one in done)
            extra = {
                "loop": done[0]["loop"],
                "client busy": sum(one["cpu"] for one in done) / wall,
                "server busy": sum(one["server"]["cpu"] for one in done) / wall,
                "server late, ms": max(one["server"]["late_worst"] for one in done) / 1e3,
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
