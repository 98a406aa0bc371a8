"""Prices, histograms, progress: figures that are told."""

import itertools
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from konko_async import Attempt, CallRecord, Model
from konko_async.batch import Histogram, Price, Stop, parse_price
from konko_async.batch._input.validate import token_guess
from konko_async.batch._output.answers import Used, flaws, read_usage
from konko_async.batch._output.ledger import Ledger
from konko_async.batch._pricing import Prices
from konko_async.batch._progress import Tracker
from konko_async.batch._report import BatchReport
from konko_async.wire import ChatCompletion
from konko_async.wire._codec import Codec

M = 1_000_000


@pytest.mark.parametrize(
    ("text", "price"),
    [
        ("$0.0003 / 1k tokens", Price(0.0003 / 1000, 0.0003 / 1000)),
        ("$0.0003/1K tokens", Price(0.0003 / 1000, 0.0003 / 1000)),
        ("$15 / 1M tokens", Price(15 / M, 15 / M)),
        ("$0.50 per million tokens", Price(0.5 / M, 0.5 / M)),
        ("€1,000.5 / 1,000,000 tokens", Price(1000.5 / M, 1000.5 / M, currency="EUR")),
        ("0.2 USD / 1M tokens", Price(0.2 / M, 0.2 / M)),
        (".2 / 1M tokens", Price(0.2 / M, 0.2 / M, currency=None)),
        ("$0.5 / 1M input tokens, $1.5 / 1M output tokens", Price(0.5 / M, 1.5 / M)),
        ("$0.5 / 1M prompt tokens; $1.5 / 1M completion tokens", Price(0.5 / M, 1.5 / M)),
        ("$0.00002 / token", Price(0.00002, 0.00002)),
        ("$2 / hour", Price(hour=2.0)),
        ("$0.1 / 1k tokens or so", None),
        ("about $0.1 / 1k tokens", None),
        ("$0.1 / 1k tokens, $0.2 / 1k tokens", None),
        ("$0.1 / 1k input tokens, €0.2 / 1k output tokens", None),
        ("$0.1 / 0k tokens", None),
        ("free", Price(0.0, 0.0)),
        ("on request", None),
        ("", None),
        (None, None),
        ("$1 / 1k tokens" + " " * 500, None),
    ],
)
def test_prices_are_read_or_unknown(text, price):
    found = parse_price(text)
    if price is None or found is None:
        assert found is price
        return
    assert found.currency == price.currency
    for one, other in ((found.prompt, price.prompt), (found.completion, price.completion)):
        assert one == pytest.approx(other) if other is not None else one is None
    assert found.hour == price.hour


@given(st.text(max_size=300))
def test_any_pricing_text_can_be_read(text):
    price = parse_price(text)
    assert price is None or all(
        value is None or math.isfinite(value) for value in (price.prompt, price.completion)
    )


def test_costs():
    assert Price(1.0, 2.0).cost(3, 4) == 11
    assert Price(1.0, None).cost(3, 0) == 3
    assert Price(1.0, None).cost(3, 1) is None
    assert Price(hour=2.0).cost(1, 1) is None
    prices = Prices.of(
        [
            Model("a", public_endpoint_pricing="$1 / token", private_endpoint_pricing="$9 / hour"),
            Model("b", public_endpoint_pricing="ask us"),
            Model("c"),
        ]
    )
    assert prices.cost("a", Used(1, 1)) == 2
    assert (
        prices.cost("b", Used(1, 1)),
        prices.cost("c", Used(1, 1)),
        prices.cost("?", Used(1, 1)),
    ) == (None,) * 3
    assert prices.currency == "USD"
    assert prices.known("a")
    assert not prices.known("b")
    mixed = Prices({"a": Price(1.0, 1.0), "b": Price(1.0, 1.0, currency="EUR")})
    assert mixed.cost("a", Used(1, 1)) is None  # sums of both would mean nothing
    assert mixed.currency is None
    assert Prices().cost("a", Used(1, 1)) is None


