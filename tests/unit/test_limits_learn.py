"""What servers tell of their limits, read and never trusted."""

import asyncio
import itertools

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict

from konko_async import RateLimit
from konko_async.limits import Limiter, Reported, parse_duration, read_headers
from konko_async.limits._cooldown import MAX_PAUSE, Belief, Ramp, Strikes
from konko_async.testing import jumping_time


def now():
    return asyncio.get_running_loop().time()


def make_lane(**settings):
    return Limiter(RateLimit(**settings)).lane("model", "key")


def headers(kind="requests", **values):
    return {f"x-ratelimit-{name}-{kind}": str(value) for name, value in values.items()}


# --- reading


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("17ms", 0.017), ("59.977s", 59.977), ("6m0s", 360.0), ("1h2m", 3720.0), ("1h2m3.5s", 3723.5),
        ("1s500ms", 1.5), ("2d", 172_800.0), ("0s", 0.0), ("0", 0.0), ("12", 12.0), (" 1.5 ", 1.5),
        (".5", 0.5), ("1m", 60.0), ("90m", 5400.0), ("20ms", 0.02), ("1m20ms", 60.02),
    ],
)  # fmt: skip
def test_durations(text, seconds):
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "-1", "-5s", "inf", "nan", "Infinity", "1e9", "1e400", "0x10", "1_000", "s", "ms", "h", "1 s",
        "5s6m", "1s1s", "five", "½s", "१s", "9" * 40, "9" * 15, "367d", "999999h", "1.2.3", "+5", "5s\r\nx: y", "5S",
    ],
)  # fmt: skip
def test_what_is_no_duration(text):
    assert parse_duration(text) is None


@settings(deadline=None)
@given(st.text(max_size=40) | st.text("0123456789.dhms-+eE naif", max_size=20))
@example("9" * 31 + "s")
def test_any_text_is_a_sane_duration_or_none(text):
    seconds = parse_duration(text)
    assert seconds is None or 0 <= seconds <= 366 * 86_400


@settings(deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["limit", "remaining", "reset"]),
        st.text(max_size=40) | st.floats().map(str),
    )
)
def test_any_headers_are_sane_or_ignored(values):
    found = read_headers(headers(**values), "requests")
    if found is not None:
        assert found.limit is None or 1 <= found.limit <= 1e12
        assert found.remaining is None or 0 <= found.remaining <= 1e12
        assert found.limit is not None or found.remaining is not None


def test_headers():
    given = headers(limit=60, remaining=59, reset="1s") | headers(
        "tokens", limit="abc", remaining=-5
    )
    assert read_headers(given, "requests") == Reported(60.0, 59.0)
    assert read_headers(headers(remaining=0, reset="1s"), "requests") == Reported(None, 0.0, 1.0)
    assert read_headers(given, "tokens") is None
    assert read_headers({}, "requests") is None
    upper = CIMultiDict({"X-RateLimit-Remaining-Tokens": "7"})
    assert read_headers(upper, "tokens") == Reported(remaining=7.0)


@pytest.mark.parametrize("value", ["nan", "inf", "-1", "1e99", "", "9" * 30, "0x1", "60, 60"])
@jumping_time
async def test_garbage_changes_nothing(value):
    lane = make_lane(requests_per_minute=100)
    before = lane.snapshot()
    lane.observe_headers(headers(limit=value, remaining=value, reset=value))
    assert lane.snapshot() == before


# --- believing


@jumping_time
async def test_a_lower_limit_is_learned_and_a_higher_one_again():
    lane = make_lane(requests_per_minute=600)
    lane.observe_headers(headers(limit=60))
    shown = lane.snapshot().requests
    assert (shown.configured, shown.learned, shown.limit) == (600, 60, 60)
    lane.observe_headers(headers(limit=300))
    assert lane.snapshot().requests.limit == 300
    lane.observe_headers(headers(limit=6000))
    assert lane.snapshot().requests.limit == 600


@jumping_time
async def test_limits_nobody_configured_are_learned_too():
    lane = make_lane()
    assert not lane.counts_tokens
    for _ in range(10):
        lane.try_admit(0).release()
    lane.observe_headers(
        headers(limit=20, remaining=10) | headers("tokens", limit=1000, remaining=990)
    )
    assert lane.counts_tokens
    start, times = now(), []
    while len(times) < 25:
        permit = await lane.admit(1)
        times.append(now() - start)
        permit.release()
    # The ten from before it was known count as well.
    assert sum(1 for at in times if at < 60) <= 10
    assert sum(1 for at in times if 60 <= at < 120) <= 20


