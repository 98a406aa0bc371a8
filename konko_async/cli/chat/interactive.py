"""A conversation on a terminal: a prompt with history, answers that Ctrl-C stops, /commands."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence

from konko_async.cli._connect import connect, default_model
from konko_async.cli._number_format import plural
from konko_async.cli._options import Connection
from konko_async.cli._output import note
from konko_async.cli.chat.answer import Asker
from konko_async.cli.chat.attachments import attach
from konko_async.cli.chat.catalog import catalog
from konko_async.cli.chat.conversation import Conversation
from konko_async.cli.chat.prompt import ChatPrompt
from konko_async.cli.chat.session import Session
from konko_async.cli.chat.slash_commands import Ended, SlashCommands
from konko_async.cli.log.keeper import Keeper
from konko_async.cli.terminal.tty_settings import quiet

__all__ = ["converse"]

_GREETING = "Alt+Enter begins a new line, Ctrl-C stops an answer, Ctrl-D ends; /help says more"
_COMMAND = re.compile(r"/\w*(\s|$)")  # and not a path


async def converse(
    connection: Connection,
    models: Sequence[str],
    conversation: Conversation,
    *,
    attached: Sequence[str],
    keeper: Keeper,
    plain: bool,
    stats: bool,
) -> int:
    """Hold a conversation until the user ends it.

    Args:
        connection: whom to ask.
        models: which; none: the default one.
        conversation: to begin with.
        attached: files and addresses that go along with the first question.
        keeper: keeps the conversation.
        plain: whether answers are written as they come, and not as Markdown.
        stats: whether figures are shown below each answer.

    Returns:
        The exit code.

    Raises:
        KonkoError: the conversation could not begin.
    """
    parts = await attach(attached)
    async with connect(connection, models[0] if models else None) as (client, known):
        chosen = list(models) or [await default_model(client, known)]
        async with catalog(client) as listed:
            asker = Asker(client, usage=True)
            session = Session(
                asker,
                listed,
                chosen,
                conversation,
                keeper=keeper,
                plain=plain,
                stats=stats,
                debug=connection.debug,
            )
            session.attached += parts
            prompt = ChatPrompt(session)
            commands = SlashCommands(session, prompt.confirm)
            note(_GREETING)
            if conversation.said:
                note(f"continues a conversation of {plural(len(conversation.said), 'message')}")
            # Around the whole conversation: what is typed between two prompts is then kept for the
            # next.
            with quiet(sys.stdin):
                await _talk(session, prompt, commands)
    return 0


async def _talk(session: Session, prompt: ChatPrompt, commands: SlashCommands) -> None:
    while (text := await prompt.read()) is not None:
        if _COMMAND.match(text):
            try:
                await commands.handle(text)
            except Ended:
                break
        elif text:
            await session.turn(text)
