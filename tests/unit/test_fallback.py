"""Fallbacks: which errors go on to the next model, what is sent there, and what is raised."""

import asyncio
import traceback

import msgspec
import pytest
from resilience_kit import Attempts, make_request, no_tasks_left, now, status_error

from konko_async import Endpoint
from konko_async._core.policies import RetryPolicy
from konko_async._core.secret import Secret
from konko_async.errors import (
    APIConnectionError,
    APITimeoutError,
    CircuitOpenError,
    ConfigurationError,
    KonkoError,
    RateLimitStoreError,
    RateLimitTimeoutError,
    ResponseDecodeError,
    StreamServerError,
    StreamStalledError,
    StreamTruncatedError,
)
from konko_async.middleware import Fallback, FallbackMiddleware, RetryBudget, RetryMiddleware
from konko_async.middleware._fallback import may_fail_over
from konko_async.testing import jumping_time


@pytest.mark.parametrize(
    "error",
    [
        *(status_error(status) for status in (402, 404, 408, 409, 410, 429, 500, 503, 529)),
        status_error(429, code="insufficient_quota"),
        status_error(403, code="insufficient_quota"),
        APIConnectionError("refused"),
        APITimeoutError("slow", phase="connect"),
        APITimeoutError("slow", phase="first_token"),
        ResponseDecodeError("HTML"),
        StreamTruncatedError("cut"),
        StreamStalledError("silent"),
        StreamServerError("overloaded", type="server_error"),
        StreamServerError("unknown", code="model_not_found"),
        StreamServerError("unknown", code="404"),
        StreamServerError("no money", code="insufficient_quota"),
        CircuitOpenError("open", retry_after=1.0),
        RateLimitTimeoutError("full", would_have_waited=9.0),
    ],
)
def test_errors_that_another_model_may_mend(error):
    assert may_fail_over(error)


@pytest.mark.parametrize(
    "error",
    [
        *(status_error(status) for status in (400, 401, 403, 413, 422)),
        APIConnectionError("bad certificate", retryable=False),
        APITimeoutError("out of time", phase="total"),
        StreamServerError("bad", type="invalid_request_error"),
        ConfigurationError("bad"),
        RateLimitStoreError("away"),
    ],
)
def test_errors_that_no_other_model_mends(error):
    assert not may_fail_over(error)


def test_a_bad_certificate_does_not_concern_another_server():
    error = APIConnectionError("bad certificate", retryable=False)
    assert may_fail_over(error, other_server=True)


@jumping_time
@no_tasks_left
async def test_an_answer_needs_no_fallback():
    attempts = Attempts("ok")
    request = make_request(model="a")
    response = await FallbackMiddleware(["b"])(request, attempts)
    assert attempts.requests == [request]
    await response.aclose()


@jumping_time
@no_tasks_left
async def test_the_next_models_are_asked_in_order():
    attempts = Attempts(status_error(503), APIConnectionError("reset"), "ok")
    request = make_request(model="a", params={"model": "a", "n": 1})
    response = await FallbackMiddleware(["b", "c"])(request, attempts)
    assert [r.model for r in attempts.requests] == ["a", "b", "c"]
    assert [r.params for r in attempts.requests] == [{"model": m, "n": 1} for m in "abc"]
    assert [r.content for r in attempts.requests] == [
        repr(r.params).encode() for r in attempts.requests
    ]
    assert all(r.target is None for r in attempts.requests)
    assert request.params == {"model": "a", "n": 1}
    assert request.call.doing == "falling back to c"
    await response.aclose()


@jumping_time
@no_tasks_left
async def test_params_may_be_a_struct():
    class Params(msgspec.Struct):
        model: str
        n: int = 1

    attempts = Attempts(status_error(503), "ok")
    response = await FallbackMiddleware(["b"])(make_request(params=Params("m", 2)), attempts)
    assert attempts.requests[1].params == Params("b", 2)
    await response.aclose()


