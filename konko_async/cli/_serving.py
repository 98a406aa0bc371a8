"""Runs the emulator or the local model, and prints how to reach it."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import click

from konko_async.cli._output import note
from konko_async.local import LocalServer
from konko_async.testing import Emulator

__all__ = ["serve_emulator", "serve_local"]

_OWN_KEY = "KONKO_SERVE_KEY"


async def serve_emulator(**options: Any) -> int:
    """Serve the emulator until cancelled.

    Raises:
        click.UsageError: the options do not go together, or the address is taken.
    """
    # Not $KONKO_API_KEY: users of the emulator should not have to send it a real key.
    key = os.environ.get(_OWN_KEY)
    try:
        emulator = Emulator(api_keys=[key] if key else None, **options)
    except ValueError as error:
        raise click.UsageError(_explain(options, error)) from None
    try:
        await emulator.start()
    except OSError as error:
        place = f"{options['host']}:{options['port']}"
        raise click.UsageError(f"cannot listen on {place}: {error.strerror}") from None
    try:
        # A key of the user's own is named, not shown.
        _announce("the emulator", emulator.base_url, f'"${_OWN_KEY}"' if key else emulator.api_key)
        await asyncio.Event().wait()  # never set: Ctrl-C and SIGTERM cancel it
    finally:
        await emulator.close()
    return 0


def _explain(options: dict[str, Any], error: ValueError) -> str:
    # The emulator's messages name Python arguments; at a shell there are options and variables.
    if options["allow_remote"] and not os.environ.get(_OWN_KEY):
        return f"--allow-remote needs a key: set the environment variable {_OWN_KEY}"
    if not options["allow_remote"] and "loopback" in str(error):
        return f"--host {options['host']} is not loopback: that needs --allow-remote and {_OWN_KEY}"
    return str(error)


async def serve_local() -> int:
    """Serve the local model until cancelled.

    Raises:
        KonkoError: it cannot be started, or it ended on its own.
    """
    note("starting the local model (the first start unpacks its weights) ...")
    async with LocalServer() as server:
        # The key is a random one of this run.
        _announce(f"the model {server.model}", server.base_url, server.api_key, server.model)
        await server.wait()
    return 0


def _announce(what: str, base_url: str, key: str, model: str | None = None) -> None:
    lines = [f"serving {what} at {base_url}", f"  export KONKO_BASE_URL={base_url}"]
    lines.append(f"  export KONKO_API_KEY={key}")
    if model:
        lines.append(f"  export KONKO_MODEL={model}")
    click.echo("\n".join([*lines, "Ctrl-C stops it."]))
