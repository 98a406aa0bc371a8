"""The question: the prompt, what is piped in, a template, a JSON Schema."""

from __future__ import annotations

import json
import re
import select
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from konko_async.cli._output import is_terminal, note
from konko_async.cli.settings.config_file import SavedTemplate

__all__ = ["check_answer", "filled", "question", "read_schema", "response_format"]

_PATIENCE = 2.0  # seconds that standard input may be silent before a hint is shown
_PLACEHOLDER = re.compile(r"\{\{|\}\}|\{([A-Za-z_]\w*)\}")
_SCHEMA_NAME = re.compile(r"[^A-Za-z0-9_-]+")
_INPUT = "input"


def question(prompt: str | None) -> str:
    """Return the prompt, and after it what is piped in; ``-`` stands for that alone.

    Raises:
        click.UsageError: one of them is not text.
    """
    try:
        if prompt is None or prompt == "-":
            return _piped()
        # Bytes of the command line that are not text arrive as lone surrogates (PEP 383), which
        # JSON cannot carry.
        prompt.encode()
        piped = "" if is_terminal(sys.stdin) else _piped()
    except (UnicodeDecodeError, UnicodeEncodeError) as error:
        raise click.UsageError(f"the prompt is not {error.encoding} text") from None
    return f"{prompt}\n\n{piped}" if piped.strip() else prompt


def _piped() -> str:
    if not is_terminal(sys.stdin) and _is_silent():
        note("waiting for the end of standard input (</dev/null where there is none)")
    # Strictly: by default Python turns bytes that are not text into lone surrogates.
    return sys.stdin.buffer.read().decode(sys.stdin.encoding).removeprefix("\ufeff")


def _is_silent() -> bool:
    try:
        return not select.select([sys.stdin], [], [], _PATIENCE)[0]
    except (OSError, ValueError):  # Windows knows sockets only
        return False


# -- templates -----------------------------------------------------------------------------------


def filled(template: SavedTemplate, text: str | None, given: Mapping[str, str]) -> str | None:
    """Return a template's prompt with the values in it.

    Args:
        template: whose prompt it is.
        text: stands for ``{input}``; None or empty: there is none.
        given: the other values, by name.

    Returns:
        The question; None if there is neither a prompt nor a text.

    Raises:
        click.UsageError: a value is missing, or one is given that the prompt does not name.
    """
    if template.prompt is None:
        if given:
            raise click.UsageError("--param is given, but the template has no prompt")
        return text or None
    names = {found[1] for found in _PLACEHOLDER.finditer(template.prompt)} - {None}
    if unknown := sorted(given.keys() - names):
        raise click.UsageError(f"the template's prompt has no {{{unknown[0]}}}")
    values = {**given, **({_INPUT: text} if text else {})}
    if missing := sorted(names - values.keys()):
        if missing == [_INPUT]:
            raise click.UsageError("the template needs a prompt, or text from a pipe")
        wanted = next(name for name in missing if name != _INPUT)
        raise click.UsageError(f"the template needs --param {wanted}=TEXT")

    def value(found: re.Match[str]) -> str:
        return values[found[1]] if found[1] else found[0][0]

    asked = _PLACEHOLDER.sub(value, template.prompt)
    # A prompt that does not say where the text goes has it at its end.
    return asked if _INPUT in names or not text else f"{asked}\n\n{text}"


# -- JSON Schema ---------------------------------------------------------------------------------


def read_schema(path: Path) -> dict[str, Any]:
    """Read a JSON Schema from a file.

    Raises:
        click.UsageError: it cannot be read, or is no schema.
    """
    try:
        schema = json.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "not UTF-8 text"
        raise click.UsageError(f"the schema {path}: {why}") from None
    except json.JSONDecodeError as error:
        raise click.UsageError(f"the schema {path} is not JSON: {error}") from None
    if not isinstance(schema, dict) or not schema.keys() & {"type", "properties", "$ref", "anyOf"}:
        raise click.UsageError(
            f'the schema {path} is no JSON Schema: it needs a "type", such as "object"'
        )
    return schema


def response_format(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the parameter that asks a server for answers of a schema."""
    name = _SCHEMA_NAME.sub("_", str(schema.get("title") or "answer"))[:64]
    # Not strict: OpenAI's strict mode refuses most schemas that people have.
    return {"type": "json_schema", "json_schema": {"name": name, "schema": schema}}


def check_answer(text: str, schema: dict[str, Any]) -> str | None:
    """Return what is wrong with an answer that should be JSON of a schema; None if nothing is.

    Servers that do not know the parameter ignore it, so what they send is looked at: that it is
    JSON, of the schema's type, with the properties that are required. It is no full validation.
    """
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        return f"the answer is not JSON ({error}): this server or model may not know --schema"
    kinds = {"object": dict, "array": list, "string": str, "boolean": bool}
    kind = schema.get("type")
    if isinstance(kind, str) and kind in kinds and not isinstance(value, kinds[kind]):
        return f"the answer is no JSON {kind}, as the schema demands"
    if isinstance(value, dict):
        missing = [name for name in schema.get("required", ()) if name not in value]
        if missing:
            return f"the answer lacks {', '.join(missing)}, which the schema requires"
    return None
