"""The script on a clock of the test's, and processes that do with it what a lane does."""

import itertools
import random

import msgspec

from konko_async.integrations import redis as module
from konko_async.limits import StoreRequest

SCRIPT = module._SCRIPT.text
CLOCK = "redis.call('TIME')"
_NAMES = itertools.count()
MICRO = 1_000_000


class Script:
    """The script as it is, but for its clock, which is passed in: `now`, in microseconds."""

    def __init__(self, client, **limits):
        assert SCRIPT.count(CLOCK) == 1
        self.client = client
        name = next(_NAMES)
        self.keys = [f"{{{name}}}:{part}" for part in module._PARTS]
        self.text = SCRIPT.replace(CLOCK, "{ARGV[2], ARGV[3]}")
        self.limits = {
            "requests": 0.0, "tokens": 0.0, "burst": -1.0, "window": 60 * MICRO,
            "horizon": 25_000, "learn": True, **limits,
        }  # fmt: skip
        self.now = 1_800_000_000 * MICRO

    def __call__(self, me, *, epoch="", **told):
        turn = StoreRequest(me=me, epoch=epoch, **{**self.limits, **told})
        seconds, micros = divmod(round(self.now), MICRO)
        body = msgspec.json.encode(turn)
        answer = self.client.eval(self.text, len(self.keys), *self.keys, body, seconds, micros)
        return module._told(answer)

    def forget(self):
        self.client.delete(*self.keys)


class Process:
    """One process that always has calls waiting, and comes back when it is told to."""

    def __init__(self, name, script, weights, *, priority="interactive", late=0):
        self.name, self.script, self.priority = name, script, priority
        self.weights, self.late = weights, late
        self.next = 1
        self.waiting = {}
        self.got = []  # (time, ticket, tokens)
        self.turns = 0
        self.epoch = ""
        self.wake = script.now

    def turn(self, **told):
        now = self.script.now
        offers = []
        for ticket in range(self.next, self.next + 3):
            offers.append((ticket, self.waiting.setdefault(ticket, self.weights())))
        reply = self.script(self.name, epoch=self.epoch, **{self.priority: offers}, **told)
        self.turns += 1
        self.epoch = reply.epoch
        for ticket, tokens in reply.granted:
            assert self.waiting.pop(ticket) == tokens
            self.got.append((now / MICRO, ticket, tokens))
        known = [ticket for ticket, _ in reply.granted] + reply.standing
        self.next = max([self.next, *(ticket + 1 for ticket in known)])
        wait = 0 if reply.wait < 0 else min(max(reply.wait, 2000), 500_000)
        self.wake = now + wait + (self.late() if self.late else 0)
        return reply


def run(script, processes, seconds):
    """Let each come back when it is told to, for so long."""
    end = script.now + seconds * MICRO
    while True:
        soonest = min(processes, key=lambda process: process.wake)
        if soonest.wake >= end:
            script.now = end
            return
        script.now = max(soonest.wake, script.now + 1)
        soonest.turn()


def lateness(seed, most):
    """Microseconds by which a process comes late: seldom much."""
    chance = random.Random(seed)
    return lambda: min(chance.expovariate(5 / most), most)
