"""One question; one answer, or one of each model."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Sequence
from typing import Any

import click

from konko_async.cli._connect import connect, default_model
from konko_async.cli._options import Connection
from konko_async.cli._output import error_line, json_text, note
from konko_async.cli.chat.answer import Asker, remarks
from konko_async.cli.chat.attachments import attach, content_of
from konko_async.cli.chat.catalog import Catalog, catalog
from konko_async.cli.chat.conversation import Conversation
from konko_async.cli.chat.question import check_answer
from konko_async.cli.chat.session import ask_all, together
from konko_async.cli.chat.tally import ChatAnswer, figures_line
from konko_async.cli.log.keeper import Keeper
from konko_async.cli.terminal.tty_settings import quiet

__all__ = ["ask"]

_FAILED = 1
_PATIENCE = 2.0  # seconds that figures wait for prices, after the answer


async def ask(
    connection: Connection,
    models: Sequence[str],
    conversation: Conversation,
    text: str,
    *,
    attached: Sequence[str],
    keeper: Keeper,
    schema: dict[str, Any] | None,
    as_json: bool,
    plain: bool,
    stats: bool,
) -> int:
    """Print the answers to a question.

    Args:
        connection: whom to ask.
        models: their ids; none: the default model. Several answer at the same time.
        conversation: that the question continues.
        text: of the question.
        attached: files and addresses that go along with it.
        keeper: keeps the conversation.
        schema: of the answer, which is checked; None: it is not.
        as_json: print whole completions when they are there, in the API's format.
        plain: write answers as they come, also on a terminal, and not as Markdown.
        stats: write the figures of the answer to standard error.

    Returns:
        The exit code.

    Raises:
        KonkoError: the call failed, where there is only one.
    """
    conversation.ask(content_of(text, await attach(attached)))
    async with connect(connection, models[0] if models else None) as (client, known):
        chosen = list(models) or [await default_model(client, known)]
        answers = [ChatAnswer(model) for model in chosen]
        several = len(answers) > 1
        # Prices are all that it is for here, so it is loaded where figures are shown only.
        async with catalog(client, load=stats or several) as listed:
            asker = Asker(client, usage=stats or several or as_json)
            try:
                if as_json:
                    await _print_json(asker, conversation, answers, listed)
                else:
                    with quiet(sys.stdin):
                        same = [conversation] * len(answers)
                        # JSON is no Markdown.
                        bare = plain or schema is not None
                        await ask_all(asker, same, answers, plain=bare, catalog=listed)
            finally:
                _keep(keeper, conversation, answers)
            if not several:
                await _end_one(answers[0], listed, stats=stats, as_json=as_json)
    wrong = schema is not None and any([_misfit(answer, schema) for answer in answers])  # noqa: C419 - all are reported
    return _FAILED if wrong or any(answer.error for answer in answers) else 0


def _keep(keeper: Keeper, conversation: Conversation, answers: Sequence[ChatAnswer]) -> None:
    """Keep what was said, also of an answer that was stopped; of several, each on its own."""
    # From the last to the first: --continue takes the latest, which is then the first model's.
    for answer in reversed(answers):
        said = conversation if len(answers) == 1 else conversation.fork()
        if answer.text:
            said.answered(answer.text)
            keeper.keep(answer.model, said)


def _misfit(answer: ChatAnswer, schema: dict[str, Any]) -> bool:
    """Say what is wrong with an answer that does not fit the schema, and whether anything is."""
    wrong = None if answer.completion is None else check_answer(answer.text, schema)
    if wrong:
        note(wrong)
    return wrong is not None


async def _end_one(answer: ChatAnswer, listed: Catalog, *, stats: bool, as_json: bool) -> None:
    """Write the figures and remarks of a single answer, or raise its error."""
    if stats:
        await _find_price(answer, listed)
        note(figures_line(answer))
    if answer.error is not None:
        # Reported by the runner, which also chooses the exit code.
        raise answer.error
    if not as_json:
        for line in remarks(answer):
            note(line)


async def _find_price(answer: ChatAnswer, listed: Catalog) -> None:
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
    asker: Asker, conversation: Conversation, answers: Sequence[ChatAnswer], listed: Catalog
) -> None:
    """Print a line for each answer, as it comes to its end.

    Streamed all the same: a long answer is bounded by silence, not by its length.
    """

    async def print_one(answer: ChatAnswer) -> None:
        await asker.ask(conversation, answer, _Unseen())
        if len(answers) > 1:
            await _find_price(answer, listed)
            _print_line(_record(answer))
        elif answer.completion is not None:
            _print_line(answer.completion)

    await together(map(print_one, answers))


def _print_line(what: Any) -> None:
    click.echo(json_text(what))
    # Into a pipe Python writes in blocks, and the reader waits for each line.
    sys.stdout.flush()


def _record(answer: ChatAnswer) -> dict[str, Any]:
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