@given(st.lists(st.floats(1e-4, 2e4), min_size=1, max_size=60), st.floats(0, 1))
def test_percentiles_are_near_the_truth(durations, share):
    histogram = Histogram()
    for seconds in durations:
        histogram.add(seconds)
    assert histogram.total == sum(histogram.counts) == len(durations)
    assert histogram.max == max(durations)
    assert histogram.mean == pytest.approx(sum(durations) / len(durations))
    truth = sorted(durations)[max(math.ceil(share * len(durations)) - 1, 0)]
    if 1e-3 < truth < 9e3 and max(durations) < 9e3:
        assert histogram.percentile(share) == pytest.approx(truth, rel=0.07)
    copy = histogram.copy()
    copy.add(1)
    assert histogram.total == len(durations)


def test_cached_tokens_have_a_price_of_their_own():
    price = Price(4.0, 10.0, cached=1.0)
    assert price.cost(100, 1, 80) == 20 * 4 + 80 + 10
    assert Price(4.0, 10.0).cost(100, 1, 80) == 410
    prices = Prices({"*": price, "a": Price(1.0, 1.0)})
    assert prices.cost("a", Used(1, 1, 1)) == 2
    assert prices.cost("any other", Used(1, 1, 1)) == 11


@pytest.mark.parametrize(
    ("usage", "cached", "reasoning"),
    [
        ({"prompt_tokens_details": {"cached_tokens": 9}}, 9, 0),
        ({"prompt_cache_hit_tokens": 8, "prompt_cache_miss_tokens": 2}, 8, 0),
        ({"completion_tokens_details": {"reasoning_tokens": 4}}, 0, 4),
        ({"prompt_tokens_details": None, "completion_tokens_details": None}, 0, 0),
        ({"prompt_tokens_details": {"cached_tokens": 10**9}}, 10, 0),
        ({"prompt_tokens_details": {"cached_tokens": "many"}}, 0, 0),
    ],
)
def test_usage_is_read_where_servers_report_it(usage, cached, reasoning):
    used = read_usage({"prompt_tokens": 10, "completion_tokens": 5, **usage})
    assert (used.cached_tokens, used.reasoning_tokens, used.reported) == (cached, reasoning, True)
    assert not read_usage({}).reported


CHAT = "/v1/chat/completions"


@pytest.mark.parametrize(
    ("choices", "found"),
    [
        (None, ("no_choices",)),
        ([], ("no_choices",)),
        ([{"message": {"content": "yes"}, "finish_reason": "stop"}], ()),
        ([{"message": {"content": " \n"}, "finish_reason": "stop"}], ("empty",)),
        ([{"message": {"content": ""}, "finish_reason": "length"}], ("empty", "length")),
        ([{"message": {"content": "a"}, "finish_reason": "length"}], ("length",)),
        ([{"message": {"content": None, "tool_calls": [{}]}}], ()),
        ([{"message": {"content": "a"}, "finish_reason": "error"}], ("error",)),
        ([{"message": {"content": "a"}, "error": {"code": 502}}], ("error",)),
        ([{"message": {"content": ""}, "finish_reason": "content_filter"}], ("empty", "content_filter")),
        ([{"message": {"content": None, "refusal": "no"}}], ("refusal",)),
        ([{"text": "old"}], ()),
        ([{"message": {"content": ""}}, {"message": {"content": "b"}}], ()),
    ],
)  # fmt: skip
def test_flaws_of_answers(choices, found):
    assert flaws(CHAT, {"choices": choices}) == found


def test_flaws_are_the_same_of_an_answer_and_of_its_line():
    texts = ("yes", "", " \n", None)
    more = ({}, {"refusal": "no"}, {"tool_calls": [{"id": "1", "function": {"name": "f"}}]})
    reasons = ("stop", "length", "content_filter", "error", None)
    extra = ({}, {"error": {"code": 502}}, {"content_filter_results": {}})
    for text, beside, reason, unknown in itertools.product(texts, more, reasons, extra):
        message = {"role": "assistant", "content": text, **beside}
        choice = {"index": 0, "message": message, "finish_reason": reason, **unknown}
        for choices in ([choice], [choice, choice]):
            body = {"id": "1", "object": "chat.completion", "created": 1, "choices": choices}
            answer = Codec(ChatCompletion).decode(json.dumps(body))
            assert flaws(CHAT, answer) == flaws(CHAT, body), body