@jumping_time
async def test_learning_can_be_switched_off():
    lane = make_lane(requests_per_minute=600, learn=False)
    lane.observe_headers(headers(limit=6, remaining=0, reset="30s"))
    assert lane.try_admit(1) is not None
    lane.observe_rejection(None)
    assert lane.snapshot().requests.limit == 600
    assert lane.snapshot().paused_for > 0  # a rejection is not a rumour


@jumping_time
async def test_nothing_left_pauses_until_the_reset():
    lane = make_lane(requests_per_minute=60)
    lane.observe_headers(headers(limit=60, remaining=0, reset="10s"))
    assert lane.snapshot().paused_for == 10
    await lane.admit(1)
    assert now() == pytest.approx(10)
    unlimited = make_lane()
    unlimited.observe_headers(headers("tokens", remaining=0, reset="3s"))
    assert unlimited.snapshot().paused_for == 3
    # Of some other, longer limit: that one rejects by itself.
    unlimited.observe_headers(headers("tokens", remaining=0, reset="9999s"))
    assert unlimited.snapshot().paused_for == 3


@jumping_time
async def test_a_window_we_filled_ourselves_is_no_reason_to_pause():
    lane = make_lane(requests_per_minute=60)
    used = 0
    while now() < 180:
        permit = await lane.admit(1)
        permit.release()
        used += 1
        lane.observe_headers(
            headers(limit=60, remaining=0 if now() > 59 else 60 - used, reset="59s")
        )
    assert used >= 0.98 * 180


@jumping_time
async def test_what_other_processes_spend_is_adopted_and_given_back():
    lane = make_lane(requests_per_minute=100)
    (await lane.admit(1)).release()
    lane.observe_headers(headers(limit=100, remaining=20, reset="50s"))
    assert lane.snapshot().requests.available == pytest.approx(20)
    assert lane.snapshot().requests.used == pytest.approx(80)
    lane.observe_headers(headers(limit=100, remaining=70, reset="50s"))
    assert lane.snapshot().requests.available == pytest.approx(70)
    lane.observe_headers(headers(limit=100, remaining=99, reset="50s"))
    assert lane.snapshot().requests.used == pytest.approx(1)
    for left in (50, 40, 30):
        lane.observe_headers(headers(limit=100, remaining=left))
        await asyncio.sleep(70)
    assert lane.snapshot().requests.used == 0


@jumping_time
async def test_two_clients_of_one_key_stay_within_its_window():
    """Each knows only what the server's headers tell it of the other."""
    sent = []

    async def client(lane, pause):
        await asyncio.sleep(pause)
        while now() < 240:
            permit = await lane.admit(1)
            recent = sum(1 for at in sent if at > now() - 60)
            if recent >= 60:
                permit.settle(0)
                permit.release(outcome="rejected")
                lane.observe_rejection(60 - (now() - sent[-60]))
                rejected.append(now())
            else:
                sent.append(now())
                lane.observe_headers(headers(limit=60, remaining=59 - recent, reset="59s"))
                permit.release()

    rejected = []
    await asyncio.gather(
        client(make_lane(requests_per_minute=60), 0), client(make_lane(requests_per_minute=60), 0.3)
    )
    assert len(rejected) <= 0.05 * len(sent)
    assert len(sent) >= 0.85 * 240


# --- rejections


@jumping_time
async def test_a_rejection_pauses_the_lane_and_the_longest_pause_counts():
    lane = make_lane()
    lane.observe_rejection(5.0)
    lane.observe_rejection(2.0)
    assert lane.snapshot().paused_for == 5
    lane.observe_rejection(7.0)
    assert lane.try_admit(1) is None
    permit = await lane.admit(1)
    assert permit.waited == now() == 7


@pytest.mark.parametrize("retry_after", [float("nan"), float("inf"), -1.0, 0.0, None])
@jumping_time
async def test_a_rejection_without_a_usable_delay_backs_off_briefly(retry_after):
    lane = make_lane(requests_per_minute=600)
    lane.observe_rejection(retry_after)
    assert lane.snapshot().paused_for == 0.25
    assert lane.snapshot().believed < 1


