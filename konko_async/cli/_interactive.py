"""A conversation on a terminal: a prompt with history, answers that Ctrl-C stops, /commands."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence

from konko_async.cli._answer import Asker
from konko_async.cli._catalog import catalog
from konko_async.cli._connect import connect, default_model
from konko_async.cli._conversation import Conversation
from konko_async.cli._options import Connection
from konko_async.cli._output import note
from konko_async.cli._prompt import Prompt
from konko_async.cli._session import Session
from konko_async.cli._slash import Commands, Ended
from konko_async.cli._terminal import quiet

__all__ = ["converse"]

_GREETING = "Alt+Enter begins a new line, Ctrl-C stops an answer, Ctrl-D ends; /help says more"
_COMMAND = re.compile(r"/\w*(\s|$)")  # and not a path


async def converse(
    connection: Connection,
    models: Sequence[str],
    conversation: Conversation,
    *,
    plain: bool,
    stats: bool,
) -> int:
    """Ask and answer until the user has had enough.

    Args:
        connection: whom to ask.
        models: which; none: the default one.
        conversation: to begin with.
        plain: whether answers are written as they come, and not as Markdown.
        stats: whether figures are shown below each answer.

    Returns:
        The exit code.

    Raises:
        KonkoError: the conversation could not begin.
    """
    async with connect(connection, models[0] if models else None) as (client, known):
        chosen = list(models) or [await default_model(client, known)]
        async with catalog(client) as listed:
            asker = Asker(client, usage=True)
            session = Session(
                asker,
                listed,
                chosen,
                conversation,
                plain=plain,
                stats=stats,
                debug=connection.debug,
            )
            prompt = Prompt(session)
            commands = Commands(session, prompt.confirm)
            note(_GREETING)
            with quiet(sys.stdin):
                await _talk(session, prompt, commands)
    return 0


async def _talk(session: Session, prompt: Prompt, commands: Commands) -> None:
    while (text := await prompt.read()) is not None:
        if _COMMAND.match(text):
            try:
                await commands.handle(text)
            except Ended:
                break
        elif text:
            await session.turn(text)
