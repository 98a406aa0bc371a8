"""One table holds what each error means, for retry, breaker, fallback, limits, batch and relay alike."""

import itertools
import json
import string
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from konko_async._core.policies import RetryPolicy
from konko_async._http.error_responses import status_error, stream_error
from konko_async.errors import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    CircuitOpenError,
    ConfigurationError,
    RateLimitStoreError,
    RateLimitTimeoutError,
    ResponseDecodeError,
    StreamServerError,
    StreamStalledError,
    StreamTruncatedError,
    StructuredOutputError,
)
from konko_async.middleware import Classification, classify, classify_status

# What each kind implies: retryable, transient, what it means for a batch, blames_request.
IMPLIED = {
    "rate_limit": (True, True, False, False),
    "overloaded": (True, True, False, False),
    "server_error": (True, True, False, False),
    "conflict": (True, True, False, False),
    "timeout": (True, True, False, False),
    "connection": (True, True, False, False),
    "cut_off": (True, True, False, False),
    "circuit_open": (False, True, False, False),
    "local_limit": (False, True, False, False),
    "deadline": (False, False, False, False),
    "unreadable": (False, False, False, False),
    "other": (False, False, False, False),
    "out_of_credit": (False, False, True, True),
    "authentication": (False, False, True, True),
    "forbidden": (False, False, "if_first", True),
    "missing_model": (False, False, "if_first", True),
    "not_found": (False, False, "if_first", True),
    "redirect": (False, False, True, True),
    "too_long": (False, False, False, True),
    "refused": (False, False, False, True),
    "invalid_request": (False, False, False, True),
}


def flags(found):
    ends = "if_first" if found.ends_batch_if_first else found.ends_batch
    return found.retryable, found.transient, ends, found.blames_request


