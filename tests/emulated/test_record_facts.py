"""What records say of an answer: who gave it, its ids and ends, and what was used of it."""

import pytest
from client_kit import ASK, MODEL, ask, make_client, serving
from hypothesis import given
from hypothesis import strategies as st

from konko_async import CallRecord, Fallback, RequestParams
from konko_async._core.redaction import shown_url
from konko_async.batch import Price
from konko_async.limits import estimate_tokens
from konko_async.limits._estimate import answer_tokens, prompt_tokens
from konko_async.relay import TenantRecord, Tenants
from konko_async.testing import Answer, Emulator, FaultServer, faults

USAGE = {
    "prompt_tokens": 30,
    "completion_tokens": 12,
    "total_tokens": 42,
    "prompt_tokens_details": {"cached_tokens": 16},
    "completion_tokens_details": {"reasoning_tokens": 5},
}


class Calls(list):
    """An observer that keeps the records of calls."""

    def __call__(self, record):
        if isinstance(record, CallRecord):
            self.append(record)


@pytest.mark.parametrize("stream", [False, True])
async def test_ids_ends_and_details_of_usage(stream):
    calls = Calls()
    answer = (
        Answer.stream(["Hel", "lo"], usage=USAGE) if stream else Answer.whole("Hello", usage=USAGE)
    )
    async with serving(FaultServer(answer), observers=[calls]) as client:
        done = await ask(client, stream=stream)
    (call,) = calls
    assert (call.response_id, call.finish_reasons) == (done.id, ("stop",))
    assert (call.cached_tokens, call.reasoning_tokens) == (16, 5)
    assert (call.prompt_tokens, call.completion_tokens) == (30, 12)
    assert call.chunks is None if not stream else call.chunks >= 3
    assert call.estimated_prompt_tokens is call.estimated_completion_tokens is None
    assert call.cost(Price(prompt=1.0, completion=10.0, cached=0.5)) == 14 + 8 + 120


async def test_parameters_without_the_prompt():
    calls = Calls()
    async with Emulator() as emulator, make_client(emulator, observers=[calls]) as client:
        await ask(client, stream=False, temperature=0.1, top_p=0.9, max_tokens=7, seed=3, n=2)
        await ask(client, stream=True, stop=["x"], extra_body={"top_k": 5})
        await client.completions.create(model=MODEL, prompt="secret", temperature=0.0)
        await client.embeddings.create(model="thenlper/gte-base", input="secret", dimensions=9)
        await client.models.list()
    first, second, third, fourth, fifth = calls
    assert first.params == RequestParams(temperature=0.1, top_p=0.9, max_tokens=7, seed=3, n=2)
    assert first.finish_reasons == ("length", "length")
    assert second.params == RequestParams(stop=["x"], top_k=5)
    assert third.params == RequestParams(temperature=0.0)
    assert fourth.params == RequestParams(dimensions=9, encoding_format="base64")
    assert (fourth.prompt_tokens, fourth.completion_tokens) == (1, None)
    assert fifth.params == RequestParams()
    assert "secret" not in repr(calls)


async def test_the_server_that_answered():
    calls = Calls()
    async with Emulator() as first, Emulator() as second:
        first.outage = 503
        other = Fallback(base_url=second.base_url, api_key="k", model="thenlper/gte-base")
        options = {"observers": [calls], "fallback_models": [other]}
        async with make_client(first, **options) as client:
            await ask(client, stream=False)
            second.outage = 401
            with pytest.raises(Exception, match="401"):
                await ask(client, stream=True)
        urls = [first.base_url, second.base_url]
    assert [attempt.base_url for attempt in calls[0].attempts] == urls
    assert [call.base_url for call in calls] == urls[1:] * 2


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://api.konko.ai/v1", "https://api.konko.ai/v1"),
        ("https://me:pass@host:8443/v1", "https://host:8443/v1"),
        ("https://gate.example/sk-aB3dE5fG7h/v1", "https://gate.example/<redacted>/v1"),
        ("https://host/accounts/0123abc/openai?key=1", "https://host/accounts/0123abc/openai"),
    ],
)
def test_urls_are_shown_without_credentials(url, shown):
    assert shown_url(url) == shown


@pytest.mark.parametrize("long", [False, True])
async def test_a_stream_that_was_left_says_what_came(long):
    calls = Calls()
    prompt = "word " * (2000 if long else 20)
    messages = [{"role": "user", "content": prompt}]
    async with (
        Emulator(answer=lambda _: ["word "] * 400, tokens_per_second=2000) as emulator,
        make_client(emulator, observers=[calls]) as client,
        client.chat.completions.stream(model=MODEL, messages=messages) as stream,
    ):
        async for _ in stream:
            if stream._decoder.chunks > 50:
                break
    (call,) = calls
    assert (call.outcome, call.prompt_tokens, call.finish_reasons) == ("closed", None, ())
    assert call.response_id
    assert 50 <= call.chunks <= 401
    assert call.estimated_prompt_tokens == (2504 if long else 29)
    assert call.chunks - 1 <= call.estimated_completion_tokens <= call.chunks
    price = Price(prompt=1.0, completion=2.0)
    assert call.cost(price) == call.estimated_prompt_tokens + 2 * call.estimated_completion_tokens


async def test_what_failed_before_an_answer_costs_nothing():
    calls = Calls()
    async with Emulator() as emulator, make_client(emulator, observers=[calls]) as client:
        emulator.script(faults.Status(400, message="no"))
        with pytest.raises(Exception, match="no"):
            await ask(client, stream=True)
        await ask(client, stream=True)  # whose usage was not asked for
    failed, done = (call.cost(Price(1.0, 1.0)) for call in calls)
    assert failed == 0
    assert done is None or done > 0


def _broken(record):
    raise LookupError


async def test_tenants_are_billed_for_what_their_browsers_left():
    told = []
    prices = {"*": Price(prompt=1.0, completion=2.0)}
    async with (
        Emulator(answer=lambda _: ["word "] * 300, tokens_per_second=2000) as emulator,
        make_client(emulator) as base,
    ):
        tenants = Tenants(base, lambda _: None, observers=[told.append, _broken], prices=prices)
        async with tenants.client("acme").chat.completions.stream(**ASK) as stream:
            await anext(stream)
        await ask(tenants.client("other"), stream=False)
        await ask(tenants.client("other"), stream=True)  # whose usage nobody asked for
    left, whole, uncounted = told
    assert isinstance(left, TenantRecord)
    assert (left.tenant, left.call.outcome) == ("acme", "closed")
    assert left.cost == left.call.cost(Price(1.0, 2.0)) > 0
    assert (whole.tenant, whole.call.outcome) == ("other", "ok")
    assert whole.cost == whole.call.prompt_tokens + 2 * whole.call.completion_tokens
    assert (uncounted.call.outcome, uncounted.call.prompt_tokens) == ("ok", None)
    assert uncounted.call.estimated_completion_tokens == pytest.approx(300, abs=3)
    assert uncounted.cost == uncounted.call.cost(Price(1.0, 2.0))


@given(st.lists(st.text(max_size=50), min_size=1, max_size=5), st.integers(1, 500))
def test_the_parts_of_an_estimate_add_up(texts, answer):
    messages = [{"role": "user", "content": text} for text in texts]
    asked = {"messages": messages, "max_tokens": answer}
    assert prompt_tokens(asked) + answer == estimate_tokens(asked)


@given(st.integers(0, 1000), st.integers(0, 10**5))
def test_estimates_of_answers_are_never_more_than_their_bytes(chunks, size):
    assert 0 <= answer_tokens(chunks, size) <= size
