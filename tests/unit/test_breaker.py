"""The circuit breaker: its state machine as such, its verdicts, and how fast a server is back."""

import asyncio
import itertools
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from resilience_kit import Attempts, make_request, no_tasks_left, now, status_error

from konko_async._core.pipeline import Response
from konko_async._core.policies import RetryPolicy
from konko_async.errors import (
    APIConnectionError,
    APIError,
    APITimeoutError,
    CircuitOpenError,
    ConfigurationError,
    KonkoError,
    RateLimitTimeoutError,
    ResponseDecodeError,
    StreamServerError,
    StreamTruncatedError,
)
from konko_async.middleware import (
    CircuitBreaker,
    CircuitBreakerMiddleware,
    Fallback,
    RetryBudget,
    RetryMiddleware,
)
from konko_async.middleware._breaker import judge
from konko_async.middleware._circuit import Circuit
from konko_async.testing import jumping_time, run_with_jumping_time

BASE = "https://api.example.com/v1"
# Opens at the twentieth failure, however fast they come.
AT_ONCE = CircuitBreaker(min_duration=0)

# The state machine.


def opened(**options):
    """A circuit that opened at 0.0."""
    circuit = Circuit(CircuitBreaker(min_duration=0, **options))
    for _ in range(20):
        circuit.record(circuit.enter(0.0), 0.0, well=False, reason="E")
    assert circuit.snapshot(0.0).state == "open"
    return circuit


def test_it_opens_on_the_rate_of_failures():
    circuit = Circuit(AT_ONCE)
    for _ in range(8):
        circuit.record(circuit.enter(0.0), 0.0, well=True)
    changes = [circuit.record(circuit.enter(0.0), 0.0, well=False) for _ in range(12)]
    assert changes == [False] * 11 + [True]
    assert circuit.enter(0.0) is None


def test_with_much_traffic_a_run_of_failures_opens_it_sooner():
    circuit = Circuit(CircuitBreaker())
    for _ in range(10_000):
        circuit.record(circuit.enter(0.0), 0.0, well=True)
    clock = 0.0
    while circuit.snapshot(clock).state == "closed":
        clock += 0.01
        circuit.record(circuit.enter(clock), clock, well=False)
    assert 0.5 <= clock < 0.52


def test_a_restart_that_cuts_many_streams_at_once_is_no_outage():
    circuit = Circuit(CircuitBreaker())
    for _ in range(100):
        assert not circuit.record(circuit.enter(0.0), 0.0, well=False)
    assert not circuit.record(circuit.enter(0.4), 0.4, well=True)
    assert not circuit.record(circuit.enter(0.4), 0.4, well=False)


def test_a_partial_outage_opens_it_by_its_rate():
    circuit = Circuit(CircuitBreaker())
    clock = 0.0
    for well in itertools.cycle([True, False, False]):
        clock += 0.01
        if circuit.record(circuit.enter(clock), clock, well=well):
            break
    assert 0.5 <= clock < 0.6


def test_a_small_user_never_sees_it():
    circuit = Circuit(CircuitBreaker())
    for number in range(1000):
        clock = number * 0.6  # 17 within ten seconds, and all fail
        assert not circuit.record(circuit.enter(clock), clock, well=False)


def test_failures_leave_the_window():
    circuit = Circuit(CircuitBreaker())
    for _ in range(19):
        circuit.record(circuit.enter(0.0), 0.0, well=False)
    assert circuit.snapshot(9.9).failures == 19
    assert circuit.snapshot(10.0).failures == 0
    assert not circuit.record(circuit.enter(10.0), 10.0, well=False)


def test_a_clock_that_goes_back_does_no_harm():
    circuit = Circuit(CircuitBreaker())
    circuit.record(circuit.enter(1000.0), 1000.0, well=False)
    circuit.record(circuit.enter(1.0), 1.0, well=True)
    assert circuit.snapshot(1.0).calls == 2


def test_one_good_probe_closes_it():
    circuit = opened()
    assert circuit.enter(0.99) is None
    probes = [circuit.enter(1.0) for _ in range(4)]
    assert None not in probes[:3]
    assert probes[3] is None, "three at once"
    assert circuit.record(probes[1], 1.1, well=True)
    assert circuit.snapshot(1.1).state == "closed"
    assert not circuit.record(probes[0], 1.2, well=False), "a probe of before says nothing now"
    assert circuit.snapshot(1.2).calls == 0


def test_bad_probes_double_the_open_time_up_to_its_cap():
    circuit = opened()
    clock, waits = 0.0, []
    for _ in range(6):
        waits.append(circuit.snapshot(clock).retry_after)
        clock += waits[-1]
        circuit.record(circuit.enter(clock), clock, well=False)
    assert waits == [1, 2, 4, 5, 5, 5]