@jumping_time
async def test_after_a_pause_calls_resume_spread_out():
    lane = make_lane()
    for _ in range(50):
        await asyncio.sleep(0.1)
        lane.try_admit(1).release()
    lane.observe_rejection(10.0)
    start, times = now(), []

    async def call():
        permit = await lane.admit(1)
        times.append(now() - start)
        permit.release()

    await asyncio.gather(*(call() for _ in range(100)))
    assert times[0] == pytest.approx(10)
    # About 0.7 of the ten per second that went well before, growing: no herd.
    assert 5 <= sum(1 for at in times if at < 11) <= 9
    assert all(later - before > 0.02 for before, later in itertools.pairwise(times))
    assert 18 < times[-1] < 25


@jumping_time
async def test_with_a_known_rate_the_burst_is_not_let_out_after_a_pause():
    lane = make_lane(requests_per_minute=6000)
    lane.observe_rejection(30.0)
    times = []

    async def call():
        permit = await lane.admit(1)
        times.append(now())
        permit.release()

    await asyncio.gather(*(call() for _ in range(100)))
    assert times[0] == 30
    assert sum(1 for at in times if at < 30.1) <= 15  # at 90 a second, not 60 at once
    assert times[-1] < 31.5


@jumping_time
async def test_a_retry_storm_is_one_episode():
    lane = make_lane(requests_per_minute=6000)
    permits = [lane.try_admit(1) for _ in range(60)]
    for permit in permits:
        lane.observe_rejection(None)
        permit.release(outcome="rejected")
    assert lane.snapshot().believed == pytest.approx(0.7)
    assert lane.snapshot().paused_for == 0.25
    for expected in (0.5, 1.0, 2.0):
        await asyncio.sleep(lane.snapshot().paused_for)
        lane.observe_rejection(None)
        assert lane.snapshot().paused_for == expected
    await asyncio.sleep(2)
    (await lane.admit(1)).release()
    lane.observe_rejection(None)
    assert lane.snapshot().paused_for == 0.25  # one went well in between


@jumping_time
async def test_belief_recovers_while_it_is_needed():
    lane = make_lane(requests_per_minute=600)
    lane.observe_rejection(None)
    start, used = now(), 0
    while now() < start + 240:
        (await lane.admit(1)).release()
        used += 1
    assert lane.snapshot().believed == 1
    assert 0.8 * 2400 < used < 0.98 * 2400


@jumping_time
async def test_a_rejecting_server_of_unknown_rate_is_hardly_bothered():
    """No limit is configured and no header sent: 429s with retry-after are all there is."""
    lane, sent, rejected = make_lane(), [], []

    async def call():
        while True:
            permit = await lane.admit(1)
            recent = [at for at in sent if at > now() - 60]
            if len(recent) >= 60:
                rejected.append(now())
                lane.observe_rejection(max(recent[-60] + 60 - now(), 0.01))
                permit.release(outcome="rejected")
                continue
            sent.append(now())
            await asyncio.sleep(0.2)
            permit.release()
            return

    await asyncio.gather(*(call() for _ in range(300)))
    assert len(rejected) < 300
    assert sent[-1] < 420


def test_strikes():
    strikes = Strikes()
    assert strikes.add(0.0, 1000.0, patient=False) == (True, MAX_PAUSE)
    assert strikes.add(1.0, None, patient=False) == (False, 0.0)
    assert strikes.add(1.0, 3.0, patient=False) == (False, 3.0)
    strikes.forgive(60.0)
    assert strikes.count == 1
    strikes.forgive(121.0)
    assert strikes.count == 0
    patient = [strikes.add(at, None, patient=True)[1] for at in (200.0, 201.0, 202.0, 202.5)]
    assert patient == [0.0, 0.0, 1.0, 0.0]
    for episode in range(50):
        _, pause = strikes.add(1000.0 + 100 * episode, None, patient=False)
        assert pause <= 16.0


def test_belief_and_ramp():
    belief = Belief(60.0)
    for at in range(50):
        belief.lower(float(at), 0.5)
    assert belief.share == 0.02
    belief.recover(49.0 + 60.0)
    assert belief.share == pytest.approx(0.12)
    belief.shift(100.0)
    belief.recover(209.0 + 6000.0)
    assert belief.share == 1.0
    assert belief.review == float("inf")
    ramp = Ramp(10.0, 2.0)
    assert ramp.interval(10.0) == pytest.approx(1 / 1.4)
    assert ramp.interval(13.0) == pytest.approx(1 / 2.0)
    assert ramp.interval(50.0) == 0.0


