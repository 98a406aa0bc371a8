"""The state of a conversation on a terminal: its models, its messages, what it cost."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Coroutine, Iterable, Sequence
from typing import Any

import click

from konko_async.cli._output import is_live, note, report
from konko_async.cli._runner import on_interrupt
from konko_async.cli.chat.answer import Asker, remarks, verdict
from konko_async.cli.chat.attachments import Attachment, content_of
from konko_async.cli.chat.catalog import Catalog
from konko_async.cli.chat.conversation import Conversation
from konko_async.cli.chat.tally import ChatAnswer, Tally, figures_line
from konko_async.cli.chat.views import side_by_side, single_view
from konko_async.cli.log.keeper import Keeper

__all__ = ["Session", "ask_all", "together"]


class Session:
    """The state between two turns.

    Args:
        asker: asks the server.
        catalog: what it lists.
        models: their ids; several answer side by side, each with a conversation of its own.
        conversation: to begin with.
        keeper: keeps each conversation after each answer; None: nobody does.
        plain: whether answers are written as they come, and not as Markdown.
        stats: whether figures are shown below each answer.
        debug: whether errors come with their traceback.

    Attributes:
        attached: what goes along with the next question.
    """

    def __init__(
        self,
        asker: Asker,
        catalog: Catalog,
        models: Sequence[str],
        conversation: Conversation,
        *,
        keeper: Keeper | None = None,
        plain: bool = False,
        stats: bool = False,
        debug: bool = False,
    ) -> None:
        self.asker = asker
        self.catalog = catalog
        self.tally = Tally()
        self.models: list[str] = []
        self.conversations = [conversation]
        self.attached: list[Attachment] = []
        self._keeper = keeper
        self._plain = plain
        self._stats = stats
        self._debug = debug
        self.use(models)

    @property
    def conversation(self) -> Conversation:
        """The conversation with the first model."""
        return self.conversations[0]

    def use(self, models: Sequence[str]) -> None:
        """Use these models from now on; a model that is in use already keeps its messages."""
        before = list(zip(self.models, self.conversations, strict=False))
        chosen = []
        for model in models:
            known = next((pair for pair in before if pair[0] == model), None)
            if known:
                # Taken out, so that a model that is compared with itself gets a conversation for
                # each side.
                before.remove(known)
            chosen.append(known[1] if known else self.conversation.fork())
        self.models, self.conversations = list(models), chosen

    async def turn(self, question: str) -> None:
        """Ask, and show what is answered; whatever stops it, the conversation can go on."""
        content = content_of(question, self.attached)
        for conversation in self.conversations:
            conversation.ask(content)
        answers = await self._ask()
        for conversation, answer in zip(self.conversations, answers, strict=True):
            conversation.answered(answer.text)
            # Else the question was taken back: its attachments wait for the next one.
            if answer.text:
                self.attached = []
        self._keep()

    def _keep(self) -> None:
        # From the last to the first: --continue takes the latest, which is then the first model's.
        for model, conversation in reversed(
            list(zip(self.models, self.conversations, strict=True))
        ):
            if self._keeper is not None:
                self._keeper.keep(model, conversation)

    async def retry(self, **parameters: Any) -> bool:
        """Ask the last question again; an answer without text leaves the one before.

        Returns:
            Whether there was a question.
        """
        before = [conversation.take_back() for conversation in self.conversations]
        if not any(before):
            return False
        answers = await self._ask(**parameters)
        for conversation, answer, old in zip(self.conversations, answers, before, strict=True):
            if answer.text:
                conversation.answered(answer.text)
            else:
                conversation.said += old
        self._keep()
        return True

    async def _ask(self, **parameters: Any) -> list[ChatAnswer]:
        answers = [ChatAnswer(model) for model in self.models]
        asking = asyncio.ensure_future(
            ask_all(
                self.asker,
                self.conversations,
                answers,
                plain=self._plain,
                catalog=self.catalog,
                **parameters,
            )
        )
        stopped: list[bool] = []

        def stop() -> None:
            stopped.append(True)
            asking.cancel()

        try:
            with on_interrupt(stop):
                await asking
        except asyncio.CancelledError:
            # SIGTERM's, which has to end the program.
            if not stopped:
                raise
            note("stopped")
        for answer in answers:
            answer.price = self.catalog.price(answer.model)
            self.tally.add(answer)
        if len(answers) == 1:
            self._say(answers[0])
        if is_live(sys.stdout) and not self._plain:
            click.echo()  # sets the next question apart
        return answers

    def _say(self, answer: ChatAnswer) -> None:
        if answer.error is not None:
            report(answer.error, debug=self._debug)
        for line in remarks(answer):
            note(line)
        if self._stats:
            note(figures_line(answer))


async def ask_all(
    asker: Asker,
    conversations: Sequence[Conversation],
    answers: Sequence[ChatAnswer],
    *,
    plain: bool = False,
    catalog: Catalog | None = None,
    **parameters: Any,
) -> None:
    """Show the answers to the last question of each conversation, all asked at the same time.

    Args:
        asker: asks the server.
        conversations: one for each answer.
        answers: are filled in; one that fails does not stop the others.
        plain: whether they are written as they come, and not as Markdown.
        catalog: knows what they cost.
        parameters: go before those of the conversations.
    """
    if len(answers) == 1:
        view = single_view(sys.stdout, plain=plain)
        with contextlib.closing(_AnswerEnd(view)):
            await asker.ask(conversations[0], answers[0], view, **parameters)
        return
    views = side_by_side(sys.stdout, [answer.model for answer in answers], plain=plain)
    with contextlib.closing(_AnswerEnd(views)):
        views.begin()
        await together(
            _ask_one(asker, conversation, answer, side, catalog, **parameters)
            for conversation, answer, side in zip(conversations, answers, views.sides, strict=True)
        )


async def together(work: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Run coroutines at the same time; none is left running, and an error is raised as it is."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        # gather() raises the first error and leaves the others running.
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _ask_one(
    asker: Asker,
    conversation: Conversation,
    answer: ChatAnswer,
    side: Any,
    catalog: Catalog | None,
    **parameters: Any,
) -> None:
    try:
        await asker.ask(conversation, answer, side, **parameters)
    finally:
        # Before verdict(), whose line of figures has the cost in it.
        if catalog is not None:
            answer.price = catalog.price(answer.model)
        side.end(verdict(answer))


class _AnswerEnd:
    """Ends a view on leaving a block."""

    def __init__(self, view: Any) -> None:
        self.close = view.end
