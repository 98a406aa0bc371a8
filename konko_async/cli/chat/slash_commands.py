"""The /commands of a conversation."""

from __future__ import annotations

import base64
import sys
from collections.abc import Awaitable, Callable

import click

from konko_async.cli._number_format import plural
from konko_async.cli._output import clean, is_live, note
from konko_async.cli.chat.attachments import attach
from konko_async.cli.chat.catalog import nearest
from konko_async.cli.chat.conversation import shown_text
from konko_async.cli.chat.saved_conversations import NotSaved, load, path_of, save
from konko_async.cli.chat.session import Session
from konko_async.cli.chat.stats_table import show_stats
from konko_async.cli.settings.config_file import load_config

__all__ = ["COMMANDS", "Ended", "SlashCommands"]

_HELP = 21  # columns that a command takes
_HOTTEST = 2.0  # temperature
_LARGEST_CLIPBOARD = 74_994  # bytes; more are refused by many terminals


class Ended(Exception):  # noqa: N818 - not an error: the user is done
    """The user wants to leave."""


class SlashCommands:
    """Carries commands out.

    Args:
        session: which they are about.
        confirm: asks the user a question.
    """

    def __init__(self, session: Session, confirm: Callable[[str], Awaitable[bool]]) -> None:
        self._session = session
        self._confirm = confirm

    async def handle(self, line: str) -> None:
        """Carry out a line such as ``/new``.

        Raises:
            Ended: it was ``/exit``.
        """
        name, _, argument = line.removeprefix("/").partition(" ")
        if name in COMMANDS:
            action, _, _ = COMMANDS[name]
            try:
                await action(self, argument.strip())
            except NotSaved as error:
                note(str(error))
            return
        meant = nearest(name, list(COMMANDS))
        instead = f"did you mean /{meant}?" if meant else "/help lists what there is"
        note(f"there is no /{name}; {instead}")

    async def model(self, argument: str) -> None:
        """Change the model, or list those that there are."""
        catalog = self._session.catalog
        # The load in the background may not have ended, or may have failed.
        await catalog.load()
        if not argument:
            self._list_models()
            return
        argument = load_config().resolve(argument)
        known = catalog.chat_models
        # A remark only: servers may accept names that they do not list.
        if known and argument not in known:
            meant = nearest(argument, known)
            note(f"the server lists no {argument}" + (f"; did you mean {meant}?" if meant else ""))
        self._session.use([argument])
        note(f"{argument} answers from now on")

    def _list_models(self) -> None:
        used = self._session.models
        listed = self._session.catalog.chat_models
        for model in [*listed, *(model for model in used if model not in listed)]:
            click.echo(f"{'*' if model in used else ' '} {clean(model)}")

    async def compare(self, argument: str) -> None:
        """Ask several models from now on, or only the first one again."""
        models = [*map(load_config().resolve, argument.replace(",", " ").split())]
        if len(models) == 1:
            models = [self._session.models[0], *models]
        if models:
            self._session.use(models)
            note(f"{' and '.join(models)} answer from now on; /compare alone ends it")
        elif len(self._session.models) > 1:
            self._session.use(self._session.models[:1])
            note(f"{self._session.models[0]} answers from now on")
        else:
            note("which models? /compare ID ID")

    async def system(self, argument: str) -> None:
        """Show the system message, or change it."""
        conversations = self._session.conversations
        if argument:
            for conversation in conversations:
                conversation.system = None if argument == "-" else argument
        system = conversations[0].system
        note(f"system message: {system}" if system else "there is no system message")

    async def retry(self, argument: str) -> None:
        """Ask the last question again."""
        parameters = {}
        if argument:
            try:
                parameters["temperature"] = float(argument)
            except ValueError:
                note(f"{argument} is no temperature")
                return
            if not 0 <= parameters["temperature"] <= _HOTTEST:
                note("a temperature is between 0 and 2")
                return
        if not await self._session.retry(**parameters):
            note("there is no answer to ask for again")

    async def save(self, argument: str) -> None:
        """Write the conversation to a file."""
        session = self._session
        if not argument:
            note("where to? /save FILE.md, or FILE.json")
            return
        for model, conversation in zip(session.models, session.conversations, strict=True):
            path = path_of(argument)
            if len(session.models) > 1:  # one file for each
                # Ids hold slashes, which would make folders of the name's parts.
                path = path.with_stem(f"{path.stem}-{model.replace('/', '_')}")
            try:
                save(path, model, conversation, overwrite=False)
            except FileExistsError:
                if not await self._confirm(f"{path} exists; overwrite it?"):
                    note("not saved")
                    continue
                save(path, model, conversation, overwrite=True)
            note(f"saved in {path}")

    async def load(self, argument: str) -> None:
        """Go on with a conversation from a file."""
        if not argument:
            note("usage: /load FILE")
            return
        saved = load(path_of(argument))
        messages = [{"role": m.role, "content": m.content} for m in saved.messages]
        system = [m["content"] for m in messages if m["role"] == "system"]
        for conversation in self._session.conversations:
            # Files of others may hold several, and a conversation has one.
            conversation.system = "\n\n".join(map(shown_text, system)) or None
            conversation.kept = None  # what is kept so far is another conversation
            conversation.said = [m for m in messages if m["role"] != "system"]
        count = len(self._session.conversation.said)
        by = f", with {saved.model}" if saved.model else ""
        note(f"{plural(count, 'message')}{by}; {self._session.models[0]} continues")

    async def attach(self, argument: str) -> None:
        """Let a file or an address go along with the next question."""
        if not argument:
            note("usage: /attach FILE, or an https address")
            return
        try:
            self._session.attached += await attach([argument])
        except click.UsageError as error:
            note(error.message)
            return
        note(f"{argument} goes along with the next question")

    async def stats(self, argument: str) -> None:  # noqa: ARG002 - all commands take one
        """Show what the answers took."""
        show_stats(self._session.tally)

    async def copy(self, argument: str) -> None:  # noqa: ARG002 - all commands take one
        """Put the last answer into the clipboard, by the terminal."""
        answer = self._session.conversation.last_answer
        data = (answer or "").encode()
        if not answer:
            note("there is no answer yet")
        elif not is_live(sys.stdout) or len(data) > _LARGEST_CLIPBOARD:
            note("this terminal cannot copy; /save FILE writes a file")
        else:
            # OSC 52: the terminal itself sets the clipboard, so it works over ssh, too.
            sys.stdout.write(f"\x1b]52;c;{base64.b64encode(data).decode()}\x07")
            sys.stdout.flush()
            note("sent to the terminal's clipboard (not every terminal supports it)")

    async def new(self, argument: str) -> None:  # noqa: ARG002 - all commands take one
        """Forget what was said."""
        for conversation in self._session.conversations:
            conversation.clear()
        note("a new conversation")

    async def help(self, argument: str) -> None:  # noqa: ARG002 - all commands take one
        """List the commands and keys."""
        for name, (_, arguments, what) in COMMANDS.items():
            click.echo(f"/{name} {arguments}".ljust(_HELP) + what)
        for keys, what in _KEYS.items():
            click.echo(keys.ljust(_HELP) + what)

    async def exit(self, argument: str) -> None:  # noqa: ARG002 - all commands take one
        """Leave."""
        raise Ended


