"""Shows several answers one below the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import IO

from konko_async.cli._output import clean, is_live
from konko_async.cli.chat.answer import View

__all__ = ["Side", "Turns"]


class Side(View):
    """Shows one of several answers."""

    def end(self, said: Sequence[str] = ()) -> None:
        """Finish, with lines about the answer below it."""


class _WaitingSide(Side):
    """One of the answers that are shown one after the other; waits for its turn."""

    def __init__(self, owner: Turns, title: str) -> None:
        self.title = title
        self.said: Sequence[str] | None = None
        # In order of arrival, as reasoning and text may alternate.
        self.waiting: list[tuple[Callable[[View, str], None], str]] = []
        self._owner = owner
        self._view: View | None = None

    def begin(self) -> None:
        """Show nothing yet: the answers before it come first."""

    def think(self, text: str) -> None:
        """Show more of the reasoning."""
        if self._view is None:
            self.waiting.append((lambda view, text: view.think(text), text))
        else:
            self._view.think(text)

    def add(self, text: str) -> None:
        """Show more of the answer."""
        if self._view is None:
            self.waiting.append((lambda view, text: view.add(text), text))
        else:
            self._view.add(text)

    def end(self, said: Sequence[str] = ()) -> None:
        """Finish."""
        self.said = said
        self._owner.advance()

    def show(self, view: View) -> None:
        """Show the answer from now on, beginning with what has arrived."""
        self._view = view
        view.begin()
        for show, text in self.waiting:
            show(view, text)
        self.waiting.clear()


class Turns:
    """Shows answers in their order; those that are not shown yet grow unseen.

    Args:
        stream: where headings and figures are written.
        titles: one for each.
        make: returns the view of an answer.
    """

    def __init__(self, stream: IO[str], titles: Sequence[str], make: Callable[[], View]) -> None:
        self._stream = stream
        self._make = make
        self._now = -1
        self._view: View | None = None
        self.sides: list[Side] = []
        # Kept apart from `sides`, which are what callers see: advance() reads `said`.
        self._turns = [_WaitingSide(self, title) for title in titles]
        self.sides += self._turns

    def begin(self) -> None:
        """Show the first."""
        self._next()

    def advance(self) -> None:
        """Go on to the next answer, and past those that have ended, if the one shown has."""
        # Several may have ended unseen meanwhile: show all of them up to one that still grows.
        while self._now < len(self._turns) and (said := self._turns[self._now].said) is not None:
            assert self._view is not None  # noqa: S101 - begin() made it
            self._view.end()
            self._write("".join(f"-- {line}\n" for line in said))
            self._next()

    def end(self) -> None:
        """Nothing is left to finish."""

    def _next(self) -> None:
        self._now += 1
        if self._now < len(self._turns):
            turn = self._turns[self._now]
            self._write(("\n" if self._now else "") + f"== {turn.title} ==\n")
            self._view = self._make()
            turn.show(self._view)

    def _write(self, text: str) -> None:
        styled = clean(text)
        if is_live(self._stream) and text.strip():
            styled = f"\x1b[2m{styled.rstrip(chr(10))}\x1b[0m\n"
        self._stream.write(styled)
        self._stream.flush()
