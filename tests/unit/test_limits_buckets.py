"""The arithmetic of the limits, against simple models and against strict sliding windows."""

import random

import aiolimiter
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from konko_async.limits import RequestBucket, SlidingSum, TokenBucket
from konko_async.limits._window import COVER
from konko_async.testing import jumping_time

gaps = st.floats(0, 30) | st.just(0.0) | st.floats(0, 1)


def busiest(events, window):
    """The most that any `window` seconds saw, half-open, as a strict server counts."""
    most = total = 0
    start = 0
    for at, amount in events:
        total += amount
        while events[start][0] <= at - window:
            total -= events[start][1]
            start += 1
        most = max(most, total)
    return most


def drain(bucket, amount, until, start=0.0, late=lambda: 0.0):
    """Take `amount` as soon as it fits, again and again; when that was."""
    now, events = start, []
    while now <= until:
        if bucket.try_take(now, amount) is not None:
            events.append((now, amount))
        else:
            now += max(bucket.delay(now, amount), 1e-6) + late()
    return events


# --- the sliding sum


@settings(deadline=None)
@given(st.lists(st.tuples(gaps, st.integers(0, 50)), max_size=60))
def test_the_sum_is_never_too_low_and_hardly_too_high(steps):
    total, now, events = SlidingSum(10.0), 0.0, []
    for gap, amount in steps:
        now += gap
        total.add(now, amount)
        events.append((now, amount))
        total.expire(now)
        assert total.total >= sum(a for t, a in events if t > now - 10.0)
        assert total.total <= sum(a for t, a in events if t > now - 10.0 * 1.0076)
    assert len(total._slots) <= 202


def test_a_sum_of_fractions_ends_at_zero():
    total = SlidingSum(1.0)
    for index in range(1000):
        total.add(index / 1000, 0.1)
    total.expire(10.0)
    assert total.total == 0.0
    assert total.expires == float("inf")
    assert total.delay(10.0, 5.0) == 0.0


def test_a_correction_counts_at_the_time_of_the_charge():
    total = SlidingSum(60.0)
    charge = total.add(0.0, 100)
    total.add(30.0, 10)
    assert total.correct(charge, -60)
    assert total.total == 50
    total.expire(61.0)
    assert total.total == 10
    assert not total.correct(charge, 500)
    assert total.total == 10


def test_how_long_until_so_much_has_expired():
    total = SlidingSum(60.0)
    for at in (0.0, 10.0, 20.0):
        total.add(at, 5)
    assert total.delay(20.0, 5) == pytest.approx(40.45)
    assert total.delay(20.0, 6) == pytest.approx(50.45)
    assert total.delay(20.0, 500) == pytest.approx(60.45)


# --- requests


@pytest.mark.parametrize("limit", [1, 2, 7, 30, 60, 99, 150, 500, 3000])
@pytest.mark.parametrize("window", [1.0, 60.0])
def test_nearly_all_of_a_strict_window_is_used_and_never_more(limit, window):
    late = random.Random(limit)
    bucket = RequestBucket(limit, window)
    events = drain(bucket, 1, 4 * window, late=lambda: late.uniform(0, 0.002 * window / limit))
    assert busiest(events, window) <= limit
    assert len(events) >= 0.98 * limit * 4


@pytest.mark.parametrize("burst", [1, 5, 30, 60])
def test_whatever_the_burst_the_window_holds(burst):
    bucket = RequestBucket(60, burst=burst)
    events = drain(bucket, 1, 240.0)
    assert busiest(events, 60) <= 60
    assert sum(1 for at, _ in events if at == 0.0) == burst


def test_aiolimiter_alone_does_not_keep_the_window():
    # Why we do not use it with its obvious parameters.
    bucket = RequestBucket(60)
    bucket.max_rate, bucket.time_period, bucket._rate_per_sec, bucket._grace = 60, 60, 1, 60
    bucket.limit = 1e9
    assert busiest(drain(bucket, 1, 120.0), 60) > 115


