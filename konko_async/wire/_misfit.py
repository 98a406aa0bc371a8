"""Reading JSON as a type: what does not fit, and where it stands."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any, cast

import msgspec

from konko_async.errors import ResponseDecodeError
from konko_async.wire._json import decode_json

__all__ = ["MisfitError", "decoder_of", "read_as"]

_SHOWN = 200
_AT = re.compile(r"^(.*?)(?: - at (?:`key` in )?`(\$.*)`)?$", re.DOTALL)
_STEP = re.compile(r"\.([^.\[\]]+)|\[(\d+|\.\.\.)\]")


class MisfitError(ValueError):
    """JSON that does not fit a type, or is none.

    Attributes:
        problem: what is wrong, in msgspec's words; at most 200 characters.
        path: where, such as ``$.items[2].price``; None if it is no JSON at all.
    """

    def __init__(self, problem: str, path: str | None) -> None:
        super().__init__(problem if path in {None, "$"} else f"{problem} at {path}")
        self.problem = problem
        self.path = path


_made = functools.lru_cache(256)(lambda kind: msgspec.json.Decoder(kind).decode)


def decoder_of(kind: Any) -> Callable[[str], Any]:
    """Return msgspec's decoder of a type; made once per type.

    Raises:
        TypeError: msgspec does not know the type.
    """
    try:
        decode: Callable[[str], Any] = _made(kind)
    except TypeError:  # cannot be hashed, as an Annotated with a list in it
        decode = msgspec.json.Decoder(kind).decode
    return decode


def read_as(text: str, kind: Any, decode: Callable[[str], Any]) -> Any:
    """Return JSON text as a type.

    What models and servers get wrong without losing the meaning is put up with, as in
    :func:`~konko_async.wire._json.decode_json`.

    Args:
        text: the JSON.
        kind: the type.
        decode: msgspec's decoder of that type.

    Raises:
        MisfitError: it does not fit, or is no JSON.
    """
    try:
        return decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        pass
    try:
        plain = decode_json(text)
    except ResponseDecodeError as error:
        problem = error.message.removeprefix("the server's JSON cannot be read: ")
    else:
        try:
            return msgspec.convert(plain, kind, str_keys=True)
        except (msgspec.ValidationError, RecursionError) as error:
            failure = _misfit(plain, kind, str(error))
        raise failure
    raise MisfitError(f"it is no JSON: {problem}", None)


def _misfit(plain: Any, kind: Any, words: str) -> MisfitError:
    match = cast("re.Match[str]", _AT.match(words))
    path = match[2] or "$"
    if "[...]" in path:
        path = _located(plain, kind, words, path) or path
    return MisfitError(match[1][:_SHOWN], path[:_SHOWN])


def _fails_alike(plain: Any, kind: Any, words: str) -> bool:
    try:
        msgspec.convert(plain, kind, str_keys=True)
    except msgspec.ValidationError as error:
        return str(error) == words
    return False


def _located(plain: Any, kind: Any, words: str, path: str) -> str | None:
    """Put the keys into a path that msgspec gives as ``$[...]``, by taking entries away.

    The first entry that does not fit is the one that was complained about, so the complaint stays
    the same from the moment that it is among those that are left.
    """
    found, place = "$", plain
    for step in _STEP.finditer(path):
        name, index = step[1], step[2]
        if index == "...":
            if not isinstance(place, dict):
                return None
            name = _first_misfit(place, plain, kind, words)
            found += f"[{name!r:.60}]"
        else:
            found += step[0]
        try:
            place = place[name if name is not None else int(index)]
        except (KeyError, IndexError, TypeError):
            return None
    return found


def _first_misfit(place: dict[str, Any], plain: Any, kind: Any, words: str) -> str:
    """Return the first key of ``place`` that does not fit; only it and those before it stay."""
    entries = list(place.items())
    low, high = 0, len(entries)  # alike with `high` of them, not with `low`
    while high - low > 1:
        middle = (low + high) // 2
        place.clear()
        place.update(entries[:middle])
        if _fails_alike(plain, kind, words):
            high = middle
        else:
            low = middle
    place.clear()
    place.update(entries[:high])
    return entries[high - 1][0]
