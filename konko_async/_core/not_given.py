"""Arguments that say nothing: None, and the markers of the ``openai`` package."""

from __future__ import annotations

from typing import Any

__all__ = ["drop_not_given", "given_or", "is_marker"]

_MARKERS = frozenset({"NotGiven", "Omit"})
# Types of nearly all arguments: the name of a type that is written in C is made anew each time.
_PLAIN = frozenset({str, int, float, bool, dict, list, tuple, type(None)})


def is_marker(value: object) -> bool:
    """Whether a value is ``openai.NOT_GIVEN`` or ``openai.omit``, by the name of its type.

    ``openai`` need not be installed, and is not imported.
    """
    # By name, as an import of openai would cost every user its time, and not everybody has it.
    kind = type(value)
    return kind.__name__ in _MARKERS and kind.__module__.partition(".")[0] == "openai"


def given_or(value: Any, default: Any) -> Any:
    """Return an argument, or the default where it is None or a marker."""
    return default if value is None or is_marker(value) else value


def drop_not_given(params: dict[str, Any]) -> None:
    """Take the parameters out that are markers; those that are None are not sent anyway."""
    if _PLAIN.issuperset(map(type, params.values())):  # nearly every call has no marker
        return
    for name in [name for name, value in params.items() if type(value) not in _PLAIN]:
        if is_marker(params[name]):
            del params[name]
