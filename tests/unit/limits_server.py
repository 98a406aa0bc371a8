"""A server of a given capacity and a client that always has more to send, on virtual time."""

import heapq
import itertools
import random
from collections import deque

from konko_async.limits import AdaptiveConcurrency


class Simulation:
    """Runs `AdaptiveConcurrency` (or a fixed limit) against a server; deterministic."""

    def __init__(
        self,
        capacity,
        overload,
        *,
        spread="even",
        fixed=None,
        seed=1,
        service=0.05,
        noise=0.0,
        callers=10**9,
    ):
        self.capacity = capacity
        self.overload = overload
        self.spread = spread
        self.service = service
        self.random = random.Random(seed)
        self.adaptive = None if fixed else AdaptiveConcurrency()
        self.limit = fixed or self.adaptive.limit
        self.noise = noise
        self.callers = callers
        self.now = 0.0
        self.in_flight = 0
        self.busy = 0
        self.queue = deque()
        self.events = []
        self.count = itertools.count()
        self.served = self.rejected = 0
        self.history = []

    def duration(self):
        if self.spread == "constant":
            return self.service
        if self.spread == "even":
            return self.service * self.random.uniform(0.7, 1.3)
        if self.spread == "wide":
            return self.service * self.random.uniform(0.4, 1.6)
        return self.random.expovariate(1 / self.service)

    def at(self, when, kind, call):
        heapq.heappush(self.events, (when, next(self.count), kind, call))

    def fill(self):
        while self.in_flight < min(self.limit, self.callers):
            self.in_flight += 1
            # Calls do not reach the server at the very same moment.
            self.at(
                self.now + self.random.uniform(0.0002, 0.0006), "arrive", (self.now, self.in_flight)
            )

    def arrive(self, call):
        if self.noise and self.random.random() < self.noise:
            self.at(self.now + 0.0005, "rejected", call)
        elif self.busy < self.capacity:
            self.busy += 1
            self.at(self.now + self.duration(), "done", call)
        elif self.overload == "queue":
            self.queue.append(call)
        else:
            self.at(self.now + 0.0005, "rejected", call)

    def done(self, call):
        self.busy -= 1
        self.end(call, "ok")
        while self.queue and self.busy < self.capacity:
            self.busy += 1
            self.at(self.now + self.duration(), "done", self.queue.popleft())

    def end(self, call, outcome):
        self.in_flight -= 1
        admitted_at, in_flight = call
        if self.adaptive is not None:
            self.limit = self.adaptive.observe(
                self.now, admitted_at, in_flight, self.now - admitted_at, outcome
            )
            self.history.append((self.now, self.limit))

    def run(self, until):
        self.fill()
        while self.events and self.events[0][0] <= until:
            self.now, _, kind, call = heapq.heappop(self.events)
            if kind == "arrive":
                self.arrive(call)
                continue
            if kind == "done":
                self.served += 1
                self.done(call)
            else:
                self.rejected += 1
                self.end(call, "rejected")
            self.fill()
        self.now = until
