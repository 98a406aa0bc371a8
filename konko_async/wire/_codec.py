"""Decodes answers, one codec per type; every failure is an exception of this package."""

from __future__ import annotations

import functools
from typing import Any, Generic, TypeVar

import msgspec

from konko_async.errors import ResponseDecodeError
from konko_async.wire import _lenient
from konko_async.wire._elsewhere import with_usage
from konko_async.wire._json import BODY_SHOWN, decode_json, encode, is_finite
from konko_async.wire._probe import prober, probers

__all__ = ["Codec", "codec_of", "decode_json", "encode", "is_finite"]

T = TypeVar("T")
# The second is what msgspec before 0.23 raises at the name of a field.
_REFUSED = (msgspec.DecodeError, UnicodeDecodeError)


class Codec(Generic[T]):
    """Reads one type of answer: strictly in one C call, forgivingly if that fails.

    Attributes:
        kind: the struct that is returned.
        strict: the C decoder; raises msgspec's errors.
    """

    __slots__ = ("_probe", "_probe_all", "_probes", "kind", "strict")

    def __init__(self, kind: type[T]) -> None:
        self.kind = kind
        self.strict = msgspec.json.Decoder(kind).decode
        self._probe = prober(kind)
        # Else the probe looks at nothing.
        self._probes = bool(getattr(kind, "keeps_unknown", False))
        self._probe_all = probers(kind)

    def decode(self, body: bytes | str) -> T:
        """Return ``body`` as the struct, its ``.raw`` set.

        Raises:
            ResponseDecodeError: not JSON, or JSON with no sensible reading as this type.
        """
        return self.read(body)[0]

    def read(self, body: bytes | str) -> tuple[T, bool]:
        """Do what :meth:`decode` does, and say whether ``body`` has known fields only.

        Raises:
            ResponseDecodeError: as :meth:`decode`.
        """
        try:
            # The second look is a C call that keeps nothing; the long way is for when it fails.
            value = self.strict(body)
            self._probe(body)
            plain = self._probes
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            value, plain = self._forgiving(body), False
        # Kept as received, and decoded only when .raw is read: most callers never look.
        value._raw = body  # type: ignore[attr-defined]  # noqa: SLF001 - the slot of Wire
        return value, plain

    def count_plain(self, bodies: list[bytes], count: int) -> int:
        """Return how many of the first ``count``, in a row, have no unknown fields.

        Args:
            bodies: JSON as bytes.
            count: of those that ``strict`` has read.
        """
        probe = self._probe
        try:
            if count == 1:
                probe(bodies[0])
                return 1
            # Joined to one array: one call into C instead of one per chunk.
            read = bodies if count == len(bodies) else bodies[:count]
            self._probe_all(b"[%b]" % b",".join(read))
        except _REFUSED:
            # One of them has unknown fields, or the array was refused for another reason: find out
            # which.
            for place in range(count):
                try:
                    probe(bodies[place])
                except _REFUSED:
                    return place
        return count

    def _forgiving(self, body: bytes | str) -> T:
        decoded: Any = decode_json(body)
        try:
            value = _lenient.convert(decoded, self.kind)
        except (ValueError, OverflowError) as error:
            problem = str(error)
        else:
            with_usage(value)
            return value
        data = body.encode("utf-8", "replace") if isinstance(body, str) else body
        raise ResponseDecodeError(
            f"the server's answer is no {self.kind.__name__}: {problem[:200]}",
            body=data[:BODY_SHOWN],
        )


@functools.cache
def codec_of(kind: type[T]) -> Codec[T]:
    """Return the codec of a type: made when it is used first, as that takes milliseconds."""
    return Codec(kind)
