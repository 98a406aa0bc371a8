"""Chooses how answers are shown, and loads what that needs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import IO, TYPE_CHECKING

from konko_async.cli._output import is_live, terminal_size
from konko_async.cli.chat.answer import PlainView, View
from konko_async.cli.chat.turns import Turns

if TYPE_CHECKING:
    from konko_async.cli.terminal.columns import Columns

__all__ = ["side_by_side", "single_view"]

_NARROWEST = 36  # columns: below it, code and lists wrap at nearly every word


def single_view(stream: IO[str], *, plain: bool = False) -> View:
    """Return what shows one answer."""
    if plain or not is_live(stream):
        return PlainView(stream)
    from konko_async.cli.terminal.live import LiveView  # noqa: PLC0415 - rich; a pipe needs none of it

    return LiveView(stream)


def side_by_side(stream: IO[str], titles: Sequence[str], *, plain: bool = False) -> Columns | Turns:
    """Return what shows several answers: in columns where they fit."""
    if not plain and is_live(stream):
        from konko_async.cli.terminal.columns import GAP, Columns  # noqa: PLC0415 - rich: a pipe needs none of it

        # One column stays free (see LiveView). A gap is added, as the last answer has none after
        # it.
        room = terminal_size(stream)[0] - 1 + len(GAP)
        if room // len(titles) - len(GAP) >= _NARROWEST:
            return Columns(stream, titles)
    return Turns(stream, titles, lambda: single_view(stream, plain=plain))
