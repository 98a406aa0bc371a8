"""Figures of the answers of a conversation, as a table."""

from __future__ import annotations

import sys

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from konko_async.cli._number_format import count, duration, money
from konko_async.cli._output import clean, note, terminal_size
from konko_async.cli.chat.tally import ChatAnswer, Tally, rate_text
from konko_async.cli.terminal.live import screen_console

__all__ = ["show_stats"]

_NARROW = 72  # columns below which the model has a line of its own


def show_stats(tally: Tally) -> None:
    """Print the figures of each answer, and of all."""
    if not tally.answers:
        note("there is no answer yet")
        return
    console = screen_console(sys.stdout)
    console.width = terminal_size(sys.stdout)[0]  # of a dumb one, rich assumes 80
    narrow = console.width < _NARROW
    table = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="bold", show_footer=True)
    total = f"{'' if tally.counted else '~'}{count(tally.tokens)}"
    table.add_column("#", justify="right")
    if not narrow:
        table.add_column("model", overflow="fold")
    table.add_column("first", justify="right")
    table.add_column("tok/s", justify="right")
    table.add_column("tokens", justify="right", footer=total)
    if not narrow:
        table.add_column("tries", justify="right", footer=count(_attempts(tally)))
        table.add_column("end")
    spent = tally.cost
    table.add_column("cost", justify="right", footer=money(*spent) if spent else "")
    for number, answer in enumerate(tally.answers, 1):
        table.add_row(*map(Text, _row(number, answer, narrow=narrow)))
    console.print(table)


def _attempts(tally: Tally) -> int:
    return sum(answer.attempts for answer in tally.answers)


def _row(number: int, answer: ChatAnswer, *, narrow: bool) -> list[str]:
    first = "-" if answer.first_token is None else duration(answer.first_token)
    asked = "" if answer.prompt_tokens is None else f"{count(answer.prompt_tokens)}+"
    about = "" if answer.counted else "~"
    cost = "-" if answer.cost is None else money(answer.cost, answer.currency)
    tokens = f"{asked}{about}{count(answer.tokens)}"
    if narrow:
        return [str(number), first, rate_text(answer), tokens, cost]
    tries = str(answer.attempts)
    model = clean(answer.model)
    return [str(number), model, first, rate_text(answer), tokens, tries, answer.outcome, cost]
