"""One encoder, and one decoder per type; every failure is one of ours."""

from __future__ import annotations

import re
from typing import Any, Generic, TypeVar

import msgspec

from konko_async.errors import ConfigurationError, ResponseDecodeError
from konko_async.wire import _lenient

__all__ = ["Codec", "decode_json", "encode", "is_finite"]

T = TypeVar("T")

_BODY_SHOWN = 4096
_encode = msgspec.json.Encoder(decimal_format="number").encode
_decode_any = msgspec.json.Decoder().decode
_OFFSET = re.compile(r"\(byte (\d+)\)")


def encode(params: Any) -> bytes:
    """Return ``params`` as JSON.

    Raises:
        ConfigurationError: it holds something that JSON cannot carry.
    """
    try:
        return _encode(params)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        problem = f"{type(error).__name__}: {error}"
    raise ConfigurationError(f"the request cannot be written as JSON ({problem[:200]})")


def is_finite(value: Any) -> bool:
    """Whether ``value`` holds no NaN or infinity at any depth; JSON has neither."""
    if isinstance(value, float):
        return value - value == 0
    if isinstance(value, dict):
        return all(map(is_finite, value.values()))
    if isinstance(value, (list, tuple)):
        return all(map(is_finite, value))
    return True


def decode_json(body: bytes | str) -> Any:
    """Return the decoded JSON of ``body``.

    Invalid UTF-8 becomes U+FFFD: losing a byte's meaning is better than losing the answer.

    Raises:
        ResponseDecodeError: malformed; tells the offset, never the payload.
    """
    try:
        return _decode_any(body)
    except UnicodeDecodeError:
        pass
    except (msgspec.DecodeError, RecursionError) as error:
        problem = _failure(body, error)
        if "utf-8" not in str(error).lower():
            raise problem from None
    assert isinstance(body, bytes)  # noqa: S101 - a str cannot hold invalid UTF-8
    return decode_json(body.decode("utf-8", "replace"))


def _failure(body: bytes | str, error: Exception) -> ResponseDecodeError:
    data = body.encode("utf-8", "replace") if isinstance(body, str) else body
    truncated = "truncated" in str(error)
    match = _OFFSET.search(str(error))
    offset = len(data) if truncated else int(match[1]) if match else None
    where = f" at byte {offset}" if offset is not None else ""
    what = "it ends too early" if truncated else "malformed"
    if isinstance(error, RecursionError):
        what = "nested too deeply"
    return ResponseDecodeError(
        f"the server's JSON cannot be read: {what}{where}",
        body=data[:_BODY_SHOWN],
        offset=offset,
        retryable=truncated,
    )


class Codec(Generic[T]):
    """Reads one type of answer: strictly in one C call, forgivingly if that fails.

    Attributes:
        kind: the struct that is returned.
        strict: the C decoder; raises msgspec's errors.
    """

    __slots__ = ("kind", "strict")

    def __init__(self, kind: type[T]) -> None:
        self.kind = kind
        self.strict = msgspec.json.Decoder(kind).decode

    def decode(self, body: bytes | str) -> T:
        """Return ``body`` as the struct, its ``.raw`` set.

        Raises:
            ResponseDecodeError: not JSON, or JSON with no sensible reading as this type.
        """
        try:
            value = self.strict(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            value = self._forgiving(body)
        value._raw = body  # type: ignore[attr-defined]  # noqa: SLF001 - the slot of Wire
        return value

    def _forgiving(self, body: bytes | str) -> T:
        decoded = decode_json(body)
        try:
            return _lenient.convert(decoded, self.kind)
        except ValueError as error:
            problem = str(error)
        data = body.encode("utf-8", "replace") if isinstance(body, str) else body
        raise ResponseDecodeError(
            f"the server's answer is no {self.kind.__name__}: {problem[:200]}",
            body=data[:_BODY_SHOWN],
        )
