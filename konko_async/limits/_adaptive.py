"""Adaptive concurrency: infers how many calls a server serves at once from how they end.

The models are TCP's: additive increase and multiplicative decrease for servers that turn calls
away, Vegas (Brakmo and Peterson, 1995) for those that queue them, both as in Netflix's
concurrency-limits (Vegas, Gradient2). Two things differ, because language models answer with
latencies that spread over orders of magnitude and change with the prompts:

* latencies are compared as means of as many calls as their spread asks for, never as minima;
* a higher mean alone is no proof of a queue: the limit is lowered for a while, and only if the
  latency falls with it was there one. Gradient2 compares with a long-term mean instead, which
  drifts up with the queue it is to detect (see its issues 88, 92 and 165).

Nor is a rejection proof of too many calls. Lone ones that go on below what went well are a
server's own failures: their share is learned, tolerated and forgotten again.
"""

from __future__ import annotations

import enum
import math
from typing import Final, Literal

__all__ = ["AdaptiveConcurrency", "concurrency"]

# The first limit and the highest: few enough for a local server with one slot, and what one process
# can keep busy. AIMD with 1.5 and 1.2 per epoch reaches 95 % of a capacity of 256 in 20 s of 50 ms
# calls (docs/explanation/limits.md has the table; tests/proof/proof_adaptive.py measures it).
_FIRST: Final = 4
_MOST: Final = 1000
# Growth per epoch: by half while there is little to be turned away, then by a fifth.
_FAST: Final = 1.5
_SLOW: Final = 1.2
_SLOW_FROM: Final = 32
# A mean this much above the baseline is looked into. (Gradient2 tolerates a factor of 1.5 by
# default, below which a queue of a few calls stays.)
# Measured against the error of both means (_is_above), so a small factor does not fire by chance.
_QUEUE: Final = 1.15
# The lenient factor: Gradient2's tolerance, for servers that reject instead of queueing, and while
# growing, where an overshoot is corrected soon (see _is_slow).
_LONG_QUEUE: Final = 1.5
# Where a queue was found, the limit is a little above the capacity: it must never run dry.
_HEADROOM: Final = 1.08
# A test of the latency goes down to 0.8 of what was in use, at most to half: a smaller step would
# be lost in the spread of service times, and at one test in 25 epochs this one costs little.
_DIP: Final = 0.8
_DEEPEST_DIP: Final = 0.5
_DIP_EVERY: Final = 25
_DIP_SOON: Final = 3
# Calls without trouble before one more slot is tried: a failed probe is one rejection, so 200 to
# 400 keep rejections at 0.5 % at most, as the same table shows.
_PROBE_SOON: Final = 50
_PROBE_AFTER: Final = 200
_PROBE_AFTER_MOST: Final = 400
# Decreases for rejections in a row, each after the one before took effect.
# The first is 1.0 because a single overload is usually one call too many: _turned_away then takes
# one slot away. Only rejections that persist justify multiplicative decrease.
_CUTS: Final = (1.0, 0.9, 0.7, 0.5)
# A rejection after so many calls that went well does not come from one slot too many: such a
# slot is rejected again and again.
_LONE: Final = 24
# Rejections that are not about load: the share that is tolerated and the one that is none, over
# how many calls it is known, how many at once may be by chance, and how fast those are forgotten.
_NOISE_MOST: Final = 0.05
_NOISE_LEAST: Final = 0.0005
_NOISE_OVER: Final = 1000
_NOISE_BURST: Final = 4.0
# Forgotten at twice the learned share, so that rejections at that share never add up to a burst.
_NOISE_DRAIN: Final = 2.0
# A mean is to be known to 4 %, about a quarter of what is looked into (_QUEUE); of exponential
# service times 400 give 5 %.
_PRECISION: Final = 0.04
_ENOUGH: Final = 400
# The fewest calls a conclusion is drawn from once the limit has stopped growing.
_FEW: Final = 8


class _Phase(enum.Enum):
    GROW = enum.auto()  # nothing in the way was met yet
    HOLD = enum.auto()  # at what the server serves
    PROBE = enum.auto()  # a little above, to see whether it serves more by now
    CONFIRM = enum.auto()  # latency rose: measured again once the rise is over
    TEST = enum.auto()  # below, to see whether latency falls


class _Mean:
    """Mean and standard error of a run of numbers, updated one by one (Welford's method)."""

    __slots__ = ("_squares", "count", "mean")

    def __init__(self) -> None:
        self.count = 0
        self.mean = 0.0
        self._squares = 0.0

    def add(self, value: float) -> None:
        self.count += 1
        difference = value - self.mean
        self.mean += difference / self.count
        self._squares += difference * (value - self.mean)

    def error(self) -> float:
        """Standard error of the mean of two values or more, as one has no spread."""
        return math.sqrt(self._squares / (self.count - 1) / self.count)

    def precise(self) -> bool:
        """Whether the mean is known well enough that further values would hardly change it."""
        return self.count >= _ENOUGH or self.error() <= _PRECISION * self.mean


