"""The error tree, as it is drawn in the documentation; errors cross process borders whole."""

import copy
import pickle

import pytest

import konko_async as konko
from konko_async import errors
from konko_async._records import Attempt

TREE = {
    "KonkoError": "Exception",
    "ConfigurationError": "KonkoError",
    "APIError": "KonkoError",
    "APIConnectionError": "APIError",
    "APITimeoutError": "APIConnectionError",
    "APIStatusError": "APIError",
    "BadRequestError": "APIStatusError",
    "AuthenticationError": "APIStatusError",
    "PermissionDeniedError": "APIStatusError",
    "NotFoundError": "APIStatusError",
    "ConflictError": "APIStatusError",
    "UnprocessableEntityError": "APIStatusError",
    "RateLimitError": "APIStatusError",
    "InternalServerError": "APIStatusError",
    "ResponseDecodeError": "APIError",
    "StructuredOutputError": "ResponseDecodeError",
    "LengthFinishReasonError": "_FinishReasonError",
    "ContentFilterFinishReasonError": "_FinishReasonError",
    "ToolArgumentsError": "ResponseDecodeError",
    "StreamError": "APIError",
    "StreamTruncatedError": "StreamError",
    "StreamStalledError": "StreamError",
    "StreamServerError": "StreamError",
    "RateLimitTimeoutError": "KonkoError",
    "RateLimitStoreError": "KonkoError",
    "CircuitOpenError": "KonkoError",
}
ALSO = {  # so that code which knows nothing of us catches them, too
    "ConfigurationError": ValueError,
    "APITimeoutError": TimeoutError,
    "RateLimitTimeoutError": TimeoutError,
}


@pytest.mark.parametrize(("name", "parent"), TREE.items())
def test_the_tree(name, parent):
    kind = getattr(konko, name)
    assert kind is getattr(errors, name)
    assert kind.__bases__[0].__name__ == parent
    assert set(kind.__bases__[1:]) <= {ALSO.get(name)}
    assert kind.__module__ == "konko_async.errors"
    assert kind.__doc__


def test_the_tree_is_whole():
    assert set(errors.__all__) == TREE.keys()
    assert list(errors.__all__) == sorted(errors.__all__)
    for name in TREE:
        assert name in errors.__doc__


PARTIAL = konko.ChatCompletion(id="1")
ATTEMPT = Attempt(number=1, started=0.0, duration=1.0, error_type="APIConnectionError", error="cut")
STATUS = {
    "status_code": 429, "headers": {"retry-after": "5"}, "body": {"error": {"message": "m"}}, "code": "c",
    "type": "t", "param": "p", "retry_after": 5.0, "request_id": "req",
}  # fmt: skip


def made():
    """One of each; made when a test runs, as it is one of openai's too once that is imported."""
    return [
        konko.KonkoError("m"),
        konko.ConfigurationError("m"),
        konko.APIError("m", request_id="req", partial=PARTIAL),
        konko.APIConnectionError("m", request_id="req", partial=PARTIAL, request_sent=False, retryable=False),
        konko.APITimeoutError("m", phase="first_token", request_id="req", partial=PARTIAL, request_sent=False),
        konko.ResponseDecodeError("m", body=b"\xff", offset=3, retryable=True, request_id="req", partial=PARTIAL),
        konko.StructuredOutputError("m", completion=PARTIAL, reason="length", path="$.a", expected="b", index=1, body=b"c"),
        konko.LengthFinishReasonError("m", completion=PARTIAL, reason="length"),
        konko.ContentFilterFinishReasonError("m", completion=PARTIAL, reason="content_filter"),
        konko.ToolArgumentsError("m", name="f", path="$.a", expected="b", body=b"c"),
        konko.ToolRunError("m", messages=[{"role": "user"}], completion=PARTIAL, calls=(1,), rounds=2, usage=konko.Usage(1)),
        konko.ToolLimitError("m", limit="max_rounds", messages=[], rounds=2),
        konko.ToolFailedError("m", call="c", messages=[]),
        konko.StreamError("m", request_id="req", partial=PARTIAL),
        konko.StreamTruncatedError("m", request_id="req", partial=PARTIAL),
        konko.StreamStalledError("m", request_id="req", partial=PARTIAL),
        konko.StreamServerError("m", code="c", type="t", body={"a": 1}, request_id="req", partial=PARTIAL),
        konko.RateLimitTimeoutError("m", would_have_waited=float("inf")),
        konko.RateLimitStoreError("m"),
        konko.CircuitOpenError("m", retry_after=1.5),
        konko.APIStatusError("m", **STATUS),
        *[
            getattr(konko, name)("m", **STATUS)
            for name, parent in TREE.items()
            if parent == "APIStatusError"
        ],
    ]  # fmt: skip