# status, code, type, message -> kind. Messages are in the words of the servers named beside them.
TABLE = [
    # statuses alone
    (400, None, None, "", "invalid_request"),
    (401, None, None, "", "authentication"),
    (402, None, None, "", "out_of_credit"),
    (403, None, None, "", "forbidden"),
    (404, None, None, "", "not_found"),
    (405, None, None, "", "not_found"),
    (408, None, None, "", "timeout"),
    (409, None, None, "", "conflict"),
    (410, None, None, "", "not_found"),
    (413, None, None, "", "too_long"),
    (415, None, None, "", "invalid_request"),
    (422, None, None, "", "invalid_request"),
    (425, None, None, "", "conflict"),
    (429, None, None, "", "rate_limit"),
    (307, None, None, "", "redirect"),
    (500, None, None, "", "server_error"),
    (502, None, None, "", "server_error"),
    (503, None, None, "", "overloaded"),
    (504, None, None, "", "timeout"),
    *((status, None, None, "", "server_error") for status in (520, 521, 523, 525, 530, 599)),
    (522, None, None, "", "timeout"),
    (524, None, None, "", "timeout"),
    (529, None, None, "", "overloaded"),
    # out of credit, by name
    (429, "insufficient_quota", "insufficient_quota", "You exceeded your current quota", "out_of_credit"),
    (429, None, "insufficient_quota", "", "out_of_credit"),
    (429, "billing_hard_limit_reached", None, "", "out_of_credit"),
    (429, "billing_not_active", "billing_not_active", "", "out_of_credit"),
    (403, "billing_not_active", None, "", "out_of_credit"),
    (403, "InsufficientQuota", None, "", "out_of_credit"),
    (402, "insufficient_credits", None, "", "out_of_credit"),
    (402, "402", "billing", "Insufficient credits. Add more using the billing page", "out_of_credit"),
    (403, "INSUFFICIENT-CREDITS", None, "", "out_of_credit"),
    (400, "Arrearage", "Arrearage", "Access denied, please make sure your account is in good standing.", "out_of_credit"),
    (429, None, "exceeded_current_quota_error", "", "out_of_credit"),
    (429, "429", "budget_exceeded", "Budget has been exceeded! Current cost: 3, Max budget: 2", "out_of_credit"),
    (403, None, "billing_error", "", "out_of_credit"),
    (500, "insufficient_quota", None, "", "out_of_credit"),
    # out of credit, in words alone
    (400, None, "invalid_request_error", "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing", "out_of_credit"),
    (402, "invalid_request_error", "unknown_error", "Insufficient Balance", "out_of_credit"),
    (429, None, None, "Your account org-1 <ak-2> is suspended due to insufficient balance, please recharge", "out_of_credit"),
    (429, "1113", None, "余额不足或无可用资源包,请充值。", "out_of_credit"),
    (429, "1113", None, "Insufficient balance or no resource package. Please recharge.", "out_of_credit"),
    (403, "30011", None, "The selected model requires paid balance. Your paid balance is insufficient.", "out_of_credit"),
    (403, None, None, "Your team has either used all available credits or reached its monthly spending limit.", "out_of_credit"),
    (403, None, None, "You have run out of credits or need a subscription.", "out_of_credit"),
    (403, None, None, "Your newly created team doesn't have any credits or licenses yet.", "out_of_credit"),
    (402, None, None, "This request requires more credits, or fewer max_tokens.", "out_of_credit"),
    (400, "400", None, "Budget has been exceeded! Team=1 Current cost: 14, Max budget: 10", "out_of_credit"),
    (400, "400", "auth_error", "ExceededBudget: End User=a over budget. Spend=0.1, Budget=0.01", "out_of_credit"),
    (403, "permission-denied", None, "Your team has either used all available credits or reached its monthly spending limit.", "out_of_credit"),
    (429, None, None, "You exceeded your current quota, please check your plan and billing details.", "out_of_credit"),
    # and what only sounds like it
    (429, "429", None, "You exceeded your current quota, please check your plan and billing details. See https://ai.google.dev/gemini-api/docs/rate-limits. Please retry in 32.5s.", "rate_limit"),
    (429, "rate_limit_exceeded", "requests", "Rate limit reached. Limit 3 / min. Please add a payment method to your account to increase your rate limit.", "rate_limit"),
    (429, "rate_limit_exceeded", "tokens", "Rate limit reached on tokens per min: Limit 30000, Used 29000, Requested 2000. Please try again in 2s.", "rate_limit"),
    (429, "RateLimitReached", "requests", "Rate limit of 50 per 86400s exceeded. Please wait 35000 seconds.", "rate_limit"),
    # throttles and overloads under other statuses
    (400, "ThrottlingException", None, "Too many tokens, please wait before trying again.", "rate_limit"),
    (403, "rate_limit_exceeded", None, "", "rate_limit"),
    (500, None, "rate_limit_error", "", "rate_limit"),
    (429, None, "engine_overloaded_error", "The engine is currently overloaded", "overloaded"),
    (503, "overloaded", "server_error", "", "overloaded"),
    (500, None, "overloaded_error", "Overloaded", "overloaded"),
    (429, "RESOURCE_EXHAUSTED", None, "", "rate_limit"),
    # the key
    (401, "invalid_api_key", "invalid_request_error", "Incorrect API key provided", "authentication"),
    (400, "400", None, "API key not valid. Please pass a valid API key.", "authentication"),
    (403, "account_deactivated", None, "", "authentication"),
    (401, "account_deactivated", None, "", "authentication"),
    # what the key may not do
    (403, "unsupported_country_region_territory", "request_forbidden", "Country, region, or territory not supported", "forbidden"),
    (400, None, None, "Access to Anthropic models is not allowed from unsupported countries, regions, or territories.", "forbidden"),
    (400, "FAILED_PRECONDITION", None, "User location is not supported for the API use.", "forbidden"),
    (403, None, "RegionError", "This model is not available in your country.", "forbidden"),
    (403, None, "permission_error", "", "forbidden"),
    # the model
    (404, "model_not_found", "invalid_request_error", "The model `gtp-4o` does not exist or you do not have access to it.", "missing_model"),
    (404, None, "not_found_error", "model: claude-9", "missing_model"),
    (404, "DeploymentNotFound", None, "The API deployment for this resource does not exist.", "missing_model"),
    (404, None, None, "model 'llama9' not found", "missing_model"),
    (404, "404", None, "models/gemini-9 is not found for API version v1beta", "missing_model"),
    (404, None, None, "No endpoints found matching your data policy", "missing_model"),
    (400, "400", None, "foo/bar is not a valid model ID", "missing_model"),
    (400, None, "invalid_request_error", "Model Not Exist", "missing_model"),
    (400, None, "invalid_model", "Invalid model: foo", "missing_model"),
    (400, None, None, "Invalid model name passed in model=gtp-4o", "missing_model"),
    (400, "unsupported_parameter", "invalid_request_error", "'max_tokens' is not supported with this model.", "invalid_request"),
    (404, None, None, "Not Found", "not_found"),
    # the length
    (400, "context_length_exceeded", "invalid_request_error", "", "too_long"),
    (400, "400", "exceed_context_size_error", "the request exceeds the available context size", "too_long"),
    (400, None, "invalid_request_error", "prompt is too long: 9000 tokens > 8000 maximum", "too_long"),
    (400, None, "invalid_request_error", "input length and `max_tokens` exceed context limit: 9 + 9 > 10", "too_long"),
    (400, None, None, "This model's maximum context length is 4096 tokens.", "too_long"),
    (400, None, None, "Context length exceeded", "too_long"),
    (422, None, "validation", "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096", "too_long"),
    (400, "400", None, "The input token count (9000) exceeds the maximum number of tokens allowed (8000).", "too_long"),
    (400, None, "invalid_request_error", "Your request exceeded model token limit: 8000", "too_long"),
    (400, None, "BadRequestError", "The decoder prompt (length 5210) is longer than the maximum model length of 4096.", "too_long"),
    (400, None, None, "litellm.BadRequestError: ContextWindowExceededError: OpenAIException", "too_long"),
    (400, None, "invalid_request_error", "Range of input length should be [1, 30720]", "too_long"),
    (400, None, None, "This model's maximum prompt length is 131072 but the request contains 537812 tokens", "too_long"),
    (400, None, None, "Please reduce the length of the messages or completion.", "too_long"),
    (413, "rate_limit_exceeded", "tokens", "Request too large for model `x` on tokens per minute (TPM): Limit 6000, Requested 7000", "too_long"),
    (429, "rate_limit_exceeded", "tokens", "Request too large for gpt-4o on tokens per min (TPM): Limit 30000, Requested 42161.", "too_long"),
    (413, None, None, "<html>413 Request Entity Too Large</html>", "too_long"),
    (429, None, None, "Too many tokens, please wait before trying again.", "rate_limit"),
    # the contents
    (400, "content_filter", None, "The response was filtered due to the prompt triggering the content management policy.", "refused"),
    (400, "ResponsibleAIPolicyViolation", None, "", "refused"),
    (400, "data_inspection_failed", "data_inspection_failed", "Input data may contain inappropriate content.", "refused"),
    (403, "403", None, 'foo/bar requires moderation. Your input was flagged for "violence".', "refused"),
    # error events that name no status
    (None, None, None, "upstream died", "server_error"),
    (None, None, "invalid_request_error", "", "invalid_request"),
    (None, "Context_Length_Exceeded", None, "", "too_long"),
    (None, None, "overloaded_error", "", "overloaded"),
    (None, None, "rate_limit_error", "", "rate_limit"),
    (None, None, None, "Insufficient credits", "out_of_credit"),
    (None, "model_not_found", None, "", "missing_model"),
]  # fmt: skip


