"""Conversations as files: Markdown to be read, JSON to be worked with; both can be loaded again."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import msgspec

from konko_async.cli._state import replace_file
from konko_async.cli.chat.conversation import Conversation, shown_text

__all__ = ["NotSaved", "Saved", "load", "path_of", "save", "written"]

# Bytes: far more than any conversation, so that a wrong path does not fill the memory.
_LARGEST = 64 * 1024 * 1024
_MARK = re.compile(r"<!-- konko-async:(\d+) (\{.*\}) -->")
_NAMES = {"user": "You", "assistant": "Answer"}


class NotSaved(Exception):  # noqa: N818 - shown to the user, who can try another path
    """A file could not be written or read."""


class _SavedMessage(msgspec.Struct):
    """One message; ``content`` is a list of parts where images were attached."""

    role: str
    content: str | list[dict[str, Any]]


class Saved(msgspec.Struct, omit_defaults=True):
    """The content of a saved conversation."""

    model: str
    messages: list[_SavedMessage]
    parameters: dict[str, Any] = {}


def path_of(text: str) -> Path:
    """Return the path that a user typed: ``~`` is the home folder, quotes are taken off."""
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        text = text[1:-1]
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise NotSaved(str(error)) from None


def save(path: Path, model: str, conversation: Conversation, *, overwrite: bool) -> None:
    """Write a conversation to a file that only this user can read.

    Args:
        path: JSON if it ends in ``.json``, else Markdown.
        model: that answered.
        conversation: is written.
        overwrite: whether a file that is there is replaced.

    Raises:
        FileExistsError: there is a file, and ``overwrite`` is false.
        NotSaved: it cannot be written.
    """
    data = written(model, conversation, as_json=path.suffix.lower() == ".json").encode()
    try:
        if overwrite and path.is_file():
            # Resolved, so that a symbolic link stays one, and its target is replaced.
            replace_file(path.resolve(), data)
        else:
            _create(path, data)
    except FileExistsError:
        if path.is_file():
            raise
        raise NotSaved(f"{path} is there, and is no file") from None
    except (OSError, ValueError) as error:
        raise NotSaved(_told(path, error)) from None


def written(model: str, conversation: Conversation, *, as_json: bool) -> str:
    """Return a conversation as the text of a file that :func:`load` reads."""
    messages = [_SavedMessage(**message) for message in conversation.messages]
    saved = Saved(model, messages, conversation.parameters)
    return _as_json(saved) if as_json else _as_markdown(saved)


def _create(path: Path, data: bytes) -> None:
    # O_EXCL: a file that has come into being since is not overwritten, nor is a link followed.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)


def _told(path: Path, error: Exception) -> str:
    return f"{path}: {getattr(error, 'strerror', None) or error}"


def load(path: Path) -> Saved:
    """Read what :func:`save` wrote, or JSON with OpenAI's ``messages``.

    Raises:
        NotSaved: it cannot be read.
    """
    try:
        if path.stat().st_size > _LARGEST:
            raise NotSaved(f"{path} is too large for a conversation")
        text = path.read_bytes().decode().removeprefix("\ufeff")
    except UnicodeDecodeError:
        raise NotSaved(f"{path} is not UTF-8 text") from None
    except (OSError, ValueError) as error:
        raise NotSaved(_told(path, error)) from None
    try:
        saved = _from_json(text) if text.lstrip()[:1] in {"{", "["} else _from_markdown(text)
    except msgspec.MsgspecError as error:
        raise NotSaved(f"{path} is no conversation: {error}") from None
    roles = {message.role for message in saved.messages}
    if not saved.messages or not roles <= {"system", "user", "assistant"}:
        raise NotSaved(f"{path} is no conversation of system, user and assistant")
    return saved


def _as_json(saved: Saved) -> str:
    return msgspec.json.format(msgspec.json.encode(saved), indent=2).decode() + "\n"


def _from_json(text: str) -> Saved:
    if text.lstrip().startswith("["):
        return Saved("", msgspec.json.decode(text, type=list[_SavedMessage]))
    found = msgspec.json.decode(text, type=dict[str, Any])
    return msgspec.convert({"model": "", **found}, Saved)


def _as_markdown(saved: Saved) -> str:
    """Write headings to be read, and comments to be loaded from."""
    # A number that no message has, so that no answer is taken for the beginning of the next.
    number = 0
    while any(f"konko-async:{number} " in str(message.content) for message in saved.messages):
        number += 1

    def mark(what: dict[str, Any]) -> str:
        # An address in it must not end the comment.
        data = msgspec.json.encode(what).decode().replace("-->", "--\\u003e")
        return f"<!-- konko-async:{number} {data} -->"

    head = {"model": saved.model, "parameters": saved.parameters}
    parts = [mark(head), f"# A conversation with {saved.model}"]
    for message in saved.messages:
        name = _NAMES.get(message.role, message.role.capitalize())
        about: dict[str, Any] = {"role": message.role}
        if not isinstance(message.content, str):
            about["parts"] = message.content  # what is shown of an image is not the image
        parts.append(f"## {name}\n\n{mark(about)}\n{shown_text(message.content)}")
    return "\n\n".join(parts) + "\n"


def _from_markdown(text: str) -> Saved:
    first = _MARK.match(text)
    if first is None:
        raise msgspec.ValidationError("neither JSON nor Markdown that /save wrote")
    head = msgspec.json.decode(first[2], type=dict[str, Any])
    marks = [found for found in _MARK.finditer(text) if found[1] == first[1]][1:]
    ends = [*(found.start() for found in marks[1:]), len(text)]
    messages = []
    # Not strict: where there is no message, there is an end all the same.
    for found, end in zip(marks, ends, strict=False):
        about = msgspec.json.decode(found[2], type=dict[str, Any])
        role, content = about.get("role", ""), about.get("parts")
        if content is not None:
            messages.append(_SavedMessage(role, content))
            continue
        content = text[found.end() + 1 : end]
        if end < len(text):  # the heading of the next one
            content = content[: content.rindex("\n\n## ")]
        else:
            content = content.removesuffix("\n")
        messages.append(_SavedMessage(role, content))
    return msgspec.convert(
        {"parameters": {}, **head, "messages": messages}, Saved, from_attributes=True
    )