KINDS = [type(error).__name__ for error in made()]


@pytest.mark.parametrize("number", range(len(KINDS)), ids=KINDS)
@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_errors_pickle_with_all_they_know(number, protocol):
    error = made()[number]
    error.attempts = (ATTEMPT,)
    again = pickle.loads(pickle.dumps(error, protocol))  # noqa: S301 - our own
    assert type(again) is type(error)
    assert again.__dict__ == error.__dict__
    assert (again.args, str(again), again.message) == (("m",), "m", "m")
    assert again.attempts == (ATTEMPT,)


@pytest.mark.parametrize("way", [copy.copy, copy.deepcopy])
@pytest.mark.parametrize("number", range(len(KINDS)), ids=KINDS)
def test_errors_can_be_copied(number, way):
    error = made()[number]
    copied = way(error)
    assert type(copied) is type(error)
    assert copied.__dict__ == error.__dict__
    assert copied is not error


def test_every_kind_was_tried():
    of_tools = {"ToolRunError", "ToolLimitError", "ToolFailedError"}  # drawn in, but theirs
    assert {type(error).__name__ for error in made()} == TREE.keys() | of_tools


def test_notes_survive_pickling():
    error = konko.APIError("m")
    error.add_note("seen in row 7")
    assert pickle.loads(pickle.dumps(error)).__notes__ == ["seen in row 7"]  # noqa: S301 - our own


@pytest.mark.parametrize("error", made(), ids=lambda error: type(error).__name__)
def test_attributes_as_promised(error):
    assert error.message == str(error) == "m"
    assert isinstance(type(error)("m", **_required(error)).attempts, tuple)
    if isinstance(error, konko.APIError):
        bare = type(error)("m", **_required(error))
        assert bare.request_id is None
        assert bare.partial is None
        assert bare.attempts == ()


def _required(error):
    if isinstance(error, konko.APIStatusError):
        return {"status_code": error.status_code}
    for name in ("phase", "limit", "would_have_waited", "retry_after"):
        if hasattr(error, name):
            return {name: getattr(error, name)}
    return {}


@pytest.mark.parametrize("phase", ["connect", "first_token", "total"])
def test_timeouts_name_their_phase(phase):
    error = konko.APITimeoutError("m", phase=phase)
    assert error.phase == phase
    assert error.retryable is (phase != "total")
    assert error.errno is None


@pytest.mark.parametrize(
    ("status", "name"),
    [(400, "BadRequestError"), (401, "AuthenticationError"), (403, "PermissionDeniedError"),
     (404, "NotFoundError"), (409, "ConflictError"), (422, "UnprocessableEntityError"),
     (429, "RateLimitError"), (500, "InternalServerError"), (503, "InternalServerError"),
     (529, "InternalServerError"), (402, "APIStatusError"), (418, "APIStatusError"), (301, "APIStatusError")],
)  # fmt: skip
def test_for_status(status, name):
    error = konko.APIStatusError.for_status(status, "m", code="c")
    assert type(error).__name__ == name
    assert (error.status_code, error.code, error.headers) == (status, "c", {})


def test_headers_are_not_shared():
    one, other = (konko.APIStatusError("m", status_code=400) for _ in range(2))
    assert one.headers is not other.headers