def test_an_empty_histogram():
    histogram = Histogram()
    assert histogram.percentile(0.5) is None
    assert histogram.mean is None
    assert histogram.summary()["max"] is None
    assert "empty" in repr(histogram)
    histogram.add(0.0)
    histogram.add(1e9)
    assert (histogram.counts[0], histogram.counts[-1]) == (1, 1)
    assert "median" in repr(histogram)


def test_the_history_is_bounded(monkeypatch):
    ledger = Ledger()
    tracker = Tracker(ledger, 10**6, None)
    now = 0.0
    tracker._began = 0.0
    monkeypatch.setattr(type(tracker), "elapsed", property(lambda _self: now))
    for step in range(20_000):
        now = float(step)
        ledger.add(step, failed=False, used=Used(1, 2))
        tracker.sample()
    history = tracker.history
    assert 200 < len(history) <= 512
    assert history[-1].seconds > 19_000
    gaps = [b.seconds - a.seconds for a, b in itertools.pairwise(history)]
    assert max(gaps[1:]) <= 4 * min(gaps[1:])
    assert len(tracker._recent) < 40
    progress = tracker.progress()
    assert progress.rows_per_second == pytest.approx(1, rel=0.1)
    assert progress.eta == pytest.approx(10**6 - 20_000, rel=0.1)
    assert progress.cost is None
    assert progress.projected_cost is None


def test_what_the_client_tells_is_counted():
    tracker = Tracker(Ledger(), None, "USD")
    tracker.observe(Attempt(number=1, started=0, duration=1, status_code=429))
    tracker.observe(Attempt(number=2, started=1, duration=1, status_code=200))
    tracker.observe(Attempt(number=2, started=1, duration=1, hedge=True))
    record = {"operation": "chat", "base_url": "", "started_at": 0.0}
    tracker.observe(
        CallRecord(**record, stream=True, duration=3, queued=1, outcome="ok", time_to_first_token=2)
    )
    tracker.observe(CallRecord(**record, stream=False, duration=3, outcome="error"))
    assert (tracker.rate_limited, tracker.retried) == (1, 1)
    assert (tracker.latency.max, tracker.first_token.max) == (2, 1)
    for number in range(100):
        tracker.failed(f"kind {number}")
    assert len(tracker.errors) == 65
    assert tracker.errors["other"] == 36


def test_costs_that_are_partly_unknown():
    ledger = Ledger()
    tracker = Tracker(ledger, 4, "USD")
    ledger.add(0, failed=False, used=Used(1, 1, cost=2.0))
    assert tracker.progress().projected_cost == 8
    ledger.add(1, failed=True, used=Used())
    ledger.add(2, failed=False, used=Used(1, 1))
    progress = tracker.progress()
    assert (progress.cost, progress.unpriced, progress.projected_cost) == (2.0, 1, None)


def test_reports_are_json():
    progress = Tracker(Ledger(), 3, None).progress()
    report = BatchReport.of(progress, paths=("a", "b"), resumed=0, stopped=None)
    found = json.loads(report.to_json())
    assert found["rows"] == found["left"] == 3
    assert found["latency"]["buckets"] == []
    assert found["estimate"] is None
    assert report.exit_code == 0


def test_token_guesses():
    messages = [{"role": "user", "content": "x" * 40}]
    assert token_guess({"messages": messages}) == (14, 256)
    assert token_guess({"messages": messages, "max_tokens": 5, "n": 2}) == (14, 10)
    assert token_guess({"input": "x" * 40}) == (10, 0)


def test_stop():
    stop, heard = Stop(), []
    end = stop.listen(heard.append)
    assert not stop.requested
    for _ in range(3):
        stop.request()
    assert heard == [1, 2, 2]
    end()
    late = []
    stop.listen(late.append)
    assert (late, stop.level) == ([2], 2)
