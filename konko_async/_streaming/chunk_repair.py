"""Joins characters that were cut in two, and puts right deltas that are bare text; pure.

Gateways in JavaScript cut text by UTF-16 units, so that half of an emoji ends one chunk, and the
other half begins the next.
"""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec

from konko_async.wire import ChatCompletionChunk

__all__ = ["ChunkRepair"]

_SURROGATE = rb"\\u[dD][89a-fA-F]"  # escaped: UTF-8 cannot carry one
_HIGH = ("\ud800", "\udbff")
_UNKNOWN = "\ufffd"
_SHARED = ("id", "object", "created", "model")  # what the chunks of a stream have in common


class ChunkRepair:
    """Puts the chunks of one stream right.

    Args:
        kind: the struct of its chunks.
        choices: how many choices were asked for. Of one choice the index says nothing.
    """

    __slots__ = ("_chat", "_halves", "_last", "_single")

    def __init__(self, kind: type, choices: int) -> None:
        self._single = choices == 1
        self._chat = kind is ChatCompletionChunk
        # First halves that wait for the second, by the choice and the field that they are of.
        self._halves: dict[tuple[Any, ...], str] = {}
        self._last: dict[str, Any] = {}  # the chunk that the latest half came in

    @property
    def holds(self) -> bool:
        """Whether half a character waits for the next chunk."""
        return bool(self._halves)

    def mend(self, data: bytes, value: Any) -> bytes | None:
        """Return the JSON of a chunk as it was meant; None if there is nothing to repair.

        Args:
            data: its JSON as received.
            value: the same decoded, halves of characters replaced.
        """
        if not isinstance(value, dict) or not isinstance(value.get("choices"), list):
            return None
        halved = bool(self._halves) or re.search(_SURROGATE, data) is not None
        if halved:
            text = data.decode("utf-8", "replace").removeprefix("\ufeff")
            value = json.loads(text, strict=False)
        choices = [choice for choice in value["choices"] if isinstance(choice, dict)]
        bare = [choice for choice in choices if self._chat and isinstance(choice.get("delta"), str)]
        for choice in bare:
            choice["delta"] = {"content": choice["delta"]}
        if halved:
            for choice in choices:
                self._join_choice(choice, value)
            value = _without_halves(value)
        return msgspec.json.encode(value) if halved or bare else None

    def rest(self) -> bytes | None:
        """Return a chunk that stands for the halves whose other half has not come, or None."""
        choices: dict[Any, dict[str, Any]] = {}
        for index, *path in self._halves:
            if all(isinstance(name, str) for name in path):  # else within a tool's broken arguments
                place = choices.setdefault(index, {"index": index})
                for name in path[:-1]:
                    place = place.setdefault(name, {})
                place[path[-1]] = _UNKNOWN
        self._halves.clear()
        if not choices:
            return None
        return msgspec.json.encode({**self._last, "choices": list(choices.values())})

    def _join_choice(self, choice: dict[str, Any], chunk: dict[str, Any]) -> None:
        index = 0 if self._single and len(chunk["choices"]) == 1 else choice.get("index", 0)
        for name in ("delta", "message", "text"):
            if name in choice:
                choice[name] = self._joined(choice[name], (index, name))
        if self._halves:
            self._last = {name: chunk[name] for name in _SHARED if name in chunk}

    def _joined(self, value: Any, path: tuple[Any, ...]) -> Any:
        """Return text with the half that waited for it; keep back the half that it ends with."""
        if isinstance(value, str):
            text = self._halves.pop(path, "") + value if value else value
            if text and _HIGH[0] <= text[-1] <= _HIGH[1]:
                self._halves[path] = text[-1]
                text = text[:-1]
            return _whole(text)
        if isinstance(value, dict):
            return {name: self._joined(each, (*path, name)) for name, each in value.items()}
        if isinstance(value, list):
            return [
                self._joined(each, (*path, _place(each, number)))
                for number, each in enumerate(value)
            ]
        return value


def _place(item: Any, number: int) -> Any:
    """Return what tells an item of a list from its neighbours, from chunk to chunk."""
    return item.get("index", number) if isinstance(item, dict) else number


def _without_halves(value: Any) -> Any:
    """Return JSON in which no string holds half a surrogate pair; whole pairs are joined."""
    if isinstance(value, str):
        return _whole(value)
    if isinstance(value, dict):
        return {_whole(name): _without_halves(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_without_halves(each) for each in value]
    return value


def _whole(text: str) -> str:
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