@jumping_time
@no_tasks_left
async def test_another_server_gets_its_own_key():
    entry = Fallback(base_url="https://other.example/v1/", api_key="other-key")
    attempts = Attempts(status_error(503), "ok")
    request = make_request(model="a")
    response = await FallbackMiddleware([entry])(request, attempts)
    second = attempts.requests[1]
    assert second.target is entry
    assert second.target.base_url == "https://other.example/v1"
    assert second.target.api_key.header("Bearer ") == "Bearer other-key"
    assert second.model == "a"
    assert second.content is request.content, "the same body is not encoded again"
    await response.aclose()


@pytest.mark.parametrize("entry", [{"base_url": "https://other.example"}, {"api_key": "other"}])
@jumping_time
@no_tasks_left
async def test_the_callers_own_credentials_stay_with_the_first(entry):
    headers = {"AUTHORIZATION": "Bearer canary", "x-openai-api-key": "canary"}
    attempts = Attempts(status_error(503), "ok")
    request = make_request(headers={**headers, "Traceparent": "1"})
    await (await FallbackMiddleware([Fallback(**entry)])(request, attempts)).aclose()
    assert attempts.requests[0].headers == {**headers, "Traceparent": "1"}
    assert attempts.requests[1].headers == {"Traceparent": "1"}


# What gateways and clouds take as credentials; nobody can know all of these names.
UNLISTED = (
    "X-Goog-Api-Key", "Ocp-Apim-Subscription-Key", "X-Amz-Security-Token", "Helicone-Auth",
    "CF-Access-Client-Secret", "X-Portkey-Api-Key", "X-Anything-New", "OpenAI-Organization",
)  # fmt: skip


@jumping_time
@no_tasks_left
async def test_only_listed_headers_and_parameters_cross_to_another_server():
    headers = dict.fromkeys(UNLISTED, "canary")
    query = {"key": "canary", "code": "canary", "API-Version": "2"}
    attempts = Attempts(status_error(503), status_error(503), "ok")
    request = make_request(headers={**headers, "Idempotency-Key": "i", "X-Title": "t"})
    request = request.replace(query=query)
    elsewhere = Fallback(base_url="https://other.example/v1")
    await (await FallbackMiddleware(["another-model", elsewhere])(request, attempts)).aclose()
    assert attempts.requests[1].headers == request.headers  # the same server
    assert attempts.requests[1].query == query
    assert attempts.requests[2].headers == {"Idempotency-Key": "i", "X-Title": "t"}
    assert attempts.requests[2].query == {"API-Version": "2"}


@jumping_time
@no_tasks_left
async def test_the_last_error_is_raised_with_a_list_of_what_was_tried():
    errors = [status_error(503), APIConnectionError("reset"), status_error(500)]
    attempts = Attempts(*errors)
    entries = ["b", Fallback(model="c", base_url="https://other.example/v1")]
    with pytest.raises(KonkoError) as caught:
        await FallbackMiddleware(entries)(make_request(model="a"), attempts)
    assert caught.value is errors[-1]
    assert caught.value.__context__ is None
    (note,) = caught.value.__notes__
    assert note == (
        "models tried: a (InternalServerError), b (APIConnectionError), "
        "c at https://other.example/v1 (InternalServerError)"
    )


@jumping_time
@no_tasks_left
async def test_an_error_of_the_request_stops_it():
    attempts = Attempts(status_error(400))
    with pytest.raises(KonkoError) as caught:
        await FallbackMiddleware(["b"])(make_request(), attempts)
    assert len(attempts.requests) == 1
    assert not hasattr(caught.value, "__notes__")


@jumping_time
@no_tasks_left
async def test_calls_without_a_model_have_no_fallback():
    attempts = Attempts(status_error(503))
    with pytest.raises(KonkoError):
        await FallbackMiddleware(["b"])(make_request(model=None, method="GET"), attempts)
    assert len(attempts.requests) == 1


@jumping_time
@no_tasks_left
async def test_the_total_deadline_is_one_for_all():
    attempts = Attempts((6.0, status_error(503)))
    with pytest.raises(KonkoError, match="503"):
        await FallbackMiddleware(["b", "c", "d"])(make_request(total=10), attempts)
    assert len(attempts.requests) == 2


