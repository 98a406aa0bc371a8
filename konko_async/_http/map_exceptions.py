"""Maps what aiohttp raises to our exceptions; never chained: its ``repr`` shows the headers."""

from __future__ import annotations

import os
import re
import ssl
import zlib

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError

from konko_async._http.aiohttp_internals import MAX_FIELD_SIZE, MAX_FIELDS
from konko_async.errors import APIConnectionError, APITimeoutError, ConfigurationError, KonkoError

__all__ = ["FOREIGN", "translate"]

FOREIGN = (
    aiohttp.ClientError,
    HttpProcessingError,
    OSError,
    zlib.error,
    ValueError,
    EOFError,
    RuntimeError,  # "Connection closed.", from a read that comes too late
    AssertionError,  # of its parser, when a server breaks the rules in an unforeseen way
)
"""What aiohttp is known to raise while it connects, sends and reads."""


_NOT_CONNECTED = (
    aiohttp.ClientConnectorError,
    aiohttp.ConnectionTimeoutError,
    ssl.SSLCertVerificationError,
)


def translate(  # noqa: PLR0911 - a table, read from top to bottom
    error: BaseException, host: str
) -> KonkoError:
    """Return our error for one of aiohttp's; the caller raises it outside the ``except`` block.

    Args:
        error: one of :data:`FOREIGN`.
        host: the server's name (and port), for the message.
    """
    if isinstance(error, KonkoError):
        return error
    if isinstance(error, (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError)):
        return ConfigurationError(f"the address of {host} cannot be used: {type(error).__name__}")
    if isinstance(error, _NOT_CONNECTED):
        return _not_connected(error, host)
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return APIConnectionError(f"{host} closed the connection without an answer")
    if isinstance(error, (aiohttp.ClientResponseError, HttpProcessingError)):
        problem, retryable = _violation(str(error.message))
        return APIConnectionError(f"{host} broke the HTTP protocol: {problem}", retryable=retryable)
    if isinstance(error, aiohttp.ClientPayloadError):
        return APIConnectionError(f"the answer of {host} broke off (incomplete payload)")
    return APIConnectionError(f"the connection to {host} failed: {_reason(error)}")


def _not_connected(error: BaseException, host: str) -> APIConnectionError:
    """Return the error of a connection that was not made; nothing was sent over it."""
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return APITimeoutError(
            f"no connection to {host} within the connect timeout; is it the right address, and "
            "does a firewall or a proxy stand between? (Timeout(connect=...) allows more time)",
            phase="connect",
            request_sent=False,
        )
    if isinstance(error, (aiohttp.ClientSSLError, ssl.SSLCertVerificationError)):
        return APIConnectionError(
            f"TLS with {host} failed: {_tls_cause(error)}", request_sent=False, retryable=False
        )
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return APIConnectionError(
            f"the name of {host} cannot be resolved: {_reason(error)}; check the host of base_url "
            "and the network",
            request_sent=False,
        )
    return APIConnectionError(
        f"cannot connect to {host}: {_reason(error)}; is a server running there, and is base_url "
        "right?",
        request_sent=False,
    )


# What aiohttp's parsers say, in C and in Python, and what it means. The second says whether the
# same answer may come out right another time. Their own words quote the answer, which may hold
# anything, and are not shown.
_VIOLATIONS: tuple[tuple[str, str, bool], ...] = (
    (
        r"got more than \d+ bytes",
        f"the head of its answer has a line longer than {MAX_FIELD_SIZE} bytes",
        False,
    ),
    (r"too many headers", f"its answer has more than {MAX_FIELDS} headers", False),
    (
        r"transfer-encoding.*content-length|content-length.*transfer-encoding",
        (
            "its answer has both Content-Length and Transfer-Encoding, which contradict each "
            "other (RFC 9112, 6.3); a proxy on the way may have added one of them"
        ),
        False,
    ),
    (r"duplicate.*content-length", "its answer has several Content-Length headers", False),
    (r"content-length", "the Content-Length of its answer is no number", True),
    (
        r"can not decode content-encoding: (?!gzip|deflate)",
        "its answer is compressed in a way that was not asked for (Accept-Encoding)",
        False,
    ),
    (r"chunk", "a chunk of its answer has no valid size", True),
    (
        r"bad status line|expected (?:http/|dot)|http version|https traffic|bad http method",
        (
            "what it sent does not begin as an HTTP/1.1 answer; is this the right port, and "
            "should base_url begin with https:// (or http://)?"
        ),
        True,
    ),
    (r"header", "a header of its answer is malformed", True),
)


def _violation(message: str) -> tuple[str, bool]:
    """Return what is wrong with an answer, and whether a repetition may help."""
    for pattern, problem, retryable in _VIOLATIONS:
        if re.search(pattern, message, re.IGNORECASE | re.DOTALL):
            return problem, retryable
    return "its answer is malformed", True


def _reason(error: BaseException) -> str:
    """Return the operating system's word for an error, else what kind of error it is."""
    cause = getattr(error, "os_error", None) or error
    number = getattr(cause, "errno", None)
    if isinstance(number, int) and number > 0:
        # asyncio's own text is "Connect call failed ('127.0.0.1', 80)", which does not say why.
        return os.strerror(number)
    return str(getattr(cause, "strerror", None) or type(error).__name__)[:200]


def _tls_cause(error: BaseException) -> str:
    inner = getattr(error, "certificate_error", None) or getattr(error, "os_error", None) or error
    return str(getattr(inner, "verify_message", "") or inner)[:200]