class AdaptiveConcurrency:
    """A limit on calls in flight that follows what the server serves at once.

    It begins at 4, grows by half and later by a fifth per epoch (as many completions as half the
    limit) until calls are turned away or latency rises, and then holds. After 200 calls without
    trouble (50 at first) it tries one more slot, then two, four and so on as long as that goes
    well; each failure doubles that, up to 400. That keeps rejections well under 1 %.

    Attributes:
        limit: concurrency slots at present, 1 to 1,000.
    """

    __slots__ = (
        "_base", "_base_count", "_before", "_bound", "_burst", "_calm", "_cut_at", "_epochs",
        "_excess", "_fell_from", "_lone", "_noise", "_patience", "_phase", "_rejects", "_restore",
        "_resume", "_sample", "_skip", "_step", "_strikes", "_top", "_unsure", "_used", "_wall",
        "limit",
    )  # fmt: skip

    def __init__(self) -> None:
        self.limit = _FIRST
        self._phase = self._resume = _Phase.GROW
        # A rejected call admitted before this moment belongs to the burst that was already
        # answered.
        self._cut_at = -math.inf
        self._skip = self.limit
        self._burst = 0
        self._sample = _Mean()
        self._bound = 0
        self._base = 0.0
        self._base_count = 0
        self._before = 0.0
        self._fell_from = self._restore = 0
        self._used = 0
        # The learned share of rejections that are not about load, and how far the latest ones
        # exceed it.
        self._noise = self._excess = 0.0
        self._lone = self._top = 0
        self._calm = 0
        self._epochs = 0
        self._step = 1
        self._patience = _PROBE_AFTER
        self._strikes = 0
        # The limit at which calls are turned away, as far as known; _MOST + 1: not known.
        self._wall = _MOST + 1
        self._rejects = self._unsure = False

    def observe(
        self, now: float, admitted_at: float, in_flight: int, latency: float, outcome: str
    ) -> int:
        """Take in how a call ended.

        Args:
            now: the time, in seconds.
            admitted_at: when it was admitted.
            in_flight: calls in flight then, itself included.
            latency: seconds it took.
            outcome: ``ok`` and ``rejected`` count; whatever else happened says nothing of load.

        Returns:
            The slots at present.
        """
        if outcome == "rejected":
            self._turned_away(now, admitted_at, in_flight)
        elif outcome == "ok" and 0.0 <= latency < math.inf:
            self._served(in_flight, latency)
        return self.limit

    # --- rejections

    def _turned_away(self, now: float, admitted_at: float, in_flight: int) -> None:
        """Set the limit below what was turned away, and further down if that did not help."""
        if admitted_at <= self._cut_at:
            # Of the same burst as one before: what was in flight less all of them was served.
            self._burst += 1
            self._lone = 0
            # The rejections of a burst trickle in one at a time, so the estimate of what was served
            # is corrected with each; never below half, the deepest cut of one step (_CUTS).
            self._fell_from = max(self._fell_from, in_flight)
            served = max(self._fell_from - self._burst, self._fell_from // 2, 1)
            self._wall = served + 1
            self._set(served if self._strikes == 1 else min(self.limit, served))
            return
        if self._is_noise():
            return
        self._rejects = True
        # A limit far above the demand was never tried. Cutting from there would take several rounds
        # before it had any effect on what is sent.
        if in_flight * 2 < self.limit:
            self.limit = in_flight
        cut = _CUTS[min(self._strikes, len(_CUTS) - 1)]
        self._strikes += 1
        self._fell_from = self.limit
        self._burst = 1
        below = min(self.limit - 1, int(self.limit * cut))
        self._patience = min(self._patience * 2, _PROBE_AFTER_MOST)
        # Growth goes in steps of up to a half, so the first wall is known only roughly: probe soon.
        # After that each failed probe doubles the patience, which bounds the share of calls that
        # are rejected.
        if self._phase is _Phase.GROW:
            self._patience = _PROBE_SOON
        elif self._step > 2 or (self._phase is _Phase.HOLD and self._strikes == 1):  # noqa: PLR2004  (two doublings)
            self._patience = _PROBE_AFTER  # two probes went well, or it was none that failed
        self._wall = max(self.limit, 2)
        self._cut_at = now
        self._hold()
        self._set(max(below, self.limit // 2))

    def _is_noise(self) -> bool:
        """Whether a rejection has nothing to do with load; learns the share of such rejections."""
        if self._noise:
            self._excess += 1.0
            if self._excess <= _NOISE_BURST:
                if self._phase is _Phase.HOLD:  # elsewhere it may be too high
                    self._noise = min(self._noise + 1 / _NOISE_OVER, _NOISE_MOST)
                return True
            self._excess = 0.0
        # One slot too many is refilled at once and rejected again within a round of the limit. Only
        # a rejection after a longer calm can be a failure of the server's own.
        if self._calm < min(self.limit, _LONE):
            self._lone = 0
            return False
        self._strikes = 0
        if self._phase is _Phase.PROBE:
            return False  # it was one too many, most likely
        self._top = max(self._top, self.limit) if self._lone else self.limit
        if not self._lone or self._phase is not _Phase.HOLD:
            self._lone = self._calm
            return False
        # The second one alone: going lower did not help. What was learned from them was wrong.
        self._noise = min(max(2 / (self._lone + self._calm), self._noise), _NOISE_MOST)
        self._lone = self._calm = 0
        self._wall = _MOST + 1
        self._phase = _Phase.GROW
        self._set(self._top)
        return True

    def _hold(self) -> None:
        self._phase = _Phase.HOLD
        self._step = 1
        self._calm = self._epochs = 0

    # --- calls that were served

    def _served(self, in_flight: int, latency: float) -> None:
        self._calm += 1
        if self._noise:
            self._excess = max(self._excess - self._noise * _NOISE_DRAIN, 0.0)
            if self._phase is _Phase.HOLD:
                self._noise -= self._noise / _NOISE_OVER
                if self._noise < _NOISE_LEAST:
                    self._noise = self._excess = 0.0
        if self._skip:
            # Of another limit. Skipped by count, not by when it was admitted: of the calls admitted
            # since, the short ones end first, and would make the mean too low.
            self._skip -= 1
            return
        sample = self._sample
        sample.add(latency)
        self._used += in_flight
        # A call admitted while the limit was nearly full: only such calls show what the limit does.
        if in_flight >= self.limit * _DIP:
            self._bound += 1
        if self._enough(sample):
            self._strikes = 0
            self._end_epoch(sample, bound=self._bound * 2 >= sample.count)

    def _enough(self, sample: _Mean) -> bool:
        """Whether there are enough calls to conclude from; while growing, a rough mean will do."""
        if self._phase is _Phase.GROW:
            return sample.count >= max(self.limit // 2, 4)
        if sample.count < max(self.limit, _FEW):
            return False
        if self._phase is _Phase.PROBE or (
            self._phase is _Phase.HOLD and (self._may_probe() or self._below_wall())
        ):
            return True
        return sample.precise()

    def _may_probe(self) -> bool:
        return self._calm >= self._patience * (1 + (self._noise > 0)) and not self._unsure

    def _below_wall(self) -> bool:
        """Whether several cuts in a row went below what was not turned away."""
        return self.limit < self._wall - 1 and self._wall <= _MOST

    def _end_epoch(self, sample: _Mean, *, bound: bool) -> None:
        """Draw the conclusion from enough calls under one limit."""
        # Demand below the limit can queue at the server, too: a test then has to go below what was
        # in flight, not below the limit.
        used = self.limit if bound else min(round(self._used / sample.count), self.limit)
        self._clear()
        if self._phase is _Phase.TEST:
            self._judge(sample)
        elif self._phase is _Phase.CONFIRM:
            self._confirm(sample, used)
        elif used > 1 and self._is_slow(sample, bound=bound):
            self._resume = self._phase if self._phase is _Phase.GROW else _Phase.HOLD
            self._phase = _Phase.CONFIRM
            self._skip = self.limit
        elif not bound:
            return  # the limit was not what held them back: it says nothing of a higher one
        elif self._phase is _Phase.GROW:
            if not self._is_above(_QUEUE, sample):
                self._fold(sample)
            self._grow()
        elif self._phase is _Phase.PROBE:
            # Steps double while probes succeed, so a server that gained capacity is followed in a
            # few epochs. A fifth is the pace of growth (_SLOW), which bounds the rejections if the
            # next step is too far.
            self._step = min(self._step * 2, max(self.limit // 5, 1))
            self._wall = max(self._wall, self.limit + 1)
            self._set(self.limit + self._step)
        else:
            self._rest(sample)

    def _grow(self) -> None:
        factor = _FAST if self.limit < _SLOW_FROM else _SLOW
        wanted = max(int(self.limit * factor), self.limit + 1)
        # Stop one below the wall: from there on single probes, not steps of a fifth, find out more.
        if wanted >= self._wall:
            self._hold()
            wanted = self._wall - 1
        self._set(wanted)

    def _rest(self, sample: _Mean) -> None:
        """Hold, and once in a while look whether there is more, or whether there is a queue."""
        if sample.precise():
            self._epochs += 1
            if sample.mean < self._base:
                self._base, self._base_count = sample.mean, sample.count
        if self._below_wall():
            self._grow()
        elif self._may_probe():
            self._phase = _Phase.PROBE
            self._set(self.limit + 1)
        # A server that rejects shows its limit by itself. One that queues shows it only by a test:
        # without one, a baseline that was measured with a queue already there would never be
        # corrected.
        elif self._epochs >= _DIP_EVERY and not self._rejects:
            self._resume = _Phase.HOLD
            self._test(sample, 1.0, self.limit)

    # --- latency

    def _is_slow(self, sample: _Mean, *, bound: bool) -> bool:
        # A slight rise is no reason to look into it where a server turns calls away instead, nor
        # while growing: whatever is in between has some, and going too high is mended soon.
        lenient = self._rejects or (bound and self._phase is _Phase.GROW)
        return self._is_above(_LONG_QUEUE if lenient else _QUEUE, sample)

    def _is_above(self, factor: float, sample: _Mean) -> bool:
        """Whether latency is above so many times the baseline, and not by chance."""
        if not self._base_count:
            return False
        # The baseline is a mean as well, of a similar spread.
        error = sample.error() * math.sqrt(1.0 + sample.count / self._base_count)
        return sample.mean - factor * self._base > 2 * error

    def _fold(self, sample: _Mean) -> None:
        """Let a run without a queue improve the baseline."""
        self._base_count = min(self._base_count, _ENOUGH) + sample.count
        self._base += (sample.mean - self._base) * sample.count / self._base_count

    def _confirm(self, sample: _Mean, used: int) -> None:
        """Test a rise of latency that lasts; while a queue builds up, a mean is between two."""
        if self._is_slow(sample, bound=True):
            self._test(sample, self._base / sample.mean, used)
        else:
            self._phase = self._resume

    def _test(self, sample: _Mean, ratio: float, used: int) -> None:
        """Go below the slots that were used, to see whether latency falls with them."""
        if used < 2 or not sample.mean:  # noqa: PLR2004  (nothing is below one)
            self._hold()
            return
        self._phase = _Phase.TEST
        self._before = sample.mean
        self._restore, self._fell_from = self.limit, used
        share = min(max(ratio * _HEADROOM, _DEEPEST_DIP), _DIP)
        self._set(max(min(round(used * share), used - 1), 1))

    def _judge(self, sample: _Mean) -> None:
        """Decide whether there was a queue: then latency fell with the limit."""
        # By Little's law, latency under a queue is proportional to the calls in flight: it falls by
        # the same share as the limit. Without a queue it does not fall at all.
        expected = 1.0 - self.limit / self._fell_from
        elastic = (1.0 - sample.mean / self._before) / expected
        phase, self._phase = self._resume, _Phase.HOLD
        self._epochs = 0
        self._unsure = False
        if elastic < 0.5:  # noqa: PLR2004  (nearer to "not at all" than to "as much")
            # Calls take longer than they did, for reasons of their own. Far longer than just before
            # the test, though: something has changed meanwhile, which is tested anew.
            if sample.mean < _LONG_QUEUE * self._before:
                self._base, self._base_count = sample.mean, sample.count
            self._phase = phase
            self._set(self._restore)
            return
        still = elastic > 0.95  # noqa: PLR2004  (in full: the test itself may have been too high)
        if sample.mean < self._base:
            self._base, self._base_count = sample.mean, sample.count
        capacity = self._fell_from * self._base / self._before
        self._hold()
        self._unsure = still
        if still:
            self._epochs = _DIP_EVERY - _DIP_SOON
        # One slot at least: of a few, an estimate that is one too low costs a lot.
        wanted = max(math.ceil(capacity * _HEADROOM), round(capacity) + 1)
        least = self.limit if still and self.limit <= _FEW else self.limit // 2
        self._set(max(wanted, least))

    def _set(self, limit: int) -> None:
        limit = min(max(limit, 1), _MOST)
        if limit != self.limit:
            # As many calls as were in flight under the old limit end first; their latency is of
            # that limit.
            self._skip = max(self.limit, limit)
            self.limit = limit
            self._clear()

    def _clear(self) -> None:
        self._sample, self._bound, self._used = _Mean(), 0, 0


def concurrency(
    places: int | Literal["auto"] | None,
) -> tuple[AdaptiveConcurrency | None, float]:
    """The adaptive limiter, if ``RateLimit.max_concurrency`` asks for it, and the slots now."""
    if places == "auto":
        adaptive = AdaptiveConcurrency()
        return adaptive, adaptive.limit
    return None, math.inf if places is None else places
