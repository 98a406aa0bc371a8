"""Keeps the conversation that is held, or says why it does not."""

from __future__ import annotations

import os
import sys

from konko_async.cli._output import is_terminal, note
from konko_async.cli.chat.conversation import Conversation
from konko_async.cli.log.store import ConversationStore, LogError

__all__ = ["Keeper", "is_kept"]

_OFF = {"0", "no", "off", "false"}


def is_kept(*, option: bool | None, config: bool) -> bool:
    """Whether conversations are kept: the option, else ``$KONKO_LOG``, else the configuration."""
    if option is not None:
        return option
    given = os.environ.get("KONKO_LOG", "").strip().lower()
    return given not in _OFF if given else config


class Keeper:
    """Writes conversations into the store after each answer.

    Args:
        store: None: nothing is kept.
    """

    def __init__(self, store: ConversationStore | None) -> None:
        self._store = store

    def keep(self, model: str, conversation: Conversation) -> None:
        """Write a conversation that ends with an answer; a failure is a line, and no error."""
        if self._store is None or conversation.last_answer is None:
            return
        is_first = not self._store.path.exists()
        try:
            self._store.keep(conversation, model)
        except LogError as error:
            note(f"this conversation is not kept: {error} (--no-log says nothing about it)")
            self._store = None  # said once
            return
        # Not to scripts, whose standard error is for errors.
        if is_first and is_terminal(sys.stderr):
            note(
                f"conversations are kept in {self._store.path}, for you only; `konko-async log` "
                "shows them, and `konko-async log off` ends it"
            )