@pytest.mark.parametrize(("status", "code", "type", "message", "kind"), TABLE)
def test_the_table(status, code, type, message, kind):
    found = classify_status(status, code, type, message)
    assert found.kind == kind
    assert found.status == status
    if status is None or status < 500:
        assert flags(found) == IMPLIED[kind]
        assert found.max_retries is None


@pytest.mark.parametrize(("status", "param", "kind"), [
    (404, "model", "missing_model"),
    (404, None, "not_found"),
    (404, "id", "not_found"),
    (400, "model", "invalid_request"),
])  # fmt: skip
def test_a_404_that_blames_the_model_is_no_wrong_path(status, param, kind):
    assert classify_status(status, None, "invalid_request_error", "No.", param=param).kind == kind
    error = APIStatusError.for_status(status, "No.", param=param)
    assert classify(error).kind == kind


@pytest.mark.parametrize(("param", "kind"), [
    ("messages[0].content", "too_long"),
    ("prompt", "too_long"),
    ("input", "too_long"),
    ("user", "invalid_request"),
    (None, "invalid_request"),
])  # fmt: skip
def test_a_text_that_is_too_long_is_the_input_or_another_field(param, kind):
    said = "string_above_max_length", "invalid_request_error", "Expected a shorter string."
    assert classify_status(400, *said, param=param).kind == kind


@pytest.mark.parametrize(
    ("status", "code", "type", "message", "kind"), [row for row in TABLE if row[0]]
)
def test_an_answer_with_that_body_says_the_same(status, code, type, message, kind):
    error = APIStatusError.for_status(status, f"HTTP {status}: {message}", code=code, type=type)
    assert classify(error).kind == kind


@pytest.mark.parametrize("body", [
    {"error": {"code": 402, "message": "Insufficient credits"}},
    {"error": {"type": "billing_not_active"}},
    {"error": "Insufficient Balance"},
    {"code": 30011, "message": "Your paid balance is insufficient.", "data": None},
    {"type": "error", "error": {"type": "invalid_request_error", "message": "Your credit balance is too low"}},
])  # fmt: skip
@pytest.mark.parametrize("status", [400, 402, 403, 429])
def test_credit_is_read_from_any_shape_of_body(status, body):
    error = status_error(status, {}, json.dumps(body).encode(), None)
    assert classify(error) == Classification(
        "out_of_credit", ends_batch=True, blames_request=True, status=status
    )
    for delivered in (False, True):
        event = stream_error(body, {}, None, delivered=delivered)
        assert classify(event).out_of_credit


