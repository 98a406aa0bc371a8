"""What servers say when they fail, in all the shapes they say it."""

import json
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

import konko_async as konko
from konko_async import ResponseDecodeError
from konko_async._http.error_responses import find_error, redirect_error, status_error, stream_error
from konko_async.wire._codec import decode_json

BY_STATUS = {
    400: konko.BadRequestError,
    401: konko.AuthenticationError,
    403: konko.PermissionDeniedError,
    404: konko.NotFoundError,
    408: konko.APIStatusError,
    409: konko.ConflictError,
    413: konko.APIStatusError,
    422: konko.UnprocessableEntityError,
    429: konko.RateLimitError,
    500: konko.InternalServerError,
    502: konko.InternalServerError,
    503: konko.InternalServerError,
    529: konko.InternalServerError,
    599: konko.InternalServerError,
}


@pytest.mark.parametrize(("status", "kind"), BY_STATUS.items())
@pytest.mark.parametrize(
    "body", [b"", b"<html>", b'{"error":{"message":"m"}}', b"\xff", b"[]", b"1"]
)
def test_the_status_decides_the_class(status, kind, body):
    error = status_error(status, {}, body, "req-1")
    assert type(error) is kind
    assert error.status_code == status
    assert error.request_id == "req-1"
    assert str(status) in str(error)


INNER = {"message": "m", "type": "t", "param": "p", "code": "c"}
SHAPES = [
    # payload, message, code, type
    ({"error": INNER}, "m", "c", "t"),
    ({"error": {"message": "m"}}, "m", None, None),
    ({"error": {"message": "m", "code": 429}}, "m", "429", None),
    ({"error": {"message": None, "detail": "d"}}, "d", None, None),
    ({"error": {"code": "c"}}, '{"code":"c"}', "c", None),
    ({"error": {"message": {"a": 1}}}, '{"message":{"a":1}}', None, None),
    ({"error": {"message": ""}}, '{"message":""}', None, None),
    ({"error": {}}, "{}", None, None),
    ({"error": "text"}, "text", None, None),
    ({"error": "Bad Request", "message": "n is 0", "statusCode": 400}, "Bad Request: n is 0", None, None),
    ({"error": "text", "code": "c", "type": "t"}, "text", "c", "t"),
    ({"error": ["a", "b"]}, '["a","b"]', None, None),
    ({"error": True}, "true", None, None),
    ({"object": "error", **INNER}, "m", "c", "t"),
    ({"object": "error", "message": "m", "type": "BadRequestError", "code": 400}, "m", "400", "BadRequestError"),
    ({"type": "error", "error": {"type": "overloaded_error", "message": "m"}}, "m", None, "overloaded_error"),
    ({"type": "error", "message": "m"}, "m", None, "error"),
    ({"detail": "d"}, "d", None, None),
    ({"detail": None, "message": "m"}, "m", None, None),
    ({"detail": [{"loc": ["body"], "msg": "x"}]}, '[{"loc":["body"],"msg":"x"}]', None, None),
    ({"message": "m"}, "m", None, None),
    ({"error": False, "message": "m"}, "m", None, None),
    ([{"error": {"code": 400, "message": "m", "status": "INVALID_ARGUMENT"}}], "m", "400", None),
    ({"error": {"message": "m"}, "choices": []}, "m", None, None),
    ({"error": {"message": "m"}, "choices": [{"index": 0}]}, "m", None, None),
    ({"error": {"message": "m"}, "data": [1]}, "m", None, None),
    ({"error": {"message": "Provider returned error", "code": 429, "metadata": {"raw": "slow down"}}}, "Provider returned error: slow down", "429", None),
    ({"success": False, "errors": ["a", "b"]}, '["a","b"]', None, None),
    ({"success": False, "errors": "a"}, "a", None, None),
    ({"choices": [{"finish_reason": {"type": "abort", "message": "m"}}]}, "m", None, "abort"),
]  # fmt: skip