_Action = Callable[[SlashCommands, str], Awaitable[None]]

COMMANDS: dict[str, tuple[_Action, str, str]] = {
    "help": (SlashCommands.help, "", "lists these commands"),
    "model": (SlashCommands.model, "[ID]", "lists the models, or switches to one"),
    "compare": (
        SlashCommands.compare,
        "[ID ...]",
        "asks several models at once; without IDs, one again",
    ),
    "system": (SlashCommands.system, "[TEXT]", "shows or sets the system message; - removes it"),
    "retry": (SlashCommands.retry, "[TEMPERATURE]", "asks the last question again"),
    "save": (SlashCommands.save, "FILE", "writes the conversation: Markdown, or JSON for .json"),
    "load": (SlashCommands.load, "FILE", "resumes a saved conversation"),
    "attach": (
        SlashCommands.attach,
        "FILE",
        "sends a file, an image or a page with the next question",
    ),
    "stats": (SlashCommands.stats, "", "shows time, tokens and cost of the answers"),
    "copy": (SlashCommands.copy, "", "copies the last answer to the clipboard"),
    "new": (SlashCommands.new, "", "starts over; keeps the system message"),
    "exit": (SlashCommands.exit, "", "ends the conversation, as Ctrl-D does"),
}
"""What carries a command out, what it takes, and what it does."""

_KEYS = {
    "Enter": "sends",
    "Alt+Enter, Ctrl-J": "starts a new line",
    "Ctrl-R": "searches the history",
    "Ctrl-X Ctrl-E": "opens $EDITOR",
    "Ctrl-C": "stops an answer; at the prompt, clears it",
}
