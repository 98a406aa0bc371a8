"""An event loop on whose clock work takes no time, for tests that hold both ends of a connection.

Where the client and its server share a loop, a timer that fires because the machine is slow tells
nothing of either. On this loop the clock moves while the loop waits, and not while it works, and it
works off what has arrived before a timer is due. So a deadline of 50 ms passes only if the test
has come to wait for 50 ms, be it on the slowest machine, and what the test expects to happen within
the deadline does.
"""

import time

from konko_async.testing import TimeJumpingLoop

# The most that one wait counts if it ends with something to do. A process that stands still in it
# has waited far longer; a peer that sends without end must not hold the clock up for ever.
_COUNTED = 0.001
# What an iteration counts that waits for nothing: a test may go round until some time has passed, and
# a timer that fires a trifle early may ask again at once.
_ROUND = 5e-5


class SteadyLoop(TimeJumpingLoop):
    """Waits in real time, for sockets as for timers; only waiting counts.

    The time goes on from where the operating system's is, as many tests and libraries compare the two.
    """

    def __init__(self):
        super().__init__()
        self._selector_of_time.now = time.monotonic()
        self._selector_of_time.select = self._select

    def _select(self, timeout=None):
        clock = self._selector_of_time
        start = time.monotonic()
        events = clock._real.select(timeout)
        if events:
            clock._pass(min(time.monotonic() - start, _COUNTED))
        else:
            clock._pass(timeout or _ROUND)
        return events
