r"""Rewrites Python's regular expressions for the grammars of servers; pure.

llama.cpp, and with it Ollama and LM Studio, makes a grammar of a pattern. It has to begin with
``^`` and end with ``$``, and knows no ``\d``, ``\w``, ``\s``: it refused the whole request for
such a pattern, and newer versions leave it out without a word (``_visit_pattern`` in
https://github.com/ggml-org/llama.cpp/blob/master/common/json-schema-to-grammar.cpp).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, Final

__all__ = ["portable_pattern"]

# The tree that re itself compiles: a parser of our own would have to know as much. It has no
# public name; whatever it does that is not known here makes a pattern one without such a form.
_parser: Final[Any] = re._parser  # type: ignore[attr-defined]  # noqa: SLF001 - typeshed has it not

# What \d, \w and \s stand for in ASCII; servers' grammars know no other digits and letters.
_CLASSES: Final = {
    "CATEGORY_DIGIT": "0-9",
    "CATEGORY_WORD": "A-Za-z0-9_",
    "CATEGORY_SPACE": " \\t\\n\\r",
}
_NOT: Final = "CATEGORY_NOT_"
_SPECIAL: Final = frozenset("\\^$.|?*+()[]{}/")
_SPECIAL_IN_CLASS: Final = frozenset("\\]^-[")
_ESCAPES: Final = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
_MANY: Final = int(_parser.MAXREPEAT)
# llama.cpp unrolls repetitions, and refuses grammars that get too long by that.
_MOST: Final = 1000


class _NoFormError(Exception):
    """The pattern uses something that only Python's regular expressions have."""


def portable_pattern(pattern: str) -> str | None:
    r"""Return a pattern with the same meaning that is anchored and spells its classes out.

    It may match less than ``re.search`` with the pattern does, never more: ``.*`` for what is not
    anchored stops at the end of a line, and ``\d`` means ASCII.

    Args:
        pattern: as Python has it.

    Returns:
        The pattern; None where it has no such form (flags, look-arounds, references, ``\b``).
    """
    try:
        tree = _parser.parse(pattern)
        if tree.state.flags & ~re.UNICODE:
            return None
        branches = _branches(list(tree))
        texts = [_anchored(branch) for branch in branches]
    except (_NoFormError, re.error, AttributeError, TypeError, ValueError, RecursionError):
        return None
    return f"^{texts[0]}$" if len(texts) == 1 else f"^({'|'.join(texts)})$"


def _branches(items: list[Any]) -> list[list[Any]]:
    """Return the alternatives of a whole pattern: each may be anchored for itself."""
    if len(items) == 1 and _name(items[0]) == "BRANCH":
        return [list(branch) for branch in items[0][1][1]]
    return [items]


def _anchored(items: list[Any]) -> str:
    start = bool(items) and _is_at(items[0], "AT_BEGINNING", "AT_BEGINNING_STRING")
    items = items[1:] if start else items
    end = bool(items) and _is_at(items[-1], "AT_END", "AT_END_STRING")
    items = items[:-1] if end else items
    return f"{'' if start else '.*'}{_sequence(items)}{'' if end else '.*'}"


def _is_at(item: Any, *names: str) -> bool:
    return _name(item) == "AT" and str(item[1]) in names


def _name(item: Any) -> str:
    return str(item[0])


def _sequence(items: Iterable[Any]) -> str:
    return "".join(_written(item) for item in items)


def _written(item: Any) -> str:
    write = _WRITERS.get(_name(item))
    if write is None:
        raise _NoFormError
    return write(item[1])


def _literal(code: int) -> str:
    sign = chr(code)
    if sign in _ESCAPES:
        return _ESCAPES[sign]
    if not sign.isprintable():
        raise _NoFormError
    return f"\\{sign}" if sign in _SPECIAL else sign


def _in(members: Any) -> str:
    parts = []
    negated = False
    for name, value in members:
        match str(name):
            case "NEGATE":
                negated = True
            case "LITERAL":
                parts.append(_in_class(value))
            case "RANGE":
                parts.append(f"{_in_class(value[0])}-{_in_class(value[1])}")
            case _:  # a category; of anything else there is no such name
                parts.append(_category(str(value), alone=len(members) == 1))
    if len(parts) == 1 and parts[0].startswith("^"):  # a negated category that stands alone
        return f"[{parts[0][1:]}]" if negated else f"[{parts[0]}]"
    return f"[{'^' if negated else ''}{''.join(parts)}]"


def _category(name: str, *, alone: bool) -> str:
    if name in _CLASSES:
        return _CLASSES[name]
    positive = name.replace(_NOT, "CATEGORY_")
    if not alone or positive not in _CLASSES:  # what is in no class cannot stand beside others
        raise _NoFormError
    return f"^{_CLASSES[positive]}"


def _in_class(code: int) -> str:
    sign = chr(code)
    if sign in _ESCAPES:
        return _ESCAPES[sign]
    if not sign.isprintable():
        raise _NoFormError
    return f"\\{sign}" if sign in _SPECIAL_IN_CLASS else sign


def _repeated(value: Any) -> str:
    low, high, items = value
    text = _sequence(items)
    # One sign, escape or class stands for itself; all else is one only in brackets.
    single = len(items) == 1 and _name(items[0]) in {
        "LITERAL",
        "NOT_LITERAL",
        "ANY",
        "IN",
        "SUBPATTERN",
    }
    text = text if single else f"({text})"
    if max(low, 0 if high == _MANY else high) > _MOST:
        raise _NoFormError
    signs = {(0, _MANY): "*", (1, _MANY): "+", (0, 1): "?"}
    if (low, high) in signs:
        return text + signs[low, high]
    if low == high:
        return f"{text}{{{low}}}"
    return f"{text}{{{low},{'' if high == _MANY else high}}}"


def _group(value: Any) -> str:
    _, added, removed, items = value
    if added or removed:  # flags of its own
        raise _NoFormError
    items = list(items)
    text = _sequence(items)
    return text if len(items) == 1 and _name(items[0]) == "BRANCH" else f"({text})"


def _branch(value: Any) -> str:
    return f"({'|'.join(_sequence(branch) for branch in value[1])})"


def _not_literal(code: int) -> str:
    return f"[^{_in_class(code)}]"


def _any(_: Any) -> str:
    return "."


# Lazy repetitions match the same texts as greedy ones.
_WRITERS: Final[dict[str, Callable[[Any], str]]] = {
    "LITERAL": _literal,
    "NOT_LITERAL": _not_literal,
    "ANY": _any,
    "IN": _in,
    "MAX_REPEAT": _repeated,
    "MIN_REPEAT": _repeated,
    "SUBPATTERN": _group,
    "BRANCH": _branch,
}
