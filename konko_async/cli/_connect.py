"""The client of a command, and the model that it asks."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import click

from konko_async import APIError, AsyncKonko
from konko_async.cli._options import Connection
from konko_async.cli._output import clean, is_terminal, note, redact
from konko_async.local import LocalServer

__all__ = ["connect", "default_model"]


@asynccontextmanager
async def connect(
    connection: Connection, model: str | None = None
) -> AsyncIterator[tuple[AsyncKonko, str | None]]:
    """Open a client, and with ``--local`` the server that it talks to.

    Args:
        connection: the options of the command line.
        model: the model that ``--model`` names.

    Yields:
        The client, and the model to ask if one is known.

    Raises:
        KonkoError: there is no key, or the local model cannot be started.
    """
    if not connection.local:
        async with AsyncKonko(
            base_url=connection.base_url,
            timeout=connection.timeout,
            allow_http=connection.allow_http,
        ) as client:
            yield client, model or os.environ.get("KONKO_MODEL") or None
        return
    if is_terminal(sys.stderr):
        note("starting the local model (the first time, its weights are put together) ...")
    async with (
        LocalServer() as server,
        AsyncKonko(server.api_key, server.base_url, timeout=connection.timeout) as client,
    ):
        yield client, model or server.model


async def default_model(client: AsyncKonko, model: str | None) -> str:
    """Return ``model``, or say how to choose one.

    Raises:
        click.UsageError: no model was named; lists those that could be.
    """
    if model:
        return model
    message = "which model? Give --model, or set KONKO_MODEL."
    try:
        page = await client.models.list()
    except APIError as error:
        raise click.UsageError(f"{message} (The model list: {redact(error.message)})") from None
    names = [entry.id for entry in page.data if entry.is_chat is not False]
    raise click.UsageError(f"{message} This server's chat models:\n  {clean(_lines(names))}")


def _lines(names: list[str]) -> str:
    return "\n  ".join(names) if names else "(none)"
