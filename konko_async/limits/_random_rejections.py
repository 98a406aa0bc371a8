"""Tells rejections that come at random from those of a limit, by the fate of the calls beside them.

A server at its limit rejects all that is sent after the first rejection, until there is room again.
A gateway with one bad replica rejects one call in five whatever the load, and answers the others.
Both say 429 with ``retry-after``, so one rejection alone is always taken for a limit. What tells
them apart are calls that were sent *after* a rejected one: on the way already, or sent as a probe
during the cool-down. One probe that is answered is not enough, as a token bucket has room for one
call soon; it is followed by a trial of a few calls in a row.
"""

from __future__ import annotations

import math
from typing import Final, Literal

__all__ = ["TRIAL", "RandomRejections"]

Verdict = Literal["unknown", "probe", "trial", "random"]

TRIAL: Final = 4
"""Calls of a trial."""

# Two answers before three rejections decide a trial. Of one call in five rejected at random, 97 %
# pass; a bucket that refills slower than calls are sent has no room for two of four.
_TRIAL_PASSED: Final = 2
_TRIAL_FAILED: Final = 3
# Seconds into a cool-down at which a probe is sent; the next one after four times as long.
_PROBE_AFTER: Final = 0.05
_PROBE_SPACING: Final = 4.0
# Of one call in five rejected at random, two probes fail both in 4 % of the cases, four in 0.2 %;
# four are sent where rejections proved to be random before.
_PROBES: Final = 2
_PROBES_IF_KNOWN: Final = 4
# Cool-downs that pass without a probe after one that the probes confirmed: 0, 1, 2, 4 up to this,
# so that a limited server sees few of them.
_MOST_SKIPPED: Final = 64
# Answers to calls that were on their way, less rejections; connections may reorder one or two.
_CLEAR: Final = 3
_MOST_PROBES: Final = 32  # that are on their way
_STRONG: Final = 2  # what an answer to a probe counts
# The share of rejections, as an average over about ten calls sent, above which they are no longer
# presumed to be random: five in a row where one in five was; and as one over fifty calls.
_WEIGHT: Final = 0.1
_FIRST_SHARE: Final = 0.2
_MOST_SHARE: Final = 0.5
_SLOW_WEIGHT: Final = 0.02
_MOST_FOR_LONG: Final = 0.35
# A wait this many times longer than those that proved to be random is looked into again.
_LONGER: Final = 2.0
# Seconds without a rejection after which everything is forgotten.
_FORGET_AFTER: Final = 120.0


