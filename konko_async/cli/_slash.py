"""The /commands of a conversation."""

from __future__ import annotations

from collections.abc import Callable

from konko_async.cli._conversation import Conversation
from konko_async.cli._output import note

__all__ = ["Ended", "handle"]


class Ended(Exception):  # noqa: N818 - not an error: the user is done
    """The user wants to leave."""


def handle(line: str, conversation: Conversation) -> None:
    """Carry out a line such as ``/new``.

    Args:
        line: with its slash.
        conversation: which it is about.

    Raises:
        Ended: it was ``/exit``.
    """
    name, _, argument = line.removeprefix("/").partition(" ")
    action, _ = _COMMANDS.get(name, (None, ""))
    if action is None:
        note(f"there is no /{name}; /help lists what there is")
    else:
        action(conversation, argument.strip())


def _help(conversation: Conversation, argument: str) -> None:  # noqa: ARG001 - as all commands
    for name, (_, what) in _COMMANDS.items():
        note(f"/{name:<6} {what}")


def _new(conversation: Conversation, argument: str) -> None:  # noqa: ARG001 - as all commands
    conversation.clear()
    note("a new conversation")


def _exit(conversation: Conversation, argument: str) -> None:  # noqa: ARG001 - as all commands
    raise Ended


_COMMANDS: dict[str, tuple[Callable[[Conversation, str], None], str]] = {
    "help": (_help, "lists these commands"),
    "new": (_new, "forgets what was said, but for the system message"),
    "exit": (_exit, "ends the conversation, as Ctrl-D does"),
}