@settings(deadline=None)
@given(st.integers(1, 500), st.lists(gaps, max_size=150), st.data())
def test_no_pattern_of_calls_breaks_the_window(limit, steps, data):
    bucket, now, events = RequestBucket(limit, 10.0), 0.0, []
    for gap in steps:
        now += gap / 10
        for _ in range(data.draw(st.sampled_from([1, 2, 20]))):
            if bucket.try_take(now) is not None:
                events.append((now, 1))
    if events:
        assert busiest(events, 10.0) <= limit


@settings(deadline=None)
@given(
    st.integers(1, 80),
    st.lists(st.tuples(gaps, st.sampled_from(["take", "take", "refund"])), max_size=100),
)
def test_refunds_do_not_break_the_window_of_what_was_sent(limit, steps):
    bucket, now, held, sent = RequestBucket(limit, 10.0), 0.0, [], []
    for gap, what in steps:
        now += gap / 10
        if what == "take":
            charge = bucket.try_take(now)
            if charge is not None:
                held.append((now, charge))
        elif held:
            bucket.settle(now, held.pop(len(held) // 2)[1], 1, 0)
    sent = [(at, 1) for at, _ in held]
    if sent:
        assert busiest(sent, 10.0) <= limit


def test_a_refund_at_once_is_complete():
    bucket = RequestBucket(60)
    charge = bucket.try_take(5.0)
    assert bucket.try_take(5.0) is None
    bucket.settle(5.0, charge, 1, 0)
    assert bucket.spent.total == 0
    assert bucket.try_take(5.0) is not None


@jumping_time
async def test_the_level_is_aiolimiters():
    """The same decisions as AsyncLimiter with the same parameters, on a common clock."""
    import asyncio

    loop, chance = asyncio.get_running_loop(), random.Random(3)
    ours = RequestBucket(600, 60.0, burst=20)
    theirs = aiolimiter.AsyncLimiter(ours.max_rate, ours.time_period)
    taken = 0
    for _ in range(2000):
        await asyncio.sleep(chance.expovariate(9.0))
        fits = theirs.has_capacity(1)
        assert (ours.delay(loop.time()) == 0.0) is fits
        if fits:
            await theirs.acquire(1)
            assert ours.try_take(loop.time()) is not None
            taken += 1
        else:
            assert ours.try_take(loop.time()) is None
        assert ours._level == pytest.approx(theirs._level)
    assert taken > 500


def test_after_a_long_sleep_there_is_one_burst_and_no_more():
    bucket = RequestBucket(6000)
    drain(bucket, 1, 30.0)
    burst = len(drain(bucket, 1, 100_000.0, start=100_000.0))
    assert burst == 60


def test_a_hold_lets_one_through_when_it_ends():
    bucket = RequestBucket(6000)
    bucket.hold(50.0)
    assert bucket.try_take(49.9) is None
    assert bucket.delay(20.0) == pytest.approx(30.0)
    assert bucket.try_take(50.0) is not None
    assert bucket.try_take(50.0) is None


def test_a_lower_limit_holds_at_once_and_a_higher_one_too():
    bucket = RequestBucket(600)
    events = drain(bucket, 1, 60.0)
    bucket.resize(60.0, 60)
    assert bucket.try_take(60.0) is None  # 590 in the window
    later = drain(bucket, 1, 240.0, start=60.0)
    assert busiest([e for e in later if e[0] > 121], 60) <= 60
    assert events
    bucket.resize(240.0, 600)
    assert len(drain(bucket, 1, 300.0, start=240.0)) > 500


# --- tokens


@settings(deadline=None)
@given(
    st.integers(100, 100_000),
    st.lists(st.tuples(gaps, st.integers(0, 20_000)), max_size=120),
)
def test_what_fits_after_its_delay_does(limit, steps):
    bucket, now = TokenBucket(limit, 10.0), 0.0
    for gap, amount in steps:
        now += gap / 10
        if bucket.try_take(now, amount) is None:
            wait = bucket.delay(now, amount)
            assert wait > 0
            for _ in range(3):  # the window may ask for more once the level is there
                now += wait
                wait = bucket.delay(now, amount)
            assert bucket.try_take(now + 1e-6, amount) is not None


@settings(deadline=None)
@given(st.lists(st.tuples(gaps, st.integers(1, 1000), st.floats(0, 1)), max_size=120))
def test_real_usage_keeps_the_window_if_estimates_are_high_enough(steps):
    bucket, now, sent = TokenBucket(2000, 10.0), 0.0, []
    pending = []
    for gap, amount, share in steps:
        now += gap / 20
        while pending and pending[0][0] < now:
            _, charge, reserved, used = pending.pop(0)
            bucket.settle(now, charge, reserved, used)
        charge = bucket.try_take(now, amount)
        if charge is not None:
            used = int(amount * share)
            sent.append((now, used))
            pending.append((now + share * 3, charge, amount, used))
            pending.sort(key=lambda entry: entry[0])
    if sent:
        assert busiest(sent, 10.0) <= 2000


@pytest.mark.parametrize(("limit", "amount"), [(100_000, 300), (90_000, 1000), (10_000, 10)])
def test_nearly_all_tokens_are_used(limit, amount):
    events = drain(TokenBucket(limit), amount, 240.0)
    assert busiest(events, 60) <= limit
    assert sum(a for _, a in events) >= 0.98 * 4 * limit


def test_estimates_five_times_too_high_cost_only_what_is_reserved_in_flight():
    bucket, now, running, sent = TokenBucket(60_000), 0.0, [], []
    while now < 300:
        for entry in [e for e in running if e[0] <= now]:
            running.remove(entry)
            bucket.settle(now, entry[1], 1000, 200)
        charge = bucket.try_take(now, 1000)
        if charge is not None:
            running.append((now + 2.0, charge))
            sent.append((now, 200))
        else:
            wake = now + bucket.delay(now, 1000)
            now = max(min([wake, *(e[0] for e in running)]), now + 1e-6)
    assert busiest(sent, 60) <= 60_000
    # Ten calls in flight hold 800 tokens each that nobody will use.
    assert sum(a for at, a in sent if at >= 60) >= 0.98 * 4 * (60_000 - 10 * 800)


@pytest.mark.parametrize("amount", [900, 5_000, 60_000, 90_000, 1_000_000])
def test_no_amount_waits_for_ever_or_is_had_cheaper(amount):
    bucket = TokenBucket(90_000)
    events = drain(bucket, amount, 3600.0)
    assert len(events) >= 3
    # In the long run each is paid in full.
    taken, seconds = sum(a for _, a in events[1:]), events[-1][0] - events[0][0]
    assert taken / seconds <= 90_000 / 60 * 1.001


def test_a_large_one_waits_for_the_level_and_leaves_a_debt():
    bucket = TokenBucket(60_000)
    assert bucket.try_take(0.0, 600) is not None
    assert bucket.try_take(0.0, 6000) is None
    wait = bucket.delay(0.0, 6000)
    assert wait == pytest.approx(600 / bucket.rate)
    assert bucket.try_take(wait, 6000) is not None
    assert bucket.delay(wait, 600) == pytest.approx(6000 / bucket.rate, rel=1e-3)


def test_more_used_than_reserved_is_a_debt():
    bucket = TokenBucket(60_000)
    charge = bucket.try_take(0.0, 100)
    bucket.settle(1.0, charge, 100, 20_000)
    assert bucket.spent.total == 20_000
    assert bucket.delay(1.0, 100) > 15
    # Also if the call took longer than the window.
    charge = bucket.try_take(100.0, 100)
    bucket.settle(200.0, charge, 100, 20_100)
    assert bucket.spent.total == 20_000
    charge = bucket.try_take(300.0, 100)
    bucket.settle(400.0, charge, 100, 0)
    assert bucket.delay(400.0, 600) == 0


def test_credit_that_nobody_takes_fades():
    bucket = TokenBucket(60_000)
    charge = bucket.try_take(0.0, 30_000)
    bucket.settle(29.0, charge, 30_000, 0)
    assert bucket._level < -25_000
    bucket.try_take(60.0, 0)
    assert bucket._level == 0


def test_tokens_hold_and_resize_and_shift():
    bucket = TokenBucket(60_000)
    bucket.hold(10.0)
    assert bucket.try_take(9.0, 1) is None
    assert bucket.delay(9.0, 1) == pytest.approx(1.0)
    assert bucket.try_take(10.0, 300) is not None
    assert bucket.try_take(10.0, 300) is None
    bucket.resize(10.0, 6_000)
    assert bucket.burst == pytest.approx(60)
    bucket.shift(-10.0)
    assert bucket.try_take(0.0, 100) is None
    assert bucket.spent.total == 300


class Buckets(RuleBasedStateMachine):
    """Both buckets against a list of what was charged: nothing is lost, nothing is too much."""

    @initialize(limit=st.integers(1, 100))
    def begin(self, limit):
        self.now = 0.0
        self.limit = limit
        self.requests = RequestBucket(limit, 10.0)
        self.tokens = TokenBucket(limit * 100, 10.0)
        self.held = []
        self.sent = []  # (when, requests, tokens) as a server counts

    @rule(gap=gaps)
    def wait(self, gap):
        self.now += gap / 3

    @rule(amount=st.integers(0, 3000))
    def take(self, amount):
        before = (self.requests._level, self.tokens._level)
        request = self.requests.try_take(self.now, 1)
        if request is None:
            return
        token = self.tokens.try_take(self.now, amount)
        if token is None:
            self.requests.settle(self.now, request, 1, 0)
            assert self.requests._level <= before[0] + 1e-9
        else:
            entry = [self.now, 1, amount]
            self.sent.append(entry)
            self.held.append((entry, request, token, amount))

    @rule(index=st.integers(0, 10), share=st.floats(0, 1))
    def settle(self, index, share):
        if self.held:
            entry, _, token, amount = self.held.pop(index % len(self.held))
            entry[2] = int(amount * share)
            self.tokens.settle(self.now, token, amount, entry[2])

    @rule(index=st.integers(0, 10))
    def refund(self, index):
        if self.held:
            entry, request, token, amount = self.held.pop(index % len(self.held))
            self.requests.settle(self.now, request, 1, 0)
            self.tokens.settle(self.now, token, amount, 0)
            entry[1] = entry[2] = 0

    @invariant()
    def windows_hold(self):
        if not getattr(self, "sent", None):
            return
        assert busiest([(e[0], e[1]) for e in self.sent], 10.0) <= self.limit
        oversize = any(e[2] > self.limit * 100 for e in self.sent)
        assert oversize or busiest([(e[0], e[2]) for e in self.sent], 10.0) <= self.limit * 100
        for bucket, index in ((self.requests, 1), (self.tokens, 2)):
            bucket.spent.expire(self.now)
            assert bucket.spent.total >= sum(e[index] for e in self.sent if e[0] > self.now - 10.0)
            assert bucket.spent.total <= sum(e[index] for e in self.sent if e[0] > self.now - 10.08)


TestBuckets = Buckets.TestCase
TestBuckets.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


# --- both: what is changed while calls run


@pytest.mark.parametrize("make", [RequestBucket, TokenBucket])
def test_a_bucket_that_was_resized_is_as_one_made_so(make):
    for burst, later in ((None, None), (12, 72)):
        resized, made = (
            make(100, burst=burst),
            make(600, burst=later if make is TokenBucket else burst),
        )
        assert resized.share == made.share == 1.0
        resized.resize(0.0, 600)
        for name in ("limit", "burst", "rate", "share", "_grace"):
            assert getattr(resized, name) == pytest.approx(getattr(made, name)), name
        left = [[at for at, _ in drain(one, 1, 90.0)] for one in (resized, made)]
        assert left[0] == pytest.approx(left[1])
        resized.resize(90.0, 600, 0.5)
        assert resized.rate == pytest.approx(made.rate / 2)
        assert (resized.burst, resized.limit, resized.share) == (made.burst, 600, 0.5)


@pytest.mark.parametrize("make", [RequestBucket, TokenBucket])
def test_what_is_owed_leaks_at_the_buckets_pace_whoever_looks(make):
    one, other = make(600), make(600)
    for bucket in (one, other):
        while bucket.try_take(100.0, 1.0) is not None:
            pass
    for at in (100.0, 100.3, 100.31, 100.31):
        one.resize(at, 600)  # looks, and changes nothing
        assert one.delay(at, 4.0) == pytest.approx(other.delay(at, 4.0))
    one.hold(100.2)  # in the past
    assert one.delay(101.0, 4.0) == pytest.approx(other.delay(101.0, 4.0))


@pytest.mark.parametrize("share", [0.001, 0.5, 1.0, 3.0])
def test_a_larger_burst_of_tokens_is_paid_for_by_the_pace(share):
    limit = 6000.0
    bucket = TokenBucket(limit, burst=limit * share)
    # The last hundredth is left to the window; a burst of more than the limit leaves one as well.
    assert bucket.burst == limit * share
    excess = max(limit * share - limit / 100, 0.0)
    assert bucket.rate * 60.0 * COVER == pytest.approx(max(limit - excess, limit / 100))


def test_the_window_holds_where_the_pace_would_allow_more():
    spent = SlidingSum(60.0)
    bucket = TokenBucket(1000, burst=500, spent=spent)
    spent.add(0.0, 900)  # by another bucket of the same window
    assert bucket.try_take(0.0, 101) is None
    assert bucket.delay(0.0, 101) == pytest.approx(60.0, rel=0.02)
    assert bucket.try_take(0.0, 100) is not None


def test_waits_for_the_window_count_the_call_and_what_is_ahead_of_it():
    spent = SlidingSum(60.0)
    bucket = RequestBucket(600, spent=spent)
    spent.add(0.0, 595)
    assert bucket.delay(1.0, 4.0, ahead=1.0) == 0.0
    assert bucket.delay(1.0, 4.0, ahead=2.0) == pytest.approx(59.0, rel=0.02)
    assert bucket.delay(1.0, 1.0, ahead=4.0) == 0.0


@pytest.mark.parametrize(("amount", "ahead"), [(4.0, 0.0), (4.0, 3.0), (1.0, 9.0)])
def test_waits_for_the_pace_count_the_call_and_what_is_ahead_of_it(amount, ahead):
    bucket = RequestBucket(6000, burst=10)
    while bucket.try_take(0.0, 1.0) is not None:
        pass
    # Ten have left; half of one is there to forgive late timers.
    wanted = (amount + ahead - 0.5) / bucket.rate
    assert bucket.delay(0.0, amount, ahead=ahead) == pytest.approx(wanted, rel=1e-6)


def test_a_call_larger_than_the_limit_owes_no_more_than_it_took():
    bucket = TokenBucket(1000)
    charge = bucket.try_take(0.0, 2000)
    bucket.settle(1.0, charge, 2000, 3000)
    assert bucket.spent.total == 2000
    charge = bucket.try_take(200.0, 10)
    bucket.settle(201.0, charge, 10, 10.5)
    assert bucket.spent.total == 10.5, "the least excess counts"
    smaller = TokenBucket(1000)
    charge = smaller.try_take(0.0, 400)
    smaller.settle(1.0, charge, 400, 1e308)
    assert smaller.spent.total == 1000
    assert smaller.delay(1.0, 10) <= 60 * COVER
