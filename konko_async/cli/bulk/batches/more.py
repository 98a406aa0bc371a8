"""The options of typed rows, shards and the notice at a run's end."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from konko_async.cli._options import decorated
from konko_async.cli.bulk.batches.webhook import check_webhook

__all__ = ["more_options", "read_more"]


def _webhook(_context: Any, _option: Any, value: str | None) -> str | None:
    return None if value is None else check_webhook(value)


def _steps(_context: Any, _option: Any, values: tuple[str, ...]) -> list[tuple[str, str]] | None:
    """Read steps such as ``check=Is this right? {answer}``."""
    found = []
    for value in values:
        name, sign, prompt = value.partition("=")
        if not sign or not name.strip() or not prompt:
            raise click.BadParameter(f"{value!r:.60} is not NAME=PROMPT")
        found.append((name.strip(), prompt))
    return found or None


_OPTIONS = (
    click.option(
        "--step",
        "steps",
        multiple=True,
        metavar="NAME=PROMPT",
        callback=_steps,
        help="One of several prompts for each row, in place of --prompt: with fields of the row, "
        "{answer} of the step before, and all results as {NAME}. May be repeated.",
    ),
    click.option(
        "--schema",
        metavar="FILE",
        help="JSON Schema that the answer of each chat row is to fit; its value is `value` in OUT.",
    ),
    click.option(
        "--max-reasks",
        type=click.IntRange(0),
        metavar="N",
        default=1,
        show_default=True,
        help="With --schema: how often an answer that does not fit is requested again.",
    ),
    click.option(
        "--shard",
        metavar="I/N",
        help="Process every Nth row, from row I on; `konko-async merge` joins the outputs.",
    ),
    click.option(
        "--webhook",
        metavar="URL",
        callback=_webhook,
        help="POST the run's figures to URL at its end: https, or this machine; no prompts.",
    ),
)


def more_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options; :func:`read_more` reads them."""
    return decorated(function, _OPTIONS)


def read_more(options: dict[str, Any]) -> dict[str, Any]:
    """Take the options out of ``options``; returns arguments of ``run_batch``.

    Raises:
        click.UsageError: the schema's file cannot be read.
    """
    path = options.pop("schema")
    found = {"max_reasks": options.pop("max_reasks"), "shard": options.pop("shard")}
    if path is not None:
        found["response_format"] = _read_schema(path)
    return found


def _read_schema(path: str) -> Any:
    import msgspec  # noqa: PLC0415 - --help does without

    try:
        return msgspec.json.decode(Path(path).read_bytes(), type=dict[str, Any])
    except OSError as error:
        problem = error.strerror
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        problem = str(error)
    raise click.UsageError(f"--schema: {path}: {problem}")
