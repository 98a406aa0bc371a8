"""One question; one answer, or one of each model."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Sequence
from typing import Any

import click
import msgspec

from konko_async.cli._answer import Asker, remarks
from konko_async.cli._catalog import Catalog, catalog
from konko_async.cli._connect import connect, default_model
from konko_async.cli._conversation import Conversation
from konko_async.cli._options import Connection
from konko_async.cli._output import error_line, note
from konko_async.cli._session import ask_all, together
from konko_async.cli._tally import Answer, figures_line
from konko_async.cli._terminal import quiet

__all__ = ["ask"]

_FAILED = 1
_PATIENCE = 2.0  # seconds that figures wait for prices, after the answer


async def ask(
    connection: Connection,
    models: Sequence[str],
    conversation: Conversation,
    *,
    as_json: bool,
    plain: bool,
    stats: bool,
) -> int:
    """Print the answers to the conversation's last question.

    Args:
        connection: whom to ask.
        models: which; none: the default one. Several are asked at the same time.
        conversation: with the question in it.
        as_json: print whole completions when they are there, in the API's format.
        plain: write answers as they come, also on a terminal, and not as Markdown.
        stats: write the figures of the answer to standard error.

    Returns:
        The exit code.

    Raises:
        KonkoError: the call failed, where there is only one.
    """
    async with connect(connection, models[0] if models else None) as (client, known):
        chosen = list(models) or [await default_model(client, known)]
        answers = [Answer(model) for model in chosen]
        several = len(answers) > 1
        async with catalog(client, load=stats or several) as listed:
            asker = Asker(client, usage=stats or several or as_json)
            if as_json:
                await _print_json(asker, conversation, answers, listed)
            else:
                with quiet(sys.stdin):
                    same = [conversation] * len(answers)
                    await ask_all(asker, same, answers, plain=plain, catalog=listed)
            if not several:
                return await _end_one(answers[0], listed, stats=stats, as_json=as_json)
    return _FAILED if any(answer.error for answer in answers) else 0


async def _end_one(answer: Answer, listed: Catalog, *, stats: bool, as_json: bool) -> int:
    """Say what there is to say below one answer."""
    if stats:
        await _find_price(answer, listed)
        note(figures_line(answer))
    if answer.error is not None:
        raise answer.error
    if not as_json:
        for line in remarks(answer):
            note(line)
    return 0


async def _find_price(answer: Answer, listed: Catalog) -> None:
    """Look its price up; an answer may be quicker than the model list."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(listed.load(), _PATIENCE)
    answer.price = listed.price(answer.model)


class _Unseen:
    """Shows nothing: the whole answer is printed at its end."""

    def begin(self) -> None:
        """Show nothing."""

    def think(self, text: str) -> None:
        """Show nothing."""

    def add(self, text: str) -> None:
        """Show nothing."""

    def end(self) -> None:
        """Show nothing."""


async def _print_json(
    asker: Asker, conversation: Conversation, answers: Sequence[Answer], listed: Catalog
) -> None:
    """Print a line for each answer, as it comes to its end.

    Streamed all the same: a long answer is bounded by silence, not by its length.
    """

    async def print_one(answer: Answer) -> None:
        await asker.ask(conversation, answer, _Unseen())
        if len(answers) > 1:
            await _find_price(answer, listed)
            _print_line(_record(answer))
        elif answer.completion is not None:
            _print_line(answer.completion)

    await together(map(print_one, answers))


def _print_line(what: Any) -> None:
    click.echo(msgspec.json.encode(what).decode())
    sys.stdout.flush()


def _record(answer: Answer) -> dict[str, Any]:
    """Return one of several answers with its figures."""
    error = answer.error
    return {
        "model": answer.model,
        "completion": answer.completion,
        "error": error and {"type": type(error).__name__, "message": error_line(error)},
        "time_to_first_token": answer.first_token,
        "tokens_per_second": answer.rate,
        "seconds": answer.seconds,
        "attempts": answer.attempts,
        "cost": answer.cost,
        "currency": answer.currency,
    }
