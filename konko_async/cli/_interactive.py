"""A conversation on a terminal: a prompt with history, answers that Ctrl-C stops, /commands."""

from __future__ import annotations

import asyncio
import sys

from prompt_toolkit import PromptSession
from prompt_toolkit.history import FileHistory

from konko_async import AsyncKonko, KonkoError
from konko_async.cli._answer import PlainView, stream_answer
from konko_async.cli._connect import connect, default_model
from konko_async.cli._conversation import Conversation
from konko_async.cli._options import Connection
from konko_async.cli._output import note, report
from konko_async.cli._run import on_interrupt
from konko_async.cli._slash import Ended, handle
from konko_async.cli._state import private_file

__all__ = ["converse"]

_GREETING = "Ctrl-C stops an answer, Ctrl-D ends; /help lists the commands."


async def converse(connection: Connection, model: str | None, conversation: Conversation) -> int:
    """Ask and answer until the user has had enough.

    Returns:
        The exit code.

    Raises:
        KonkoError: the conversation could not begin.
    """
    async with connect(connection, model) as (client, known):
        chosen = await default_model(client, known)
        history = FileHistory(str(private_file("chat_history")))
        session: PromptSession[str] = PromptSession(f"{chosen}> ", history=history)
        note(_GREETING)
        while (text := await _read(session)) is not None:
            if text.startswith("/"):
                try:
                    handle(text, conversation)
                except Ended:
                    break
            elif text:
                conversation.ask(text)
                await _take_turn(client, chosen, conversation, debug=connection.debug)
    return 0


async def _read(session: PromptSession[str]) -> str | None:
    """Return what the user typed; None at the end; "" for Ctrl-C, which clears the line."""
    try:
        return (await session.prompt_async()).strip()
    except KeyboardInterrupt:
        return ""
    except EOFError:
        return None


async def _take_turn(
    client: AsyncKonko, model: str, conversation: Conversation, *, debug: bool
) -> None:
    """Stream one answer; whatever stops it, the conversation can go on."""
    view = PlainView(sys.stdout)
    answer = asyncio.ensure_future(stream_answer(client, model, conversation, view))
    stopped: list[bool] = []

    def stop() -> None:
        stopped.append(True)
        answer.cancel()

    try:
        with on_interrupt(stop):
            await answer
    except asyncio.CancelledError:
        if not stopped:
            raise
        note("stopped")
    except KonkoError as error:
        report(error, debug=debug)
    conversation.answered(view.text)
