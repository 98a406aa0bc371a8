"""Reads prices from the command line, and from a file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import click
import msgspec

from konko_async.batch import Price

__all__ = ["read_prices"]

_MILLION = 1e6


# Without forbid_unknown_fields, a misspelt "cached" would be ignored, and its price with it.
class _Entry(msgspec.Struct, forbid_unknown_fields=True):
    """A model's prices for a million tokens, in dollars."""

    prompt: float = msgspec.field(name="in")
    completion: float = msgspec.field(name="out", default=0.0)
    cached: float | None = None


def read_prices(
    path: str | None, prompt: float | None, completion: float | None, cached: float | None
) -> Mapping[str, Price] | None:
    """Return prices by model; ``"*"`` stands for models that are not named.

    Args:
        path: of a JSON file with prices by model, or None.
        prompt: for a million prompt tokens, or None.
        completion: for a million output tokens, or None.
        cached: for a million cached prompt tokens, or None: as other prompt tokens.

    Returns:
        None if nothing was given: then the server's model list is requested.

    Raises:
        click.UsageError: the file cannot be read, or a price is missing.
    """
    found: dict[str, Price] = {}
    if path is not None:
        try:
            entries = msgspec.json.decode(Path(path).read_bytes(), type=dict[str, _Entry])
        except OSError as error:
            raise click.UsageError(f"--prices: {path}: {error.strerror}") from None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise click.UsageError(f"--prices: {path}: {error}") from None
        found = {
            model: _price(entry.prompt, entry.completion, entry.cached)
            for model, entry in entries.items()
        }
    if prompt is not None:
        # Prices of the file come first: "*" is looked up only for models that it does not name.
        found["*"] = _price(prompt, completion or 0.0, cached)
    elif completion is not None or cached is not None:
        raise click.UsageError("--price-out and --price-cached need --price-in")
    # None lets run_batch() read the server's model list; an empty mapping would mean "no prices".
    return found or None


def _price(prompt: float, completion: float, cached: float | None) -> Price:
    return Price(
        prompt / _MILLION,
        completion / _MILLION,
        cached=None if cached is None else cached / _MILLION,
    )
