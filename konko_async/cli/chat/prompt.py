"""The prompt of a conversation: history, several lines, completion, a toolbar."""

from __future__ import annotations

from collections.abc import Iterable

from prompt_toolkit import PromptSession
from prompt_toolkit.application import get_app
from prompt_toolkit.completion import (
    CompleteEvent,
    Completer,
    Completion,
    FuzzyWordCompleter,
    PathCompleter,
)
from prompt_toolkit.document import Document
from prompt_toolkit.enums import DEFAULT_BUFFER
from prompt_toolkit.filters import Condition, has_focus
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.styles import Style
from prompt_toolkit.utils import get_cwidth

from konko_async.cli._number_format import count, money
from konko_async.cli._output import clean, note
from konko_async.cli._state import private_file
from konko_async.cli.chat.session import Session
from konko_async.cli.chat.slash_commands import COMMANDS

__all__ = ["ChatPrompt", "toolbar"]

_STYLE = Style.from_dict(
    {"bottom-toolbar": "noreverse", "bottom-toolbar.text": "fg:ansibrightblack"}
)
_HINTS = ("Alt+Enter: new line", "/help")
_APART = " · "


class ChatPrompt:
    """Reads the user's input on a terminal.

    Args:
        session: shown in the bottom line, and the source of completions.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._prompt: PromptSession[str] = PromptSession(
            # So that pasted lines stay one message; _bindings() makes Enter send it.
            multiline=True,
            key_bindings=_bindings(),
            history=_history(),
            search_ignore_case=True,
            enable_open_in_editor=True,
            completer=_Completer(session),
            # A menu that opens over ordinary text would be in the way.
            complete_while_typing=Condition(_is_command),
            reserve_space_for_menu=6,
            prompt_continuation=_continuation,
            bottom_toolbar=self._toolbar,
            style=_STYLE,
            tempfile_suffix=".md",
        )

    async def read(self) -> str | None:
        """Return what the user typed; None at the end; "" for Ctrl-C, which clears it."""
        try:
            return (await self._prompt.prompt_async(self._message)).strip()
        except KeyboardInterrupt:
            return ""
        except EOFError:
            return None

    async def confirm(self, question: str) -> bool:
        """Ask whether to do something; anything but a yes is a no."""
        # A session of its own: a yes does not belong into the history of questions.
        asked: PromptSession[str] = PromptSession()
        try:
            answer = await asked.prompt_async(f"{clean(question)} [y/N] ")
        except (EOFError, KeyboardInterrupt):
            return False
        return answer.strip().lower() in {"y", "yes"}

    def _message(self) -> str:
        """Return the models, if there is room for them and for a question."""
        text = clean(" | ".join(self._session.models))
        room = get_app().output.get_size().columns // 2
        return f"{text}> " if get_cwidth(text) <= room else "> "

    def _toolbar(self) -> str:
        return toolbar(self._session, get_app().output.get_size().columns)


def toolbar(session: Session, width: int) -> str:
    """Return the models, what was used so far, and keys: as much as there is room for."""
    tally = session.tally
    parts = [clean(" | ".join(session.models))]
    parts.append(f"{'' if tally.counted else '~'}{count(tally.tokens)} tokens")
    if (spent := tally.cost) is not None:
        parts.append(money(*spent))
    elif price := session.catalog.price(session.models[0]):
        parts.append(money(0.0, price.currency))
    # The figures go before the name where there is no room for both.
    while parts and get_cwidth(_APART.join(parts)) > width - 1:
        del parts[0]
    for hint in _HINTS:
        if get_cwidth(_APART.join([*parts, hint])) <= width - 1:
            parts.append(hint)
    return _APART.join(parts)


def _continuation(width: int, _line: int, wrapped: int) -> str:
    """Return what stands before a line that the user began, and not one that is only wrapped."""
    return "" if wrapped else ". ".rjust(width)


def _is_command() -> bool:
    return get_app().current_buffer.text.startswith("/")


def _history() -> History:
    try:
        return FileHistory(str(private_file("chat_history")))
    except OSError as error:
        note(f"no history is kept: {error.filename}: {error.strerror}")
        return InMemoryHistory()


def _bindings() -> KeyBindings:
    bindings = KeyBindings()
    at_prompt = has_focus(DEFAULT_BUFFER)  # and not in a search of the history

    @bindings.add("enter", filter=at_prompt)
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.validate_and_handle()

    # Terminals send Alt as an escape before the key. Enter is a carriage return, so the line feed
    # of Ctrl-J is free (see tty_settings).
    @bindings.add("escape", "enter", filter=at_prompt)
    @bindings.add("c-j", filter=at_prompt)
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.newline(copy_margin=False)

    return bindings


class _Completer(Completer):
    """Completes commands, models where a command takes one, and paths where one takes a file."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._paths = PathCompleter(expanduser=True)

    def get_completions(
        self, document: Document, complete_event: CompleteEvent
    ) -> Iterable[Completion]:
        """Return what may stand at the cursor."""
        text = document.text_before_cursor
        # Text of several lines is a message, whatever it begins with.
        if not text.startswith("/") or "\n" in text:
            return
        name, space, argument = text[1:].partition(" ")
        if not space:
            for other, (_, arguments, what) in COMMANDS.items():
                if other.startswith(name):
                    display = f"/{other} {arguments}"
                    yield Completion(other, -len(name), display=display, display_meta=what)
        elif name in {"model", "compare"}:
            models = self._session.catalog.chat_models
            word = argument.rpartition(" ")[2]
            # WORD, as the slashes, dots and hyphens of an id would end a plain word.
            words = FuzzyWordCompleter([clean(model) for model in models], WORD=True)
            yield from words.get_completions(Document(word), complete_event)
        elif name in {"save", "load", "attach"}:
            yield from self._paths.get_completions(Document(argument), complete_event)