@pytest.mark.parametrize(("left", "asked"), [(0.5, 2), (0.0, 1), (-1.0, 1)])
@jumping_time
@no_tasks_left
async def test_another_model_is_asked_while_any_time_is_left(left, asked):
    attempts = Attempts((10 - left, status_error(503)), (0.1, status_error(503)))
    with pytest.raises(KonkoError, match="503"):
        await FallbackMiddleware(["b"])(make_request(total=10), attempts)
    assert len(attempts.requests) == asked


@jumping_time
@no_tasks_left
async def test_a_bad_certificate_leads_to_another_server_and_to_no_other_model():
    certificate = APIConnectionError("bad certificate", retryable=False)
    elsewhere = Fallback(base_url="https://other.example/v1")
    for entries, asked in ((["b", elsewhere], 1), ([elsewhere], 2), ([Fallback(api_key="k")], 1)):
        attempts = Attempts(certificate, status_error(503))
        with pytest.raises(KonkoError):
            await FallbackMiddleware(entries)(make_request(), attempts)
        assert len(attempts.requests) == asked


@jumping_time
@no_tasks_left
async def test_each_model_has_its_own_retry_series_and_key():
    attempts = Attempts(*[status_error(503)] * 5, "ok")
    retry = RetryMiddleware(RetryPolicy(max_attempts=3), RetryBudget())
    fallback = FallbackMiddleware(["b"])
    response = await fallback(make_request(model="a"), lambda request: retry(request, attempts))
    assert [(r.model, r.attempt) for r in attempts.requests] == [
        (m, n) for m in "ab" for n in (1, 2, 3)
    ]
    keys = [r.headers["Idempotency-Key"] for r in attempts.requests]
    assert len(set(keys[:3])) == len(set(keys[3:])) == 1
    assert keys[0] != keys[3], "another body must not carry the same key"
    await response.aclose()


@jumping_time
@no_tasks_left
async def test_cancellation_passes():
    attempts = Attempts(status_error(503), (60.0, "ok"))
    task = asyncio.create_task(FallbackMiddleware(["b", "c"])(make_request(), attempts))
    await asyncio.sleep(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(attempts.requests) == 2
    assert now() < 2


# The value.


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"model": ""},
        {"model": "a\r\nb"},
        {"base_url": "ftp://x"},
        {"base_url": "http://other.example/v1"},
        {"base_url": "https://user:pass@other.example"},
        {"base_url": "https://x", "api_key": ""},
        {"api_key": "a\nb"},
    ],
)
def test_bad_values_are_refused(arguments):
    with pytest.raises(ConfigurationError):
        Fallback(**arguments)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Fallback(base_url="ftp://x", api_key="canary"),
        lambda: Fallback(api_key="canary", model=""),
        lambda: Endpoint("ftp://x", "canary", headers={"X": "canary"}, query={"k": "canary"}),
        lambda: Endpoint("https://x", "canary", headers={"X": "canary"}, weight=-1),
        lambda: Endpoint("https://x", "canary\n", headers={"X\n": "canary"}),
    ],
)
def test_no_local_variable_shows_a_key_of_what_cannot_be_made(make):
    with pytest.raises(ConfigurationError) as caught:
        make()
    shown = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    ours = [frame.locals for frame in shown.stack if "/tests/" not in frame.filename]
    assert ours
    assert "canary" not in repr(ours)


def test_a_key_that_cannot_be_sent_is_named_and_not_shown():
    with pytest.raises(ConfigurationError, match=r"^Fallback: api_key holds a control") as caught:
        Fallback(model="b", api_key="canary\nkey")
    assert "canary" not in str(caught.value)


def test_plain_http_on_request():
    assert Fallback(base_url="http://10.0.0.7:8000/v1", allow_http=True).model is None
    assert Fallback(base_url="http://127.0.0.1:8000/v1").base_url == "http://127.0.0.1:8000/v1"


@pytest.mark.parametrize("models", ["b", Fallback(model="b"), [3], [None]])
def test_bad_lists_are_refused(models):
    with pytest.raises(ConfigurationError, match="fallback_models"):
        FallbackMiddleware(models)


def test_its_key_does_not_show():
    entry = Fallback(model="b", api_key="canary-key")
    assert "canary" not in repr(entry)
    assert isinstance(entry.api_key, Secret)
    assert Fallback(model="b", api_key=entry.api_key).api_key is entry.api_key
