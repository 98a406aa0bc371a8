"""Encodes and decodes JSON; every failure is an exception of this package."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, Final

import msgspec

from konko_async.errors import ConfigurationError, ResponseDecodeError

__all__ = ["BODY_SHOWN", "decode_json", "encode", "is_finite"]

BODY_SHOWN = 4096
"""Bytes of a body that an error carries."""

_decode_any = msgspec.json.Decoder().decode
_FINITE = frozenset({str, int, bool, type(None)})
# Not compiled here, as few programs need it: re keeps what it has compiled.
_OFFSET = r"\(byte (\d+)\)"
# Escapes in JSON text: a whole surrogate pair, half of one, or anything else.
_ESCAPE = (
    r"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    r"|(?P<half>u[dD][89a-fA-F][0-9a-fA-F]{2})|(?s:.))"
)


def plain_object(value: Any) -> dict[str, Any] | None:
    """Return a pydantic model (openai's results are some) as a dict; None: it is something else.

    Known by its method, as pydantic is no dependency. What is None is left out: nobody set it.
    """
    dump = getattr(type(value), "model_dump", None)
    if dump is None or isinstance(value, (type, msgspec.Struct)):
        return None
    found = dump(value, mode="json", exclude_none=True)
    return found if isinstance(found, dict) else None


def _plain(value: Any) -> Any:
    """Return what the encoder takes for a subclass that it does not: it looks at exact types."""
    if isinstance(value, str):
        return str.__str__(value)  # the text itself, whatever the subclass shows
    if isinstance(value, int):
        return int.__add__(value, 0)
    if isinstance(value, float):
        return float.__add__(value, 0.0)
    if isinstance(value, Mapping):
        return dict(value)
    plain = plain_object(value)
    if plain is not None:
        return plain
    raise TypeError(f"a value of type {type(value).__name__} has no form in JSON")


_encode_number = msgspec.json.Encoder(decimal_format="number", enc_hook=_plain).encode


def _encode_checked(value: Any) -> bytes:
    """Encode with a msgspec before 0.23, which writes NaN and infinities of a Decimal as such."""
    content = _encode_number(value)
    if b"NaN" in content or b"Infinity" in content:
        try:
            msgspec.json.decode(content, type=msgspec.Raw)  # passes where a text says so
        except msgspec.DecodeError:
            raise ValueError("a Decimal is NaN or an infinity") from None
    return content


def _encoder() -> Callable[[Any], bytes]:
    try:
        _encode_number(Decimal("NaN"))
    except ValueError:
        return _encode_number
    return _encode_checked


_encode: Final = _encoder()


def encode(params: Any) -> bytes:
    """Return ``params`` as JSON; lone surrogates, which UTF-8 cannot carry, become U+FFFD.

    Raises:
        ConfigurationError: it holds something that JSON cannot carry.
    """
    try:
        try:
            return _encode(params)
        except UnicodeEncodeError:
            # A file name that is not UTF-8, or text cut inside an emoji: common in prompts and in
            # what tools return, and no reason to fail a call.
            plain = msgspec.to_builtins(params, builtin_types=(Decimal,), enc_hook=_plain)
            return _encode(_without_surrogates(plain))
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        problem = f"{type(error).__name__}: {error}"
    raise ConfigurationError(f"the request cannot be written as JSON ({problem[:200]})")


def _without_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        if value.isascii():
            return value
        # By way of UTF-16, in which the two halves of a pair are one character again.
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if isinstance(value, dict):
        return {_without_surrogates(key): _without_surrogates(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_without_surrogates(item) for item in value]
    return value


def is_finite(value: Any) -> bool:
    """Whether ``value`` holds no NaN or infinity at any depth; JSON has neither."""
    try:
        return _is_finite(value)
    except RecursionError:
        return True  # too deep, or it holds itself: encode() will say so


def _is_finite(value: Any) -> bool:
    # Exact types first: asking whether something is a Mapping is slow, and texts are most of it.
    kind = type(value)
    if kind is dict or kind is list:
        items = value.values() if kind is dict else value
        return all(map(_is_finite, [item for item in items if type(item) not in _FINITE]))
    if isinstance(value, float):
        # False for NaN and both infinities, in one subtraction.
        return value - value == 0
    if isinstance(value, Mapping):
        return all(map(_is_finite, value.values()))
    if isinstance(value, (list, tuple)):
        return all(map(_is_finite, value))
    return not isinstance(value, Decimal) or value.is_finite()


def decode_json(body: bytes | str) -> Any:
    """Return the decoded JSON of ``body``.

    What servers get wrong without losing the meaning is put up with: invalid UTF-8 and halves of
    surrogate pairs (text cut inside of a character) become U+FFFD, a byte order mark is skipped,
    and NaN, infinities, numbers out of range and raw control characters are read as they are meant.

    Raises:
        ResponseDecodeError: malformed; gives the offset, never the payload.
    """
    try:
        return _decode_any(body)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        # Of the strict reading: its offset is that of the body as sent, not of the mended copy.
        problem = _failure(body, error)
    try:
        return json.loads(_mended(body), strict=False)
    except (ValueError, RecursionError):
        pass
    try:
        raise problem
    finally:
        del problem  # this frame would hold it, and its traceback this frame


def _mended(body: bytes | str) -> str:
    data = body.encode("utf-8", "replace") if isinstance(body, str) else body
    text = data.decode("utf-8", "replace").removeprefix("\ufeff")
    return re.sub(_ESCAPE, _mended_escape, text)


def _mended_escape(match: re.Match[str]) -> str:
    return "\ufffd" if match["half"] else match[0]


def _failure(body: bytes | str, error: Exception) -> ResponseDecodeError:
    data = body.encode("utf-8", "replace") if isinstance(body, str) else body
    truncated = "truncated" in str(error)
    match = re.search(_OFFSET, str(error))
    offset = len(data) if truncated else int(match[1]) if match else None
    where = f" at byte {offset}" if offset is not None else ""
    what = "it ends too early" if truncated else "malformed"
    if isinstance(error, RecursionError):
        what = "nested too deeply"
    return ResponseDecodeError(
        f"the server's JSON cannot be read: {what}{where}",
        body=data[:BODY_SHOWN],
        offset=offset,
        retryable=truncated,
    )
