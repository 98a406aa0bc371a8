"""Builds the emulator's error answers: OpenAI's error body, and the names that go with a status."""

from typing import Any, Final

import msgspec

_SERVER: Final = 5
_TYPES: Final = {
    400: ("invalid_request_error", None, "The request is not valid."),
    401: ("authentication_error", "invalid_api_key", "Incorrect API key provided."),
    403: ("permission_error", "permission_denied", "The key may not do this."),
    404: ("invalid_request_error", "not_found", "There is no such thing here."),
    405: ("invalid_request_error", "method_not_allowed", "This method is not allowed here."),
    408: ("timeout_error", "request_timeout", "The request took too long."),
    409: ("invalid_request_error", "conflict", "The request is in conflict with another."),
    413: ("invalid_request_error", "request_too_large", "The request is too large."),
    422: ("invalid_request_error", "unprocessable_entity", "The request cannot be processed."),
    429: ("rate_limit_error", "rate_limit_exceeded", "Rate limit reached."),
    500: ("server_error", "internal_error", "The server had an error."),
    502: ("server_error", "bad_gateway", "The upstream server gave no valid answer."),
    503: ("server_error", "service_unavailable", "The server is overloaded or not ready yet."),
    504: ("server_error", "gateway_timeout", "The upstream server gave no answer in time."),
    # Not in any RFC: Anthropic's status for "overloaded", which gateways pass on.
    529: ("overloaded_error", "overloaded", "The server is overloaded."),
}


def error_object(
    status: int,
    message: str | None = None,
    *,
    type: str | None = None,
    param: str | None = None,
    code: str | None = None,
) -> dict[str, Any]:
    """The value of `error` in an error body; defaults depend on the status."""
    # An unknown status is a test's own choice, so it has to give an error of its class, not a
    # KeyError.
    standard = _TYPES.get(status) or _TYPES[500 if status // 100 == _SERVER else 400]
    return {
        "message": standard[2] if message is None else message,
        "type": type or standard[0],
        "param": param,
        "code": code or standard[1],
    }


class ApiError(Exception):
    """An error answer, raised inside the emulator and sent as a response."""

    def __init__(
        self,
        status: int,
        message: str | None = None,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers or {}
        self.body = msgspec.json.encode(
            {"error": error_object(status, message, param=param, code=code)}
        )
