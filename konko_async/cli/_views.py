"""Chooses how answers are shown, and loads what that needs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import IO, TYPE_CHECKING

from konko_async.cli._answer import PlainView, View
from konko_async.cli._output import is_live, terminal_size
from konko_async.cli._turns import Turns

if TYPE_CHECKING:
    from konko_async.cli._columns import Columns

__all__ = ["side_by_side", "single_view"]

_NARROWEST = 36  # columns that an answer needs to be read


def single_view(stream: IO[str], *, plain: bool = False) -> View:
    """Return what shows one answer."""
    if plain or not is_live(stream):
        return PlainView(stream)
    from konko_async.cli._live import LiveView  # noqa: PLC0415 - rich; a pipe needs none of it

    return LiveView(stream)


def side_by_side(stream: IO[str], titles: Sequence[str], *, plain: bool = False) -> Columns | Turns:
    """Return what shows several answers: in columns where they fit."""
    if not plain and is_live(stream):
        from konko_async.cli._columns import GAP, Columns  # noqa: PLC0415 - as above

        room = terminal_size(stream)[0] - 1 + len(GAP)
        if room // len(titles) - len(GAP) >= _NARROWEST:
            return Columns(stream, titles)
    return Turns(stream, titles, lambda: single_view(stream, plain=plain))
