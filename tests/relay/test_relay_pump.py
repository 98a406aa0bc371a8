"""The pump by itself, in time that is passed in: when what is written, and who leaves when."""

import asyncio
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from konko_async.errors import ConfigurationError
from konko_async.relay import Delivery, ReaderGoneError, pump
from konko_async.relay._formats.sse_frames import PING
from konko_async.relay._streams.cancel_scope import ReaderWatch, Scope
from konko_async.testing import jumping_time, run_with_jumping_time


class Tokens:
    """A source: what has come since the last read, as a socket would give it."""

    headers = {}  # noqa: RUF012 - never changed

    def __init__(self, *at):
        self.at, self.closed = list(at), 0

    async def read(self):
        if not self.at:
            return None
        now = asyncio.get_running_loop().time()
        if self.at[0] > now:
            await asyncio.sleep(self.at[0] - now)
            now = self.at[0]
        come = [at for at in self.at if at <= now]
        del self.at[: len(come)]
        return b"".join(b"%g " % at for at in come)

    def stop(self, reason):
        raise NotImplementedError

    async def close(self):
        self.closed += 1


class Browser:
    """A sink that notes what it is given, and when."""

    def __init__(self, *, leaves=None, takes=0.0):
        self.leaves, self.takes, self.got = leaves, takes, []

    def gone(self):
        return self.leaves is not None and asyncio.get_running_loop().time() >= self.leaves

    async def write(self, frames):
        self.got.append((round(asyncio.get_running_loop().time(), 3), frames))
        await asyncio.sleep(self.takes)
        if self.gone():
            raise ConnectionResetError


@jumping_time
async def test_each_read_is_written_at_once():
    source, browser = Tokens(1, 1, 2, 2.01, 3), Browser()
    assert await pump(source, browser) == "done"
    assert browser.got == [(1, b"1 1 "), (2, b"2 "), (2.01, b"2.01 "), (3, b"3 ")]
    assert source.closed == 1


@jumping_time
async def test_coalescing_never_delays_the_first():
    source, browser = Tokens(1, 1.02, 1.04, 1.09, 1.12, 5, 5.01), Browser()
    await pump(source, browser, Delivery(flush_every=0.1))
    assert browser.got == [
        (1, b"1 "),
        (1.1, b"1.02 1.04 1.09 "),
        (1.2, b"1.12 "),
        (5, b"5 "),
        (5.1, b"5.01 "),
    ]


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.floats(0, 3, width=16), min_size=1, max_size=40),
    st.sampled_from([None, 0.01, 0.1, 0.5]),
    st.sampled_from([0.0, 0.03, 0.4]),
)
def test_no_token_waits_for_longer_than_was_said(pauses, every, takes):
    run_with_jumping_time(_pace(pauses, every, takes))


async def _pace(pauses, every, takes):
    at = list(itertools.accumulate(pauses))
    browser = Browser(takes=takes)
    assert await pump(Tokens(*at), browser, Delivery(flush_every=every)) == "done"
    written = [(when, float(token)) for when, tokens in browser.got for token in tokens.split()]
    assert [token for _, token in written] == [float(f"{token:g}") for token in at]
    longest = (every or 0) + takes  # the write before it, too, may have to be waited for
    assert all(when - token <= longest + 0.002 for when, token in written)
    if every is not None:
        times = [when for when, _ in browser.got]
        assert all(after - before >= every - 0.002 for before, after in itertools.pairwise(times))


@jumping_time
async def test_heartbeats_come_in_silence_only():
    source, browser = Tokens(1, 2, 40, 41), Browser()
    await pump(source, browser, Delivery(heartbeat=15, look=0.5))
    assert browser.got == [
        (1, b"1 "),
        (2, b"2 "),
        (17, PING),
        (32, PING),
        (40, b"40 "),
        (41, b"41 "),
    ]


@jumping_time
async def test_no_heartbeats():
    browser = Browser()
    await pump(Tokens(1000), browser, Delivery(heartbeat=None))
    assert browser.got == [(1000, b"1000 ")]


