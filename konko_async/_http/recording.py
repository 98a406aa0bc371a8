"""Keeps keys out of the cassettes that vcrpy (pytest-recording) makes of an application's tests.

vcrpy writes the headers down that a call is made with. So the call is made with placeholders, and
the values are put in below it, by a middleware of aiohttp's client.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from multidict import CIMultiDict

from konko_async._core.redaction import CREDENTIALS, REDACTED, secrets_in

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["as_plain_text", "without_keys"]

_BEARER: Final = "Bearer "


def as_plain_text(headers: Mapping[str, str]) -> CIMultiDict[str]:
    """Return the headers as doubles expect them, which compare, copy and write them down."""
    return CIMultiDict((str(name), str(value)) for name, value in headers.items())


def without_keys(headers: Mapping[str, str]) -> tuple[CIMultiDict[str], Any]:
    """Return the headers as they may be written down, and the middleware that puts keys in."""
    shown: CIMultiDict[str] = CIMultiDict()
    hidden: dict[str, str] = {}
    for name, value in headers.items():
        plain = str(value)  # of a class that a file could not be read back with
        if name.lower() in CREDENTIALS or secrets_in({name: plain}):
            hidden[name] = plain
            plain = (_BEARER if plain.startswith(_BEARER) else "") + REDACTED
        shown.add(str(name), plain)

    async def put_in(request: Any, handler: Any) -> Any:
        request.headers.update(hidden)
        return await handler(request)

    return shown, put_in
