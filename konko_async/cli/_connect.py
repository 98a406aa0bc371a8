"""Opens the client of a command, and chooses its model."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import click

from konko_async import APIError, AsyncKonko
from konko_async.cli._endpoints import endpoint_set
from konko_async.cli._options import Connection
from konko_async.cli._output import clean, is_terminal, note, redact
from konko_async.cli.settings.config_file import load_config
from konko_async.local import LocalServer

__all__ = ["connect", "default_model"]


@asynccontextmanager
async def connect(
    connection: Connection, model: str | None = None
) -> AsyncIterator[tuple[AsyncKonko, str | None]]:
    """Open a client, and with ``--local`` the server that it talks to.

    Yields:
        The client, and the model to ask if one is known.

    Raises:
        KonkoError: there is no key, or the local model cannot be started.
    """
    if not connection.local:
        several = None
        if connection.base_url is None:
            several = endpoint_set(connection.endpoint, connection.endpoints)
        where: dict[str, Any] = (
            {"base_url": connection.base_url}
            if several is None
            else {name: getattr(several, name) for name in several.__struct_fields__}
        )
        async with AsyncKonko(
            timeout=connection.timeout, allow_http=connection.allow_http, **where
        ) as client:
            yield client, model or _default()
        return
    if is_terminal(sys.stderr):
        note("starting the local model (the first start unpacks its weights) ...")
    async with (
        LocalServer() as server,
        AsyncKonko(server.api_key, server.base_url, timeout=connection.timeout) as client,
    ):
        # Without KONKO_MODEL, which names a model of another server.
        yield client, model or server.model


def _default() -> str | None:
    """Return the model of ``$KONKO_MODEL``, else that of the configuration."""
    config = load_config()
    # An empty variable means that there is none, as after `export KONKO_MODEL=`.
    named = os.environ.get("KONKO_MODEL") or config.model
    return config.resolve(named) if named else None


async def default_model(client: AsyncKonko, model: str | None) -> str:
    """Return ``model``, or say how to choose one.

    Raises:
        click.UsageError: no model was named; lists those that could be.
    """
    if model:
        return model
    message = "no model chosen: give --model, or set KONKO_MODEL or `konko-async config`'s model."
    try:
        page = await client.models.list()
    except APIError as error:
        raise click.UsageError(f"{message} (The model list: {redact(error.message)})") from None
    # `is not False`, as servers other than Konko do not say what a model is for.
    names = [entry.id for entry in page.data if entry.is_chat is not False]
    raise click.UsageError(f"{message} This server's chat models:\n  {clean(_lines(names))}")


def _lines(names: list[str]) -> str:
    return "\n  ".join(names) if names else "(none)"