def test_what_began_before_it_opened_says_nothing():
    circuit = Circuit(AT_ONCE)
    early = circuit.enter(0.0)
    for _ in range(20):
        circuit.record(circuit.enter(0.0), 0.0, well=False)
    assert not circuit.record(early, 0.5, well=True)
    assert circuit.snapshot(0.5).state == "open"


def test_a_cancelled_probe_gives_its_place_back():
    circuit = opened(probes=1)
    probe = circuit.enter(1.0)
    assert circuit.enter(1.0) is None
    assert circuit.snapshot(1.0).retry_after == 5.0
    circuit.leave(probe)
    assert circuit.enter(1.0) is not None


def test_a_hung_probe_is_not_waited_for_but_its_success_counts():
    circuit = opened(probes=1)
    hung = circuit.enter(1.0)
    assert circuit.enter(5.9) is None
    second = circuit.enter(6.0)
    assert second is not None
    assert not circuit.record(hung, 7.0, well=False), "its failure is of before"
    assert circuit.snapshot(7.0).state == "half_open"
    assert circuit.record(second, 7.0, well=True)
    circuit = opened(probes=1)
    hung = circuit.enter(1.0)
    assert circuit.record(hung, 30.0, well=True)


def test_one_that_fails_again_at_once_stays_open_longer():
    circuit = opened()
    circuit.record(circuit.enter(1.0), 1.0, well=True)
    for _ in range(20):
        circuit.record(circuit.enter(2.0), 2.0, well=False)
    assert circuit.snapshot(2.0).retry_after == 2.0
    circuit.record(circuit.enter(4.0), 4.0, well=True)
    for _ in range(20):
        circuit.record(circuit.enter(60.0), 60.0, well=False)
    assert circuit.snapshot(60.0).retry_after == 1.0


class CircuitModel(RuleBasedStateMachine):
    """Any order of attempts, outcomes, cancellations and pauses."""

    @initialize(
        rate=st.floats(0.01, 1),
        volume=st.integers(1, 8),
        probes=st.integers(1, 4),
        top=st.floats(1, 9),
    )
    def start(self, rate, volume, probes, top):
        self.options = CircuitBreaker(
            failure_rate=rate, min_calls=volume, probes=probes, max_open_for=top
        )
        self.circuit = Circuit(self.options)
        self.clock = 0.0
        self.tickets = []

    @property
    def state(self):
        return self.circuit.snapshot(self.clock).state

    @rule(seconds=st.floats(0, 12))
    def wait(self, seconds):
        self.clock += seconds

    @rule()
    def enter(self):
        before = self.circuit.snapshot(self.clock)
        ticket = self.circuit.enter(self.clock)
        if ticket is not None:
            self.tickets.append(ticket)
            assert before.retry_after == 0
        else:
            assert before.state != "closed"
            assert self.circuit.snapshot(self.clock).retry_after > 0

    @precondition(lambda self: self.tickets)
    @rule(data=st.data(), outcome=st.sampled_from([True, False, None]))
    def end(self, data, outcome):
        ticket = self.tickets.pop(data.draw(st.integers(0, len(self.tickets) - 1)))
        before = self.state
        if outcome is None:
            self.circuit.leave(ticket)
            changed = False
        else:
            changed = self.circuit.record(ticket, self.clock, well=outcome, reason="E")
        after = self.state
        assert changed == (before != after)
        if changed:
            assert (before, after) in {
                ("closed", "open"),
                ("half_open", "open"),
                ("half_open", "closed"),
            }
            assert (after == "closed") == outcome

    @precondition(lambda self: self.state != "closed")
    @rule()
    def recover(self):
        """Whatever happened, a server that is well is in use again within the cap and one attempt."""
        self.clock += self.options.max_open_for
        ticket = self.circuit.enter(self.clock)
        assert ticket is not None
        self.circuit.record(ticket, self.clock, well=True)
        assert self.state == "closed"

    @invariant()
    def the_window_is_sound(self):
        snapshot = self.circuit.snapshot(self.clock)
        assert 0 <= snapshot.failures <= snapshot.calls
        assert 0 <= snapshot.retry_after <= self.options.max_open_for + 1e-9


TestCircuitModel = CircuitModel.TestCase


