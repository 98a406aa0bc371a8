"""Answers to ``for``, ``with`` and ``await`` where their async forms were meant."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

# Each method below is hidden from type checkers: to them such a use has to stay a mistake.

__all__ = ["AsyncContextOnly", "AsyncIterableOnly", "NotAwaitable"]


class AsyncIterableOnly:
    """Refuses ``for``, and says what to write instead."""

    __slots__ = ()

    if not TYPE_CHECKING:
        # Python's own message for a missing __iter__ does not say what to write instead.
        def __iter__(self) -> NoReturn:
            raise TypeError(f"{_name(self)} is read with 'async for', not 'for'")


class AsyncContextOnly:
    """Refuses ``with``, and says what to write instead."""

    __slots__ = ()

    if not TYPE_CHECKING:
        # Both methods are needed: without __exit__, `with` fails before it calls __enter__.
        def __enter__(self) -> NoReturn:
            raise TypeError(f"{_name(self)} is used with 'async with', not 'with'")

        def __exit__(self, *_: object) -> None:
            """Never called: Python only looks whether it is there."""


class NotAwaitable:
    """Refuses ``await``, and says what to write instead.

    Attributes:
        _await_hint: the right way, as code.
    """

    __slots__ = ()

    _await_hint: str

    if not TYPE_CHECKING:

        def __await__(self) -> NoReturn:
            raise TypeError(f"{_name(self)} is not awaited: {self._await_hint}")


def _name(value: object) -> str:
    return type(value).__name__