class RandomRejections:
    """The evidence of one lane; pure, the time is passed in.

    Attributes:
        confirmed: whether the last episode was due to a limit, as probes were rejected.
        watching: whether answers are evidence now, so that :meth:`answered` has to be called.
    """

    __slots__ = (
        "_answered", "_balance", "_doubted", "_episodes", "_first_sent", "_known_at",
        "_known_wait", "_last", "_probes", "_proved", "_sent", "_share", "_skip", "_skipped",
        "_slow_share", "_trial_rejected", "_trying", "_until", "_wait", "confirmed", "watching",
    )  # fmt: skip

    def __init__(self) -> None:
        self.watching = self.confirmed = False
        self._last = -math.inf
        self._forget()

    def _forget(self) -> None:
        self._known_wait = 0.0  # the longest wait that proved to be at random; 0: none did
        self._proved = False  # some did, and no limit was found since
        self._share = self._slow_share = 0.0
        self._episodes = 0
        self._skip = self._skipped = 0
        self._balance = 0
        # When probes were sent, whether in a trial, and how many at that moment: answers may take
        # longer than cool-downs.
        self._sent: dict[float, tuple[bool, int]] = {}
        self._end()

    def _end(self) -> None:
        self._first_sent = self._known_at = math.inf
        self._until = -math.inf
        self._wait = 0.0
        self._trying = False
        self._probes = self._answered = self._trial_rejected = 0
        self._doubted = False
        self.watching = self._known_wait > 0

    def is_old(self, now: float) -> bool:
        """Whether the last rejection was so long ago that nothing follows from it."""
        return now - self._last > _FORGET_AFTER

    def presumed(self, now: float, wait: float) -> bool:
        """Whether a rejection is taken for a random one, which concerns its own call only.

        Args:
            now: the time.
            wait: seconds that the server asked for, or those of the back-off.
        """
        if self.is_old(now):
            self._forget()
        self._last = now
        if not self._known_wait or wait > self._known_wait * _LONGER:
            return False
        self._share += _WEIGHT
        self._slow_share += _SLOW_WEIGHT
        if self._share <= _MOST_SHARE and self._slow_share <= _MOST_FOR_LONG:
            return True
        self._confirm()
        return False

    def sent(self) -> None:
        """Note a call that is sent: the share is that of calls sent, as answers take longer."""
        self._share -= self._share * _WEIGHT
        self._slow_share -= self._slow_share * _SLOW_WEIGHT

    def _confirm(self) -> None:
        """Conclude that the rejections are those of a limit."""
        self.confirmed = True
        self._proved = False
        self._known_wait = 0.0
        self._balance = 0
        self._skip = min(self._skipped, _MOST_SKIPPED)
        self._skipped = max(self._skipped * 2, 1)

    def begin(self, now: float, sent_at: float, wait: float) -> float:
        """Note the first rejection of an episode.

        Returns:
            When a probe may be sent; ``inf`` for not before the cool-down is over. Never in the
            first episode: a server that really limits is to see no further call.
        """
        self._end()
        self._first_sent, self._known_at, self._until = sent_at, now, now + wait
        self._wait = wait
        self._episodes += 1
        self._balance -= 1
        self.confirmed = False
        self.watching = True
        if self._episodes == 1:
            return math.inf
        if self._skip:
            self._skip -= 1
            return math.inf
        return self._probe_at(now, _PROBE_AFTER)

    def _probe_at(self, now: float, after: float) -> float:
        at = now + after
        return at if at < self._until - after else math.inf

    def rejected(self, now: float, sent_at: float, wait: float) -> float | None:
        """Note a further rejection of an episode.

        Returns:
            When another probe may be sent, ``inf`` for none; None if nothing is new.
        """
        self._wait = max(self._wait, wait)
        self._until = max(self._until, now + wait)
        self._balance = max(self._balance - 1, -_CLEAR)
        trial = self._was_probe(sent_at)
        if trial is None:
            return None
        if trial:
            self._trial_rejected += 1
            if self._trial_rejected < _TRIAL_FAILED:
                return now if self._trying else None
            self._confirm()
            return math.inf
        self._probes += 1
        if self._episodes == 1:
            return math.inf
        another = self._probes < (_PROBES_IF_KNOWN if self._proved else _PROBES)
        at = self._probe_at(now, _PROBE_AFTER * _PROBE_SPACING) if another else math.inf
        if at == math.inf:
            self._confirm()
        return at

    def probed(self, now: float) -> None:
        """Note a call that is sent during a cool-down."""
        if len(self._sent) >= _MOST_PROBES:
            del self._sent[next(iter(self._sent))]
        self._sent[now] = self._trying, self._sent.get(now, (False, 0))[1] + 1

    def _was_probe(self, sent_at: float) -> bool | None:
        """Whether a call was a probe of a trial (True), another one (False) or none (None)."""
        found = self._sent.pop(sent_at, None)
        if found is None:
            return None
        trial, count = found
        if count > 1:
            self._sent[sent_at] = trial, count - 1
        return trial

    def answered(self, now: float, sent_at: float) -> Verdict:
        """Note a call that was answered.

        Returns:
            ``probe``: the cool-down may be a mistake; send one call to see. ``trial``: send
            :data:`TRIAL` calls to be sure. ``random``: it was a mistake.
        """
        trial = self._was_probe(sent_at)
        if trial is None and not self._first_sent < sent_at <= self._known_at:
            return "unknown"
        self._balance += 1 if trial is None else _STRONG
        self._answered += trial is True
        if self._answered >= _TRIAL_PASSED or self._balance >= _CLEAR:
            return self._acquit()
        if now >= self._until:
            return "unknown"
        if trial is False and not self._trying:
            self._trying = True
            return "trial"
        # One call is enough to see; a limited server rejects it as the first.
        if trial is not None or self._balance < 0 or self._doubted:
            return "unknown"
        self._doubted = True
        return "probe"

    def _acquit(self) -> Verdict:
        self._known_wait = max(self._known_wait, self._wait)
        self._proved = True
        self._skip = self._balance = 0
        self._skipped //= 4
        self._sent.clear()
        self._share = self._slow_share = _FIRST_SHARE
        self._end()
        return "random"

    def shift(self, delta: float) -> None:
        """Move to another clock."""
        self._last += delta
        self._first_sent += delta
        self._known_at += delta
        self._sent.clear()
        self._until += delta