@pytest.mark.parametrize(("payload", "text", "code", "kind"), SHAPES)
def test_shapes(payload, text, code, kind):
    info = find_error(payload)
    assert (info.message, info.code, info.type) == (text, code, kind)
    error = status_error(418, {}, json.dumps(payload).encode(), None)
    assert (error.message, error.code, error.type) == (f"HTTP 418: {text}", code, kind)
    assert error.body == payload
    streamed = stream_error(payload, {}, None, delivered=True)
    assert type(streamed) is konko.StreamServerError
    assert text in streamed.message
    assert (streamed.code, streamed.type, streamed.body) == (code, kind, payload)


def test_the_param_is_kept():
    assert status_error(400, {}, json.dumps({"error": INNER}).encode(), None).param == "p"


@pytest.mark.parametrize(
    "payload",
    [
        None, 1, "text", [], [1], [{}], {}, {"choices": []}, {"data": []}, {"error": None},
        {"choices": [], "error": None}, {"error": False, "choices": []}, {"id": "x"},
        {"choices": [{"index": 0}], "error": ""}, {"choices": [{"index": 0}], "error": {}},
        {"choices": [], "message": "m"}, {"data": [{"id": "a"}], "message": "ok"},
        {"type": "ping"}, [{"id": "a"}], [{"error": None}], {"usage": {}, "detail": None},
    ],
)  # fmt: skip
def test_what_is_no_error(payload):
    assert find_error(payload) is None


@pytest.mark.parametrize(
    ("payload", "kind"),
    [
        ({"error": {"code": 429}}, konko.RateLimitError),
        ({"error": {"code": "429"}}, konko.RateLimitError),
        ({"error": {"type": "rate_limit_error"}}, konko.RateLimitError),
        ({"error": {"code": "insufficient_quota"}}, konko.RateLimitError),
        (
            {"error": {"code": "invalid_api_key", "type": "invalid_request_error"}},
            konko.AuthenticationError,
        ),
        (
            {"error": {"code": "context_length_exceeded", "type": "invalid_request_error"}},
            konko.BadRequestError,
        ),
        ({"error": {"status": 503}}, konko.InternalServerError),
        ({"error": {"status_code": 404}}, konko.NotFoundError),
        ({"error": "busy", "status": 503}, konko.InternalServerError),
        ({"type": "error", "error": {"type": "overloaded_error"}}, konko.InternalServerError),
        ({"object": "error", "message": "m", "code": 401}, konko.AuthenticationError),
        ([{"error": {"code": 403, "message": "m"}}], konko.PermissionDeniedError),
    ],
)
def test_an_error_inside_a_200_is_what_it_names_until_something_was_delivered(payload, kind):
    headers = {"Retry-After": "7", "retry-after": "7"}
    error = stream_error(payload, headers, "req", delivered=False)
    assert type(error) is kind
    assert error.retry_after == 7
    assert error.request_id == "req"
    assert error.body == payload
    late = stream_error(payload, headers, "req", delivered=True)
    assert type(late) is konko.StreamServerError
    assert late.request_id == "req"


@pytest.mark.parametrize("payload", [{"error": {"code": 200}}, {"error": {"code": 999}}, {"error": {"code": "４０４"}},
                                     {"error": "text"}, "upstream died", "", {"code": 1}, [1, 2], None])  # fmt: skip
def test_an_error_that_names_no_status(payload):
    for delivered in (False, True):
        error = stream_error(payload, {}, None, delivered=delivered)
        assert type(error) is konko.StreamServerError
        assert not error.message.endswith(": ")


