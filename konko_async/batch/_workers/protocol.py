"""The interface between a run and its workers, whatever carries the messages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

__all__ = ["Message", "WorkerLink", "Workers"]

Message = tuple[Any, ...]
"""A tuple of builtins and errors that begins with its kind."""


class WorkerLink(Protocol):
    """Sends messages to one worker, and ends it."""

    def send(self, message: Message) -> None:
        """Send a message, after those before it; nothing is done for a worker that is gone."""

    async def close(self) -> None:
        """End the worker; idempotent."""


class Workers(Protocol):
    """Starts workers: processes of this machine (:class:`Processes`), or actors of a cluster."""

    @property
    def count(self) -> int:
        """How many workers a run has."""

    async def start(
        self, heard: Callable[[list[Message]], None], lost: Callable[[str], None]
    ) -> WorkerLink:
        """Start one more worker, which runs a :class:`Worker`.

        Args:
            heard: to be called with its messages, in order.
            lost: to be called once when it is gone, with the reason, unless it was closed.

        Raises:
            WorkerLostError: it died while it started; another one is tried.
            BatchError: it cannot be started.
        """
