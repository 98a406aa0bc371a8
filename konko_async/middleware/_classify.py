"""What an error says about its cause, for all layers alike; pure."""

from __future__ import annotations

from konko_async.errors import APIStatusError, StreamServerError

__all__ = ["blames_request", "is_out_of_credit", "named_status", "names_missing_model"]

_NOT_FOUND = 404
_STATUS_DIGITS = 3

# 429s (or 402s, 403s) that no waiting mends: the account has no money left.
_OUT_OF_CREDIT = frozenset(
    {
        "account_deactivated",
        "billing_hard_limit_reached",
        "billing_not_active",
        "credit_balance_too_low",
        "insufficient_credits",
        "insufficient_quota",
        "quota_exceeded",
    }
)
# What servers call the client's own fault in an error event, where no status tells.
_CLIENT_ERRORS = _OUT_OF_CREDIT | {
    "authentication_error",
    "bad_request",
    "badrequesterror",
    "content_filter",
    "content_policy_violation",
    "context_length_exceeded",
    "invalid_api_key",
    "invalid_prompt",
    "invalid_request",
    "invalid_request_error",
    "model_not_found",
    "not_found",
    "not_found_error",
    "notfounderror",
    "permission_denied",
    "permission_error",
    "string_above_max_length",
    "unprocessable_entity",
    "unsupported_value",
}


_MISSING_MODEL = frozenset({"model_not_found", "not_found", "not_found_error", "notfounderror"})


def is_out_of_credit(error: BaseException) -> bool:
    """Tell whether the server says that the account's credit is used up (``insufficient_quota``).

    Args:
        error: any error; only status errors and error events can say so.
    """
    if not isinstance(error, (APIStatusError, StreamServerError)):
        return False
    return not _names(error).isdisjoint(_OUT_OF_CREDIT)


def blames_request(error: StreamServerError) -> bool:
    """Tell whether an error event says that the request or its key is at fault.

    Args:
        error: an event inside a 200 stream; only its ``code`` and ``type`` are looked at.
    """
    return not _names(error).isdisjoint(_CLIENT_ERRORS)


def names_missing_model(error: StreamServerError) -> bool:
    """Tell whether an error event says that there is no such model.

    Args:
        error: an event inside a 200 stream.
    """
    return not _names(error).isdisjoint(_MISSING_MODEL) or named_status(error) == _NOT_FOUND


def named_status(error: StreamServerError) -> int | None:
    """Return the HTTP status that an error event names as its ``code`` or ``type``, or None.

    Args:
        error: an event inside a 200 stream.
    """
    for name in (error.code, error.type):
        if name is not None and len(name) == _STATUS_DIGITS and name.isascii() and name.isdigit():
            return int(name)
    return None


def _names(error: APIStatusError | StreamServerError) -> set[str]:
    return {name.lower() for name in (error.code, error.type) if isinstance(name, str)}