@given(st.lists(st.tuples(st.floats(0, 3), st.booleans()), max_size=100))
def test_the_window_counts_the_last_ten_seconds(outcomes):
    circuit = Circuit(CircuitBreaker(min_calls=10**6))
    clock, history = 0.0, []
    for passed, well in outcomes:
        clock += passed
        circuit.record(circuit.enter(clock), clock, well=well)
        history.append((clock, well))
    snapshot = circuit.snapshot(clock)
    # The ring's grain is a tenth of the window.
    certain = [well for at, well in history if at > clock - 9 + 1e-6]
    possible = [well for at, well in history if at > clock - 10 - 1e-6]
    assert len(certain) <= snapshot.calls <= len(possible)
    assert certain.count(False) <= snapshot.failures <= possible.count(False)


@pytest.mark.parametrize(
    "options",
    [
        {"failure_rate": 0},
        {"failure_rate": 1.1},
        {"failure_rate": "half"},
        {"min_calls": 0},
        {"min_calls": 2.5},
        {"window": -1},
        {"window": float("nan")},
        {"open_for": float("inf")},
        {"open_for": 9},
        {"probes": True},
        {"min_duration": 11},
        {"min_duration": -1},
    ],
)
def test_bad_options_are_refused(options):
    with pytest.raises(ConfigurationError, match="CircuitBreaker"):
        CircuitBreaker(**options)


# What counts.


@pytest.mark.parametrize(
    ("error", "host", "model"),
    [
        (APIConnectionError("refused"), False, None),
        (APIConnectionError("bad certificate", retryable=False), None, None),
        (APITimeoutError("slow", phase="connect"), False, None),
        (APITimeoutError("slow", phase="first_token"), None, False),
        (APITimeoutError("slow", phase="total"), None, None),
        (status_error(500), True, False),
        (status_error(503), True, False),
        (status_error(400), True, True),
        (status_error(401), True, True),
        (status_error(429), True, None),
        (ResponseDecodeError("HTML"), True, False),
        (StreamTruncatedError("cut"), True, False),
        (StreamServerError("overloaded"), True, False),
        (StreamServerError("bad", type="invalid_request_error"), True, None),
        (APIError("other"), True, False),
    ],
)
def test_verdicts(error, host, model):
    assert judge(error) == (host, model)


async def _all_fail(breaker, step, times=40, **request):
    error = step[1] if isinstance(step, tuple) else step
    for _ in range(times):
        with pytest.raises(type(error)):
            await breaker(make_request(**request), Attempts(step))


@pytest.mark.parametrize(
    "error",
    [
        status_error(400),
        status_error(429),
        RateLimitTimeoutError("full", would_have_waited=1.0),
        APITimeoutError("slow", phase="total"),
        ValueError("a bug"),
    ],
)
@jumping_time
@no_tasks_left
async def test_what_does_not_open_it(error):
    breaker = CircuitBreakerMiddleware(AT_ONCE, BASE)
    await _all_fail(breaker, error)
    assert {state.state for state in breaker.states()} == {"closed"}


@jumping_time
@no_tasks_left
async def test_an_open_circuit_says_what_and_when():
    breaker = CircuitBreakerMiddleware(AT_ONCE, BASE)
    await _all_fail(breaker, status_error(503), times=20)
    attempts = Attempts("ok")
    with pytest.raises(CircuitOpenError) as caught:
        await breaker(make_request(), attempts)
    assert attempts.requests == []
    assert caught.value.retry_after == 1.0
    assert str(caught.value) == (
        "not sent: the circuit of https://api.example.com model 'm' is open after 20 of 20 attempts "
        "within 10 s failed, the last with InternalServerError; next probe in 1.0 s"
    )


@jumping_time
@no_tasks_left
async def test_one_sick_model_does_not_close_the_way_to_its_fallbacks():
    breaker = CircuitBreakerMiddleware(AT_ONCE, BASE)
    await _all_fail(breaker, status_error(503), times=20, model="a")
    with pytest.raises(CircuitOpenError):
        await breaker(make_request(model="a"), Attempts("ok"))
    await (await breaker(make_request(model="b"), Attempts("ok"))).aclose()


@jumping_time
@no_tasks_left
async def test_a_dead_origin_closes_the_way_to_all_its_models_but_not_to_others():
    breaker = CircuitBreakerMiddleware(AT_ONCE, BASE)
    await _all_fail(breaker, APIConnectionError("refused"), times=20, model="a")
    request = make_request(model="b")
    with pytest.raises(CircuitOpenError):
        await breaker(request, Attempts("ok"))
    other = Fallback(base_url="https://other.example/v1")
    await (await breaker(request.replace(target=other), Attempts("ok"))).aclose()