@pytest.mark.parametrize(("code", "type", "message", "kind"), [
    ("context_length_exceeded", None, "", "too_long"),
    (None, "exceed_context_size_error", "", "too_long"),
    (None, None, "input is too large to process. increase the physical batch size", "too_long"),
    (None, "invalid_request_error", "failed to parse grammar", "invalid_request"),
    (None, "BadRequestError", "", "invalid_request"),
    (None, "content_filter", "", "refused"),
    (None, "invalid_api_key", "", "authentication"),
])  # fmt: skip
def test_a_500_that_blames_the_request_is_retried_once(code, type, message, kind):
    found = classify_status(500, code, type, message)
    assert (found.kind, found.retryable, found.max_retries) == (kind, True, 1)
    assert not found.transient
    assert found.blames_request


@pytest.mark.parametrize("status", range(500, 600))
def test_server_errors(status):
    found = classify_status(status)
    final = status in {501, 505}
    assert found.retryable is found.transient is not final
    assert (status in RetryPolicy().statuses) is not final


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (APIConnectionError("refused"), "connection"),
        (APITimeoutError("slow", phase="connect"), "timeout"),
        (APITimeoutError("slow", phase="first_token"), "timeout"),
        (APITimeoutError("slow", phase="total"), "deadline"),
        (ResponseDecodeError("cut", retryable=True), "cut_off"),
        (ResponseDecodeError("HTML"), "unreadable"),
        (StructuredOutputError("no JSON"), "unreadable"),
        (StreamTruncatedError("cut"), "cut_off"),
        (StreamStalledError("silent"), "cut_off"),
        (CircuitOpenError("open", retry_after=1.0), "circuit_open"),
        (RateLimitTimeoutError("full", would_have_waited=9.0), "local_limit"),
        (RateLimitStoreError("away"), "local_limit"),
        (ConfigurationError("bad"), "other"),
        (ValueError("not ours"), "other"),
        (StreamServerError("busy", code="503"), "overloaded"),
        (StreamServerError("bad", code="400"), "invalid_request"),
        (StreamServerError("bad", type="401"), "authentication"),
    ],
)
def test_errors_of_every_class(error, kind):
    found = classify(error)
    assert found.kind == kind
    assert flags(found) == IMPLIED[kind]


def test_a_bad_certificate_meets_every_request():
    found = classify(APIConnectionError("bad certificate", retryable=False))
    assert (found.kind, found.retryable, found.transient, found.ends_batch) == (
        "connection", False, False, True,
    )  # fmt: skip


@pytest.mark.parametrize(("status", "asked", "retryable", "transient"), [
    (503, "false", False, False), (503, "TRUE ", True, True), (503, "perhaps", True, True),
    (400, "true", True, False), (429, "false", False, False), (402, "true", False, False),
])  # fmt: skip
def test_what_the_server_asks_goes_before_the_status(status, asked, retryable, transient):
    error = APIStatusError.for_status(status, "", headers={"x-should-retry": asked})
    found = classify(error)
    assert (found.retryable, found.transient) == (retryable, transient)


def test_statuses_of_a_policy_are_retried_except_where_none_helps():
    chosen = frozenset({404, 429, 500})
    for status in (404, 429, 500):
        assert classify_status(status, retry_statuses=chosen).retryable
    assert not classify_status(503, retry_statuses=chosen).retryable
    assert not classify_status(429, "insufficient_quota", retry_statuses=chosen).retryable
    assert not classify_status(500, "insufficient_quota", retry_statuses=chosen).retryable


@given(
    status=st.none() | st.integers(100, 999),
    code=st.none() | st.text(max_size=30),
    type=st.none() | st.sampled_from(["insufficient_quota", "overloaded", "invalid_request_error"]),
    message=st.text(max_size=300),
)
def test_anything_is_classified_without_contradiction(status, code, type, message):
    found = classify_status(status, code, type, message)
    assert found.kind in IMPLIED
    ends = found.ends_batch or found.ends_batch_if_first
    assert not (found.ends_batch and found.ends_batch_if_first)
    assert not (found.transient and (ends or found.blames_request))
    assert not (found.out_of_credit and found.retryable)
    assert found.blames_request or not ends


def test_long_messages_cost_little():
    # Repetitive text is what makes patterns backtrack; 1,000 characters of it are read.
    pieces = ["model ", "insufficient_", "region ", "context ", "input ", "not supported in ", "a"]
    began = time.process_time()
    for one, two in itertools.product(pieces, pieces):
        classify_status(400, None, None, (one + two) * 100_000)
    classify_status(400, None, None, string.printable * 10_000)
    assert time.process_time() - began < 2.0  # about 0.05 s in fact
