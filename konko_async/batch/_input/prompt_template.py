"""Prompt templates: ``Summarise: {text}``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from konko_async import ConfigurationError

__all__ = ["Template"]

_BRACES = re.compile(r"\{\{|\}\}|\{([^{}\n]{1,200})\}")
# What stands in braces is a field if the row has one of that name, or if it looks like a name:
# {Review Text}, {product-id}. Other braces, as in JSON or LaTeX, stand for themselves.
_NAME = re.compile(r"[^\W\d][^\"':;=<>|\\,\[\]]*(?<!\s)")


class Template:
    """A text with ``{names}`` of fields; ``{{`` and ``}}`` are braces, as are all others.

    A name may have spaces, as columns of spreadsheets do. The values are put in as they are: braces
    in them mean nothing, and no attribute or index of theirs can be reached.

    Args:
        text: the template.

    Attributes:
        names: of the fields, in their order.
        candidates: these, and what else stands in braces and may be the name of a field.

    Raises:
        ConfigurationError: not a text, or one without a field.
    """

    def __init__(self, text: str) -> None:
        if not isinstance(text, str):
            raise ConfigurationError(f"prompt must be a text, not {type(text).__name__}")
        self._parts: list[str] = []  # text, name, text, name, ..., text
        self.candidates: list[str] = []
        literal, place = "", 0
        for match in _BRACES.finditer(text):
            literal += text[place : match.start()]
            place = match.end()
            if match[1] is None:
                literal += match[0][0]
            else:
                self._parts += [literal, match[1]]
                self.candidates.append(match[1])
                literal = ""
        self._parts.append(literal + text[place:])
        # These every row must have; the other candidates are fields
        # only where a row has one of that name.
        self.names = [name for name in self.candidates if _NAME.fullmatch(name)]
        if not self.candidates:
            raise _no_field()

    def check(self, columns: Iterable[str]) -> None:
        """See that all fields are among those that every row has.

        Raises:
            ConfigurationError: one is not, or the template has none of them.
        """
        known = list(columns)
        for name in self.names:
            if name not in known:
                raise ConfigurationError(
                    f"the prompt asks for {{{name}}}; the columns are {', '.join(known)} "
                    f"(write {{{{{name}}}}} if the braces are text)"
                )
        if not set(self.candidates) & set(known):
            raise _no_field()

    def fill(self, fields: Mapping[str, Any]) -> str:
        """Return the text with the fields put in; what is no text goes in as JSON.

        Raises:
            ValueError: a field is missing.
        """
        out = list(self._parts)
        filled = False
        for place, name in enumerate(self.candidates):
            value = fields.get(name)
            # A JSON null counts as missing: a prompt with "null" in it is hardly what was meant.
            if value is None:
                # It does not look like a name and is no field: part
                # of the text, such as JSON or LaTeX.
                if name not in self.names and name not in fields:
                    out[2 * place + 1] = f"{{{name}}}"
                    continue
                known = ", ".join(str(field) for field in list(fields)[:20])
                raise ValueError(
                    f"the prompt asks for {{{name}}}; the row has {known or 'nothing'}"
                )
            if not isinstance(value, str):
                value = msgspec.json.encode(value).decode()
            out[2 * place + 1] = value
            filled = True
        # All candidates stood for themselves: every row would send the same prompt.
        if not filled:
            raise ValueError("the prompt has no field of this row")
        return "".join(out)


def _no_field() -> ConfigurationError:
    return ConfigurationError(
        "prompt has no field such as {text}: every row would get the same answer"
    )