@jumping_time
async def test_an_early_heartbeat():
    browser = Browser()
    await pump(Tokens(1), browser, early=True)
    assert browser.got == [(0, PING), (1, b"1 ")]


@jumping_time
async def test_frames_never_overtake_a_heartbeat_that_is_being_written():
    source, browser = Tokens(10.2, 30), Browser(takes=1)
    await pump(source, browser, Delivery(heartbeat=10, look=1))
    assert browser.got == [(10, PING), (11, b"10.2 "), (22, PING), (30, b"30 ")]


@pytest.mark.parametrize("leaves", [0.1, 1.7, 5])
@jumping_time
async def test_a_browser_that_leaves_is_noticed_within_a_look(leaves):
    source, browser = Tokens(1, 2, 3, 100), Browser(leaves=leaves)
    assert await pump(source, browser) == "gone"
    assert asyncio.get_running_loop().time() <= leaves + 0.25 + 1e-6
    assert source.closed == 1


@jumping_time
async def test_a_browser_that_leaves_during_a_heartbeat():
    source, browser = Tokens(100), Browser(leaves=15.4, takes=0.5)
    assert await pump(source, browser) == "gone"
    assert asyncio.get_running_loop().time() < 16
    assert source.closed == 1


@jumping_time
async def test_a_write_that_takes_too_long():
    source, browser = Tokens(1, 2), Browser(takes=1000)
    assert await pump(source, browser, Delivery(write_timeout=20)) == "gone"
    assert 20 < asyncio.get_running_loop().time() < 22
    source, browser = Tokens(1, 2), Browser(takes=1000)
    assert await pump(source, browser, Delivery(write_timeout=None)) == "done"


@jumping_time
async def test_a_heartbeat_that_takes_too_long():
    source, browser = Tokens(1000), Browser(takes=1000)
    assert await pump(source, browser, Delivery(heartbeat=1, write_timeout=20)) == "gone"
    assert asyncio.get_running_loop().time() < 23


@jumping_time
async def test_cancellation_is_passed_on_and_closes_the_source():
    for source, browser in ((Tokens(100), Browser()), (Tokens(1), Browser(takes=100))):
        pumping = asyncio.create_task(pump(source, browser))
        await asyncio.sleep(10)
        pumping.cancel()
        with pytest.raises(asyncio.CancelledError):
            await pumping
        assert source.closed == 1


@jumping_time
async def test_a_cancellation_beside_a_disconnect_is_not_swallowed():
    left = False

    async def waiting():
        with ReaderWatch(lambda: left, 1):
            await asyncio.sleep(100)

    task = asyncio.create_task(waiting())
    await asyncio.sleep(0.5)
    left = True
    asyncio.get_running_loop().call_later(0.5, task.cancel)  # at the very same moment
    with pytest.raises(asyncio.CancelledError):
        await task


@jumping_time
async def test_a_watch_ends_a_block_and_nothing_else():
    with pytest.raises(ReaderGoneError), ReaderWatch(lambda: True, 1):
        await asyncio.sleep(100)
    with ReaderWatch(lambda: False, 1):
        await asyncio.sleep(100)
    with pytest.raises(LookupError), ReaderWatch(lambda: False, 1):
        raise LookupError
    await asyncio.sleep(100)
    assert asyncio.current_task().cancelling() == 0


@jumping_time
async def test_a_scope_is_left_from_outside_and_may_be_entered_again():
    scope = Scope()
    scope.interrupt()  # nobody is inside: nothing
    for _ in range(2):
        with scope:
            await asyncio.sleep(1)
    asyncio.get_running_loop().call_later(5, scope.interrupt)
    with scope:
        await asyncio.sleep(100)
    assert asyncio.get_running_loop().time() == 7
    assert scope.interrupted
    assert asyncio.current_task().cancelling() == 0


@pytest.mark.parametrize(
    "wrong",
    [{"heartbeat": 0}, {"look": None}, {"look": True}, {"flush_every": -1}, {"write_timeout": "1"}],
)
def test_delivery_is_checked(wrong):
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        Delivery(**wrong)
