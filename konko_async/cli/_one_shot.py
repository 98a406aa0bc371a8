"""One question, one answer."""

from __future__ import annotations

import sys

import click
import msgspec

from konko_async.cli._answer import PlainView, stream_answer
from konko_async.cli._connect import connect, default_model
from konko_async.cli._conversation import Conversation
from konko_async.cli._options import Connection

__all__ = ["ask"]


async def ask(
    connection: Connection, model: str | None, conversation: Conversation, *, as_json: bool
) -> int:
    """Print the answer to the conversation's last question.

    Args:
        connection: whom to ask.
        model: which model; None: the default.
        conversation: with the question in it.
        as_json: print the whole completion when it is there, in the API's format.

    Returns:
        The exit code.

    Raises:
        KonkoError: the call failed.
    """
    async with connect(connection, model) as (client, known):
        chosen = await default_model(client, known)
        if not as_json:
            await stream_answer(client, chosen, conversation, PlainView(sys.stdout))
            return 0
        # Streamed all the same: a long answer is bounded by silence, not by its length.
        stream = client.chat.completions.stream(
            model=chosen,
            messages=conversation.messages,
            stream_options={"include_usage": True},
            **conversation.parameters,
        )
        async with stream:
            completion = await stream.completion()
    click.echo(msgspec.json.encode(completion).decode())
    return 0
