"""The way to the server: its name, a connection, its certificate."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
import time
from collections.abc import AsyncIterator
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

from konko_async.cli._number_format import duration
from konko_async.cli.doctor.finding import Finding, failed, fine, skipped, warned

__all__ = ["check_network"]

_PATIENCE: Final = 5.0  # seconds for a step
_MOST: Final = 4  # addresses that are tried
_SOON: Final = 14.0  # days: when a certificate ends soon
_DAY: Final = 86400.0
_PORTS: Final = {"https": 443, "http": 80}
_CLOCK: Final = (
    "look whether this machine's clock is right; else the server's owner has to renew it"
)
_AUTHORITY: Final = (
    "an inspecting proxy or an authority of your own? Point SSL_CERT_FILE at its certificate (PEM)"
)
# X509_V_ERR_* of OpenSSL.
_CAUSES: Final[dict[int, tuple[str, str]]] = {
    9: ("the certificate is not valid yet", _CLOCK),
    10: ("the certificate has expired", _CLOCK),
    18: ("the certificate is self-signed", _AUTHORITY),
    19: ("the certificate is signed by an authority that this machine does not know", _AUTHORITY),
    20: ("the certificate is signed by an authority that this machine does not know", _AUTHORITY),
    21: ("the server does not send its whole chain of certificates", "its owner has to mend that"),
    62: ("the certificate is for another name", "look at the host's name in the base URL"),
    64: ("the certificate is for another address", "use the host's name in the base URL"),
}


async def check_network(base_url: str) -> AsyncIterator[Finding]:
    """Look at each step; after a failure, the rest is skipped."""
    url = urlsplit(base_url)
    host = url.hostname or ""
    port = url.port or _PORTS[url.scheme]
    found, addresses = await _resolve(host, port)
    yield found
    if not addresses:
        yield skipped("tcp", "the host's name is not known")
        yield skipped("tls", "the host's name is not known")
        return
    found, address = await _connect(host, port, addresses)
    yield found
    if url.scheme == "http":
        yield skipped("tls", "the base URL is plain http")
    elif address is None:
        yield skipped("tls", "there is no connection")
    else:
        yield await _shake(url, address, port)


async def _resolve(host: str, port: int) -> tuple[Finding, list[str]]:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        pass
    else:
        return fine("dns", f"{host} is an address already", addresses=[host]), [host]
    began = time.perf_counter()
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(_PATIENCE):
            infos = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        why = "no answer of the name server" if isinstance(error, TimeoutError) else str(error)
        return failed(
            "dns",
            f"the name {host} cannot be resolved: {why}",
            "look at the spelling of the base URL; is a VPN or an entry in /etc/hosts needed?",
            host=host,
        ), []
    addresses = list(dict.fromkeys(str(info[4][0]) for info in infos))
    seconds = time.perf_counter() - began
    text = f"{host} is {', '.join(addresses[:_MOST])} ({duration(seconds)})"
    return fine("dns", text, addresses=addresses, seconds=seconds), addresses


async def _connect(host: str, port: int, addresses: list[str]) -> tuple[Finding, str | None]:
    reasons: dict[str, str] = {}
    for address in addresses[:_MOST]:
        began = time.perf_counter()
        try:
            async with asyncio.timeout(_PATIENCE):
                _, writer = await asyncio.open_connection(address, port)
        except OSError as error:
            reasons[address] = _reason(error)
            continue
        seconds = time.perf_counter() - began
        await _closed(writer)
        text = f"{address} port {port} answers ({duration(seconds)})"
        details: dict[str, Any] = {"address": address, "port": port, "seconds": seconds}
        if reasons:
            others = ", ".join(f"{other}: {why}" for other, why in reasons.items())
            advice = "connections begin with the others and lose time; is IPv6 half set up?"
            return warned("tcp", f"{text}, but {others}", advice, **details), address
        return fine("tcp", text, **details), address
    said = "; ".join(f"{address} port {port}: {why}" for address, why in reasons.items())
    advice = "does the server run, and listen on this port? Look at the base URL and the firewall"
    if any("refused" not in why for why in reasons.values()):
        advice = "look at firewall, VPN and proxies: the outside may be reached by a proxy only"
    return failed("tcp", f"cannot connect to {host}: {said}", advice, reasons=reasons), None


def _reason(error: OSError) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {_PATIENCE:.0f} s"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    return error.strerror or type(error).__name__


async def _closed(writer: asyncio.StreamWriter) -> None:
    writer.close()
    try:
        async with asyncio.timeout(_PATIENCE):
            await writer.wait_closed()
    except OSError:  # whatever the other side does now is no finding
        writer.transport.abort()


async def _shake(url: SplitResult, address: str, port: int) -> Finding:
    host = url.hostname or ""
    began = time.perf_counter()
    try:
        async with asyncio.timeout(_PATIENCE):
            _, writer = await asyncio.open_connection(
                address, port, ssl=ssl.create_default_context(), server_hostname=host
            )
    except ssl.SSLCertVerificationError as error:
        cause, advice = _CAUSES.get(error.verify_code, (error.verify_message, _AUTHORITY))
        details = {"code": error.verify_code, "message": error.verify_message}
        return failed("tls", f"{cause} ({error.verify_message})", advice, **details)
    except ssl.SSLError as error:
        return failed("tls", *_handshake(error))
    except OSError as error:
        found = f"the handshake failed: {_reason(error)}"
        return failed("tls", found, "a firewall or proxy between may cut TLS; ask who runs it")
    seconds = time.perf_counter() - began
    certificate = writer.get_extra_info("peercert") or {}
    protocol = writer.get_extra_info("ssl_object").version()
    await _closed(writer)
    return _certificate(certificate, protocol, seconds)


def _handshake(error: ssl.SSLError) -> tuple[str, str]:
    reason = error.reason or str(error)
    if reason in {"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG"}:
        return (
            f"this port does not speak TLS ({reason})",
            "for a server on this machine or in your network, use http:// in the base URL",
        )
    return f"the handshake failed ({reason})", "the server's TLS may be too old, or cut by a proxy"


def _certificate(certificate: dict[str, Any], protocol: str, seconds: float) -> Finding:
    issuer = dict(pair[0] for pair in certificate.get("issuer", ()))
    name = issuer.get("organizationName") or issuer.get("commonName") or "unknown"
    ends = certificate.get("notAfter")
    days = (ssl.cert_time_to_seconds(ends) - time.time()) / _DAY if ends else None
    details = {"protocol": protocol, "issuer": name, "days_left": days, "seconds": seconds}
    text = f"{protocol}, certificate of {name}"
    if days is None:
        return fine("tls", text, **details)
    text += f", valid for {days:.0f} more days ({duration(seconds)})"
    if days < _SOON:
        return warned("tls", text, "it ends soon: remind the server's owner", **details)
    return fine("tls", text, **details)
