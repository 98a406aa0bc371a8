"""The figures of a benchmark against their definitions; percentiles against numpy's."""

import itertools
import math
import statistics
from array import array

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lazy_module import LazyModule, needs

from konko_async import ConfigurationError
from konko_async.bench import Plan, RequestTimes, Slo, percentile, summarize
from konko_async.bench._arrivals import arrivals
from konko_async.bench._result import meets

numpy = LazyModule("numpy")  # it starts threads

SECONDS = st.floats(0, 1e6, allow_subnormal=False)
PERCENT = st.floats(0, 100)


@needs("numpy")
@given(st.lists(SECONDS, min_size=1, max_size=60), PERCENT)
def test_percentiles_are_numpys(values, percent):
    expected = float(numpy.percentile(values, percent))
    assert percentile(sorted(values), percent) == pytest.approx(expected, rel=1e-9, abs=1e-12)


@needs("numpy")
@given(st.lists(SECONDS, min_size=1, max_size=60), st.lists(PERCENT, max_size=4))
def test_summaries_are_numpys(values, percents):
    found = summarize(values, percents)
    assert found.count == len(values)
    for name, function in (("mean", numpy.mean), ("median", numpy.median), ("std", numpy.std)):
        expected = float(function(values))
        # Of tiny values, numpy's squares underflow to 0.
        assert getattr(found, name) == pytest.approx(
            expected, rel=1e-6, abs=1e-6 * max(values) + 1e-150
        )
    assert (found.minimum, found.maximum) == (min(values), max(values))
    assert list(found.percentiles) == list(dict.fromkeys(percents))


@given(st.lists(SECONDS, min_size=1, max_size=40), PERCENT, PERCENT)
def test_percentiles_rise_and_stay_within_the_values(values, one, other):
    ordered = sorted(values)
    low, high = sorted((one, other))
    assert ordered[0] <= percentile(ordered, low) <= percentile(ordered, high) <= ordered[-1]


def test_nothing_has_no_figures():
    assert summarize([], [50]) is None
    for values, percent in (([], 50), ([1.0], -1), ([1.0], 101), ([1.0], math.nan)):
        with pytest.raises(ValueError, match="percentile"):
            percentile(values, percent)


TIMES = st.lists(st.floats(1e-6, 100), min_size=1, max_size=30).map(itertools.accumulate).map(list)


@given(TIMES, st.integers(1, 100))
def test_the_parts_of_a_latency_add_up(times, tokens):
    record = RequestTimes(started=3.0, ended=99.0, times=array("d", times), output_tokens=tokens)
    assert record.ttft == times[0]
    assert record.e2el == times[-1]
    assert len(record.itl) == len(times) - 1
    assert record.ttft + sum(record.itl) == pytest.approx(record.e2el)
    if tokens == 1:
        assert record.tpot is None
    else:
        assert record.ttft + record.tpot * (tokens - 1) == pytest.approx(record.e2el)


LIMIT = st.none() | st.floats(0, 10)


@given(TIMES, st.integers(1, 30), LIMIT, LIMIT, LIMIT)
def test_goodput_is_vllms(times, tokens, ttft, tpot, e2el):
    record = RequestTimes(started=0, ended=0, times=array("d", times), output_tokens=tokens)
    # As vllm/benchmarks/serve.py has it: every objective, and a tpot of 0 for a single token.
    latency = times[-1]
    own_tpot = (latency - times[0]) / (tokens - 1) if tokens > 1 else 0.0
    pairs = ((ttft, times[0]), (tpot, own_tpot), (e2el, latency))
    good = all(limit >= value for limit, value in pairs if limit is not None)
    assert meets(record, Slo(ttft=ttft, tpot=tpot, e2el=e2el)) is good


@settings(max_examples=40, deadline=None)
@given(
    rate=st.floats(0.01, 1000),
    burstiness=st.floats(0.2, 20) | st.just(math.inf),
    number=st.integers(1, 300),
    seed=st.integers(0, 2**32),
)
def test_arrivals_rise_and_keep_the_rate(rate, burstiness, number, seed):
    due = list(arrivals(rate, burstiness, number=number, seed=seed))
    assert len(due) == number
    assert due == sorted(due)
    assert due[0] >= 0
    assert due[-1] == pytest.approx(number / rate)
    assert due == list(arrivals(rate, burstiness, number=number, seed=seed))


@pytest.mark.parametrize("burstiness", [0.25, 1.0, 4.0, math.inf])
def test_gaps_have_the_mean_and_spread_of_their_distribution(burstiness):
    due = [0.0, *itertools.islice(arrivals(10, burstiness, seed=1), 40_000)]
    gaps = [after - before for before, after in itertools.pairwise(due)]
    assert statistics.fmean(gaps) == pytest.approx(0.1, rel=0.03)
    # A gamma distribution of shape k spreads by its mean / sqrt(k); for k = 1 it is exponential.
    spread = 0.0 if burstiness == math.inf else 0.1 / math.sqrt(burstiness)
    assert statistics.pstdev(gaps) == pytest.approx(spread, rel=0.03, abs=1e-9)


def test_times_differ_with_the_seed():
    assert list(arrivals(1, number=5, seed=1)) != list(arrivals(1, number=5, seed=2))


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({}, "how many requests"),
        ({"duration": 5}, "without end"),
        ({"requests": 0}, "requests must be an integer of at least 1"),
        ({"requests": True}, "requests"),
        ({"requests": 1, "concurrency": 1.5}, "concurrency"),
        ({"requests": 1, "request_rate": 0}, "request_rate must be a number above 0"),
        ({"requests": 1, "burstiness": -1}, "burstiness"),
        ({"requests": 1, "percentiles": (101.0,)}, "101th percentile"),
        ({"requests": 1, "percentiles": (-1.0,)}, "percentiles"),
        ({"requests": 1, "warmup": -1}, "warmup"),
        ({"requests": 1, "timeout": 0}, "timeout"),
        ({"requests": 1, "stream": False, "slo": Slo(ttft=1)}, "no first token"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(options, problem):
    with pytest.raises(ConfigurationError, match=problem):
        Plan(model="m", **options)


def test_an_objective_is_no_negative_time():
    with pytest.raises(ConfigurationError, match="Slo: tpot"):
        Slo(tpot=-1)
    assert Slo().empty
    assert not Slo(e2el=0).empty
