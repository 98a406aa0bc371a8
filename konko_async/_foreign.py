"""What aiohttp raises, turned into ours; never chained: its ``repr`` shows the headers."""

from __future__ import annotations

import ssl
import zlib

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError

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


def translate(  # noqa: PLR0911 - a table, read from top to bottom
    error: BaseException, host: str, *, sent: bool = True
) -> KonkoError:
    """Return our error for one of aiohttp's; the caller raises it outside the ``except`` block.

    Args:
        error: one of :data:`FOREIGN`.
        host: named in the message.
        sent: whether the request may have reached the server.
    """
    if isinstance(error, KonkoError):
        return error
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return APITimeoutError(
            f"no connection to {host} within the connect timeout",
            phase="connect",
            request_sent=False,
        )
    if isinstance(error, (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError)):
        return ConfigurationError(f"the address of {host} cannot be used: {type(error).__name__}")
    if isinstance(error, (aiohttp.ClientSSLError, ssl.SSLCertVerificationError)):
        return APIConnectionError(
            f"TLS with {host} failed: {_tls_cause(error)}", request_sent=False, retryable=False
        )
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return APIConnectionError(
            f"the name of {host} cannot be resolved: {_reason(error)}", request_sent=False
        )
    if isinstance(error, aiohttp.ClientConnectorError):
        return APIConnectionError(f"cannot connect to {host}: {_reason(error)}", request_sent=False)
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return APIConnectionError(f"{host} closed the connection without an answer")
    if isinstance(error, (aiohttp.ClientResponseError, HttpProcessingError)):
        return APIConnectionError(f"{host} broke the HTTP protocol ({type(error).__name__})")
    if isinstance(error, aiohttp.ClientPayloadError):
        return APIConnectionError(f"the answer of {host} broke off (incomplete payload)")
    return APIConnectionError(
        f"the connection to {host} failed: {_reason(error)}", request_sent=sent
    )


def _reason(error: BaseException) -> str:
    number = getattr(error, "os_error", error)
    text = getattr(number, "strerror", None) or type(error).__name__
    return str(text)[:200]


def _tls_cause(error: BaseException) -> str:
    inner = getattr(error, "certificate_error", None) or getattr(error, "os_error", None) or error
    return str(getattr(inner, "verify_message", "") or inner)[:200]
