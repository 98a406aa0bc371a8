"""Reads JSON as a type; errors say what does not fit, and where."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any, cast

import msgspec

from konko_async.errors import ResponseDecodeError
from konko_async.wire._json import decode_json
from konko_async.wire._repair import repaired

__all__ = ["MisfitError", "decoder_of", "read_as", "read_plain"]

_SHOWN = 200
# msgspec's messages end with the path, and have no field for it.
# Not compiled here, as few programs need it: re keeps what it has compiled.
_AT = r"(?s:^(.*?)(?: - at (?:`key` in )?`(\$.*)`)?$)"
_STEP = r"\.([^.\[\]]+)|\[(\d+|\.\.\.)\]"


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
    :func:`~konko_async.wire._json.decode_json` and :func:`~konko_async.wire._repair.repaired`.

    Raises:
        MisfitError: it does not fit, is no JSON, or the type's own check refuses it.
    """
    try:
        return decode(text)
    except BaseException as error:  # noqa: BLE001 - a type's own checks may raise anything
        _unless_interrupted(error)
    try:
        plain = decode_json(text)
    except ResponseDecodeError as error:
        problem = error.message.removeprefix("the server's JSON cannot be read: ")
    else:
        return read_plain(plain, kind)
    raise MisfitError(f"it is no JSON: {problem}", None)


def read_plain(plain: Any, kind: Any) -> Any:
    """Return a decoded JSON value as a type; what only one reading can mean is read so.

    Args:
        plain: the value; may be changed if it does not fit.
        kind: the type.

    Raises:
        MisfitError: it does not fit, or the type's own check (``__post_init__``, a constructor)
            raised, whatever it raised.
    """
    attempt = plain
    try:
        # Only after the strict decoder has refused: nearly all answers never come here.
        attempt = repaired(plain, kind)
        return msgspec.convert(attempt, kind, str_keys=True)
    except (msgspec.ValidationError, RecursionError) as error:
        failure = _misfit(attempt, kind, str(error))
    except BaseException as error:  # noqa: BLE001 - a type's own checks may raise anything
        _unless_interrupted(error)
        failure = MisfitError(_shown(error), "$")
    raise failure


def _unless_interrupted(error: BaseException) -> None:
    # Nothing is awaited here, so CancelledError, SystemExit and the like can only be the type's
    # own; Ctrl-C can come at any time.
    if isinstance(error, KeyboardInterrupt):
        raise error


def _shown(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - the text is made by code of others
        text = ""
    name = type(error).__name__
    return (f"{name}: {text}" if text else name)[:_SHOWN]


def _misfit(plain: Any, kind: Any, words: str) -> MisfitError:
    match = cast("re.Match[str]", re.match(_AT, words))
    path = match[2] or "$"
    # msgspec does not name the key of a dict that is at fault; users need it to find the place.
    if "[...]" in path:
        path = _located(plain, kind, words, path) or path
    return MisfitError(match[1][:_SHOWN], path[:_SHOWN])


def _fails_alike(plain: Any, kind: Any, words: str) -> bool:
    try:
        msgspec.convert(plain, kind, str_keys=True)
    except msgspec.ValidationError as error:
        return str(error) == words
    except Exception:  # noqa: BLE001 - another failure: not this one
        return False
    return False


def _located(plain: Any, kind: Any, words: str, path: str) -> str | None:
    """Put the keys into a path that msgspec gives as ``$[...]``, by taking entries away.

    The first entry that does not fit is the one that was complained about, so the complaint stays
    the same from the moment that it is among those that are left.
    """
    found, place = "$", plain
    for step in re.finditer(_STEP, path):
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
    # Halved each time, as each try reads the whole value.
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
