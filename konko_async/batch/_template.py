"""Prompt templates: ``Summarise: {text}``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from konko_async import ConfigurationError

__all__ = ["Template"]

# Only {name} is a place to fill; any other brace, as in JSON, stands for itself.
_FIELD = re.compile(r"\{\{|\}\}|\{([^\W\d]\w*)\}")


class Template:
    """A text with ``{names}`` of fields; ``{{`` and ``}}`` are braces, as are all others.

    The values are put in as they are: braces in them mean nothing, and no attribute or index of
    theirs can be reached.

    Args:
        text: the template.

    Attributes:
        names: of the fields, in their order.

    Raises:
        ConfigurationError: not a text, or one without a field.
    """

    def __init__(self, text: str) -> None:
        if not isinstance(text, str):
            raise ConfigurationError(f"prompt must be a text, not {type(text).__name__}")
        self._parts: list[str] = []  # text, name, text, name, ..., text
        self.names: list[str] = []
        literal, place = "", 0
        for match in _FIELD.finditer(text):
            literal += text[place : match.start()]
            place = match.end()
            if match[1] is None:
                literal += match[0][0]
            else:
                self._parts += [literal, match[1]]
                self.names.append(match[1])
                literal = ""
        self._parts.append(literal + text[place:])
        if not self.names:
            raise ConfigurationError(
                "prompt has no field such as {text}: every row would get the same answer"
            )

    def fill(self, fields: Mapping[str, Any]) -> str:
        """Return the text with the fields put in; what is no text goes in as JSON.

        Raises:
            ValueError: a field is missing.
        """
        out = list(self._parts)
        for place, name in enumerate(self.names):
            value = fields.get(name)
            if value is None:
                known = ", ".join(str(field) for field in list(fields)[:20])
                raise ValueError(
                    f"the prompt asks for {{{name}}}; the row has {known or 'nothing'}"
                )
            if not isinstance(value, str):
                value = msgspec.json.encode(value).decode()
            out[2 * place + 1] = value
        return "".join(out)