@jumping_time
@no_tasks_left
async def test_a_probe_refused_by_the_models_circuit_holds_no_place_at_the_origin():
    breaker = CircuitBreakerMiddleware(CircuitBreaker(min_duration=0, probes=1), BASE)
    await _all_fail(breaker, status_error(503), times=19, model="a")
    last = asyncio.create_task(_all_fail(breaker, (0.7, status_error(503)), times=1, model="a"))
    await asyncio.sleep(0.1)
    await _all_fail(breaker, APIConnectionError("refused"), times=20, model="b")
    await last  # the origin is open until 1.1, model a until 1.7
    await asyncio.sleep(0.5)
    with pytest.raises(CircuitOpenError, match="model 'a'"):
        await breaker(make_request(model="a"), Attempts("ok"))
    await (await breaker(make_request(model="b"), Attempts("ok"))).aclose()


@jumping_time
@no_tasks_left
async def test_a_cancelled_probe_makes_room_for_the_next():
    breaker = CircuitBreakerMiddleware(CircuitBreaker(min_duration=0, probes=1), BASE)
    await _all_fail(breaker, status_error(503), times=20)
    await asyncio.sleep(1)
    hung = Attempts((100.0, "ok"))
    probe = asyncio.create_task(breaker(make_request(), hung))
    await asyncio.sleep(0.1)
    with pytest.raises(CircuitOpenError, match="half-open"):
        await breaker(make_request(), Attempts("ok"))
    probe.cancel()
    with pytest.raises(asyncio.CancelledError):
        await probe
    await (await breaker(make_request(), Attempts("ok"))).aclose()
    assert {state.state for state in breaker.states()} == {"closed"}


@jumping_time
@no_tasks_left
async def test_changes_are_told(caplog):
    seen = []

    def hook(state):
        seen.append((state.model, state.state))
        raise RuntimeError("mine")

    breaker = CircuitBreakerMiddleware(CircuitBreaker(min_duration=0, on_change=hook), BASE)
    with caplog.at_level(logging.INFO, "konko_async"):
        await _all_fail(breaker, status_error(503), times=20)
        await asyncio.sleep(1)
        await (await breaker(make_request(), Attempts("ok"))).aclose()
    assert seen == [("m", "open"), ("m", "closed")]
    assert "circuit of https://api.example.com model 'm' is open" in caplog.text


def test_states_outside_a_loop():
    breaker = CircuitBreakerMiddleware(AT_ONCE, BASE)
    run_with_jumping_time(_all_fail(breaker, status_error(503), times=20))
    assert [state.state for state in breaker.states()] == ["closed", "open"]
    assert breaker.states()[1].retry_after == 1.0


@jumping_time
@no_tasks_left
async def test_circuits_are_bounded():
    breaker = CircuitBreakerMiddleware(AT_ONCE, BASE)
    for number in range(1100):
        await (await breaker(make_request(model=f"m{number}"), Attempts("ok"))).aclose()
    assert len(breaker.states()) == 1024


# Recovery.


async def _outage(kind, *, down, up, end, workers=20):
    """Answers per second with an outage from ``down`` to ``up``; each attempt takes 0.1 s."""
    answers = [0] * end
    sent_while_down = 0

    async def server(_request):
        nonlocal sent_while_down
        if down <= now() < up:
            sent_while_down += 1
            if kind == "hang":
                await asyncio.sleep(4.0)
                raise APITimeoutError("slow", phase="first_token")
            await asyncio.sleep(0.01)
            raise APIConnectionError("refused") if kind == "refused" else status_error(503)
        await asyncio.sleep(0.1)
        return Response(200, {})

    breaker = CircuitBreakerMiddleware(CircuitBreaker(), BASE)
    retry = RetryMiddleware(RetryPolicy(), RetryBudget())

    async def worker():
        while now() < end:
            try:
                await retry(make_request(), lambda request: breaker(request, server))
            except KonkoError:
                await asyncio.sleep(0.1)
            else:
                answers[min(end - 1, int(now()))] += 1

    await asyncio.gather(*(worker() for _ in range(workers)))
    return answers, sent_while_down


@pytest.mark.parametrize("kind", ["status", "refused", "hang"])
@pytest.mark.parametrize("up", [13, 20.5, 41.9])
def test_throughput_is_back_within_ten_seconds_of_recovery(kind, up):
    answers, sent_while_down = run_with_jumping_time(_outage(kind, down=10, up=up, end=60))
    before = sum(answers[2:9]) / 7
    back = next(s for s in range(int(up), 60) if answers[s] >= 0.95 * before)
    assert back - up <= 10
    rest = answers[int(up) + 10 : 59]
    assert sum(rest) / len(rest) >= 0.95 * before
    assert sent_while_down < 250, "the sick server is left alone"