# --- figures that cannot be true


@pytest.mark.parametrize("used", [10**9, 10**15, 1e308, float("inf")])
@jumping_time
async def test_an_absurd_usage_costs_one_window_at_most(used):
    lane = make_lane(tokens_per_minute=1000)
    permits = [lane.try_admit(1) for _ in range(10)]
    for permit in permits:
        permit.settle(used)
        permit.release()
    await lane.admit(100)
    assert now() <= 62
    await lane.admit(100)
    assert now() <= 70  # and then at the pace


@pytest.mark.parametrize("used", [-1, -(10**12), 0, float("nan"), float("-inf")])
@jumping_time
async def test_an_absurd_usage_is_no_credit(used):
    lane, admitted = make_lane(tokens_per_minute=1000), 0
    for _ in range(50):
        permit = lane.try_admit(300)
        if permit is None:
            break
        permit.settle(used)
        permit.release()
        admitted += 1
    assert admitted <= 4
    assert lane.snapshot().tokens.used == 300 * admitted


@jumping_time
async def test_a_very_low_limit_is_believed_from_the_second_answer_on():
    lane = make_lane()
    low = {"limit": 1, "remaining": 0, "reset": "0s"}
    lane.observe_headers(headers(**low))
    assert lane.snapshot().requests.learned is None
    lane.observe_headers({})
    (await lane.admit(1)).release()
    (await lane.admit(1)).release()
    assert now() == 0


@jumping_time
async def test_what_was_learned_expires_when_answers_are_silent():
    lane = make_lane(requests_per_minute=6000)
    lane.observe_headers(headers(limit=30))
    assert lane.snapshot().requests.limit == 30
    for _ in range(5):
        lane.observe_headers({"content-type": "application/json"})
    assert lane.snapshot().requests.learned is None
    assert lane.snapshot().requests.limit == 6000
    free = make_lane()
    free.observe_headers(headers("tokens", limit=1000))
    permit = free.try_admit(500)
    for _ in range(5):
        free.observe_headers({})
    assert free.snapshot().tokens.limit is None
    permit.settle(700)
    permit.release()
    assert not free.counts_tokens


@pytest.mark.parametrize(
    ("limit", "used", "reset", "per_minute"),
    [
        (10, 1, "100ms", 600),  # per second, refilled steadily
        (10, 4, "1s", 240),  # per second or so, by windows: at most 2.5 s
        (500, 1, "120ms", 500),  # per minute, refilled steadily
        (500, 5, "30s", 500),  # per minute, by windows
        (1000, 1, "86.4s", 1000),  # per day
        (1000, 10, "23h59m", 1000),
    ],
)
@jumping_time
async def test_the_period_of_a_limit_is_read_from_its_resets(limit, used, reset, per_minute):
    lane = make_lane()
    for _ in range(4):
        lane.observe_headers(headers(limit=limit, remaining=limit - used, reset=reset))
    assert lane.snapshot().requests.learned == per_minute


@jumping_time
async def test_a_limit_per_second_does_not_stall_a_run():
    """Each answer says: 10, of which 9 are left, all of it again in 100 ms."""
    lane = make_lane()
    for _ in range(100):
        permit = await lane.admit(1)
        await asyncio.sleep(0.02)
        lane.observe_headers(headers(limit=10, remaining=9, reset="100ms"))
        permit.release()
    assert now() < 15


@pytest.mark.parametrize("reset", ["86400s", "1732982400", "1732982400000", "-5s", "yesterday"])
@jumping_time
async def test_a_reset_in_the_past_or_far_future_stops_nobody(reset):
    lane = make_lane(requests_per_minute=6000)
    for _ in range(20):
        permit = await lane.admit(1)
        lane.observe_headers(headers(limit=6000, remaining=0, reset=reset))
        permit.release()
    assert now() < 130  # two windows, and then it is not believed any more


@jumping_time
async def test_nothing_remains_although_calls_are_answered():
    lane = make_lane()
    for _ in range(20):
        permit = await lane.admit(1)
        lane.observe_headers(headers(remaining=0, reset="50s"))
        permit.release()
    assert now() <= 2 * 50 + 60  # two waits, and then it is not believed any more
