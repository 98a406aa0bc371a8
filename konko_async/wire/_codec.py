"""One decoder per type of answer; every failure is one of ours."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

import msgspec

from konko_async.errors import ResponseDecodeError
from konko_async.wire import _lenient
from konko_async.wire._json import BODY_SHOWN, decode_json, encode, is_finite

__all__ = ["Codec", "decode_json", "encode", "is_finite"]

T = TypeVar("T")


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
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            value = self._forgiving(body)
        value._raw = body  # type: ignore[attr-defined]  # noqa: SLF001 - the slot of Wire
        return value

    def _forgiving(self, body: bytes | str) -> T:
        decoded: Any = decode_json(body)
        try:
            return _lenient.convert(decoded, self.kind)
        except (ValueError, OverflowError) as error:
            problem = str(error)
        data = body.encode("utf-8", "replace") if isinstance(body, str) else body
        raise ResponseDecodeError(
            f"the server's answer is no {self.kind.__name__}: {problem[:200]}",
            body=data[:BODY_SHOWN],
        )