def test_html_and_plain_text():
    page = b"<html>\r\n<head><title>502 Bad\tGateway</title></head>\n\n<body>nginx</body>"
    error = status_error(502, {}, page, None)
    assert "<title>502 Bad Gateway</title>" in error.message
    assert "\n" not in error.message
    assert error.body == page.decode()
    assert "upstream gone" in status_error(503, {}, b"upstream gone", None).message
    assert status_error(500, {}, b"", None).message == "HTTP 500: the server sent no explanation"
    assert status_error(500, {}, b" \n\t", None).message.endswith("no explanation")
    assert "\ufffd" in status_error(500, {}, b"\xff\xfd", None).message
    # A mark of UTF-16 and nothing behind it.
    assert status_error(500, {}, b"\xff\xfe", None).message.endswith("no explanation")
    for encoding in ("utf-16", "utf-16-le", "utf-16-be", "utf-32"):
        wide = status_error(503, {}, "upstream gone".encode(encoding), None)
        assert wide.message == "HTTP 503: upstream gone"


@given(
    st.one_of(
        st.binary(max_size=100),
        st.text(max_size=50).map(lambda t: json.dumps({"error": t}).encode()),
    )
)
def test_any_body_makes_an_error(body):
    error = status_error(500, {}, body, None)
    assert type(error) is konko.InternalServerError
    assert len(error.message) <= 500


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["error", "message", "code", "type", "object", "detail", "status", "choices", "data", "x"]), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@given(JSON, st.booleans())
def test_any_payload_makes_an_error(payload, delivered):
    find_error(payload)
    error = stream_error(payload, {}, None, delivered=delivered)
    assert isinstance(error, (konko.StreamServerError, konko.APIStatusError))
    assert len(error.message) <= 500
    assert len(error.code or "") <= 200
    error = status_error(400, {}, json.dumps(payload).encode(), None)
    assert type(error) is konko.BadRequestError


@pytest.mark.parametrize("body", [b"x" * 65536, b"<p>" * 20000, json.dumps({"error": {"message": "x" * 60000, "code": "y" * 60000}}).encode(),
                                  json.dumps({"error": ["x" * 60000]}).encode(), b'{"error":' + b"[" * 60000, b"\0" * 65536])  # fmt: skip
def test_huge_bodies_make_short_messages(body):
    error = status_error(500, {}, body, None)
    assert len(error.message) <= 500
    assert len(str(error)) <= 500
    assert len(error.code or "") <= 200
    streamed = stream_error(error.body, {}, None, delivered=True)
    assert len(streamed.message) <= 500


def test_a_message_cannot_steer_a_terminal():
    body = json.dumps({"error": {"message": "a\x1b[2J\x07\x9b31m\r\x00b\nnext"}}).encode()
    message = status_error(400, {}, body, None).message
    assert "\x1b" not in message
    assert message == "HTTP 400: a [2J 31m b\nnext"
    assert "\x1b" not in status_error(400, {}, b"\x1b[31mred", None).message


def test_headers_are_given_in_lower_case_with_retry_after_read():
    error = status_error(429, {"Retry-After": "2.5", "retry-after": "2.5", "X-A": "b"}, b"", None)
    assert error.headers["x-a"] == "b"
    assert error.retry_after == 2.5
    assert status_error(429, {}, b"", None).retry_after is None


def test_a_redirect_says_where_to_and_why_not():
    error = redirect_error(307, {"location": "https://elsewhere.example/\x1b" + "a" * 1000}, "req")
    assert type(error) is konko.APIStatusError
    assert error.status_code == 307
    assert "https://elsewhere.example/" in error.message
    assert "base_url" in error.message
    assert "\x1b" not in error.message
    assert len(error.message) <= 500
    assert error.request_id == "req"


def test_errors_that_are_nested_as_deep_as_can_be_read_are_named():
    """Writing an error as JSON takes more of the stack than reading it did."""
    shown = set()
    for depth in range(1, sys.getrecursionlimit() + 10):
        data = b'{"error":' * depth + b'{"x":1}' + b"}" * depth
        try:
            payload = decode_json(data)
        except ResponseDecodeError as error:
            assert "too deeply" in str(error)  # noqa: PT017 - not each is too deep
            continue
        shown.add(find_error(payload).message[:30])
    assert shown
