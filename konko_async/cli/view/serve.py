"""Runs the viewer, and prints where it is."""

from __future__ import annotations

import asyncio
import webbrowser
from typing import Any

import click

from konko_async.viewer import Viewer, ViewerError

__all__ = ["view"]


async def view(*, output: str, show: bool, **options: Any) -> int:
    """Serve the page until cancelled.

    Raises:
        click.UsageError: it cannot be served.
    """
    try:
        viewer = Viewer(output, **options)
        async with viewer:
            click.echo(f"{output} is shown at {viewer.address}\nCtrl-C stops it.")
            if show:
                # In a thread: some browsers return only when they are closed.
                await asyncio.to_thread(webbrowser.open, viewer.address)
            await asyncio.Event().wait()  # never set: Ctrl-C and SIGTERM cancel it
    except ViewerError as error:
        raise click.UsageError(error.message) from None
    return 0
