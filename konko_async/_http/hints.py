"""What to do about an error that more than the server's own words can be said of; pure."""

from __future__ import annotations

from collections.abc import Mapping

from konko_async.errors import APIError, APIStatusError, ResponseDecodeError

__all__ = ["add_hint"]

_NO_SUCH_PATH = (404, 405)
_DECODED = frozenset({"", "identity", "gzip", "x-gzip", "deflate", "br", "zstd"})


def add_hint(error: APIError, headers: Mapping[str, str], base_url: str) -> None:
    """Say in an error's message what may be wrong with the base URL or with a proxy.

    Args:
        error: what the answer was mapped to.
        headers: the answer's, case-insensitive.
        base_url: where the request went.
    """
    if isinstance(error, APIStatusError):
        if error.status_code in _NO_SUCH_PATH and not _is_of_api(error):
            _extend(error, f"{_doubt(base_url)} Such addresses usually end with /v1")
    elif isinstance(error, ResponseDecodeError):
        encoding = headers.get("content-encoding", "").strip().lower()
        if encoding not in _DECODED:
            _extend(error, f"the answer is encoded as {encoding[:40]!r}, which was not asked for")
            error.retryable = False
        elif error.body.lstrip()[:1] == b"<":
            _extend(error, f"the answer is a web page. {_doubt(base_url)}")


def _doubt(base_url: str) -> str:
    return f"Is {base_url} the address (base_url) of an OpenAI-compatible API?"


def _is_of_api(error: APIStatusError) -> bool:
    """Whether an error has the shape of an API's own, not that of a web server before it."""
    if error.code is not None or error.type is not None:
        return True
    body = error.body
    return isinstance(body, dict) and bool(body) and body != {"detail": "Not Found"}


def _extend(error: APIError, hint: str) -> None:
    error.message = f"{error.message}. {hint}"
    error.args = (error.message, *error.args[1:])
