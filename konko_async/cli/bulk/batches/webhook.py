"""Reports the end of a run to a URL: its figures, and nothing that a row says."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
import re
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import click

from konko_async._core.loopback import is_loopback
from konko_async.cli._output import note

if TYPE_CHECKING:
    from konko_async.batch import BatchReport

__all__ = ["check_webhook", "payload_of", "send_webhook"]

_SECRET: Final = "KONKO_WEBHOOK_SECRET"  # noqa: S105 - the name of a variable
_TRIES: Final = 3
_SECONDS: Final = 10.0
_SUCCESS: Final = 300
# Codes come from servers, which may put anything into them; words of this form say no prompt.
_CODE = re.compile(r"[a-z][a-z0-9_]{0,39}")
_FIGURES: Final = (
    "rows", "done", "failed", "invalid", "left", "resumed", "finished", "retried", "rate_limited",
    "prompt_tokens", "completion_tokens", "cached_tokens", "reasoning_tokens", "empty", "cut",
    "filtered", "from_cache", "cost", "unpriced", "currency", "elapsed", "rows_per_second",
    "stopped",
)  # fmt: skip


def check_webhook(url: str) -> str:
    """Return a URL that may be called.

    Raises:
        click.BadParameter: it is neither https nor of this machine, or has a user name in it.
    """
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        raise click.BadParameter(f"{url!r:.80} is no URL") from None
    if "@" in parts.netloc:
        raise click.BadParameter(f"a URL with a user name or password; set {_SECRET} instead")
    if parts.scheme == "https" and host:
        return url
    if parts.scheme == "http" and is_loopback(host):
        return url
    raise click.BadParameter("it must be https, or http to this machine (127.0.0.1, localhost)")


def payload_of(report: BatchReport, *, code: int) -> dict[str, Any]:
    """Return what is sent: figures, the name of the output, and codes of errors."""
    errors: dict[str, int] = {}
    for kind, count in report.errors.items():
        name = kind if _CODE.fullmatch(kind) else "other"
        errors[name] = errors.get(name, 0) + count
    return {
        "event": "batch.ended",
        "exit_code": code,
        "output": PurePath(report.output).name,
        **{name: getattr(report, name) for name in _FIGURES},
        "errors": errors,
    }


async def send_webhook(url: str, report: BatchReport, *, code: int) -> None:
    """POST the figures of a run; a failure is noted, and changes nothing else.

    With ``KONKO_WEBHOOK_SECRET`` in the environment the body is signed:
    ``X-Konko-Signature: sha256=`` and the HMAC-SHA256 (RFC 2104) in hexadecimal.
    """
    import aiohttp  # noqa: PLC0415 - most runs have no webhook
    import msgspec  # noqa: PLC0415 - see above

    body = msgspec.json.encode(payload_of(report, code=code))
    headers = {"content-type": "application/json", "user-agent": "konko-async"}
    secret = os.environ.get(_SECRET)
    if secret:
        digest = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
        headers["x-konko-signature"] = f"sha256={digest}"
    problem = ""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_SECONDS)) as session:
        for number in range(_TRIES):
            try:
                # No redirects: they would lead to where check_webhook() did not look.
                async with session.post(
                    url, data=body, headers=headers, allow_redirects=False
                ) as answer:
                    if answer.status < _SUCCESS:
                        return
                    problem = f"HTTP {answer.status}"
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                problem = type(error).__name__
            if number + 1 < _TRIES:
                await asyncio.sleep(2.0**number / 2)
    note(f"--webhook: the run's end could not be reported ({problem})")
