"""The options of a run, checked before anything is opened."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

import msgspec

from konko_async import ConfigurationError
from konko_async.batch._files import Files
from konko_async.batch._pricing import Price
from konko_async.batch._progress import Progress
from konko_async.batch._rows import Format
from konko_async.batch._stop import Stop
from konko_async.batch._workers import Workers

__all__ = ["Options", "piped"]

_FORMATS = (None, "openai", "jsonl", "csv", "texts")


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """The arguments of :func:`~konko_async.batch.run_batch`, which describes them."""

    input: str
    output: str
    format: Format | None
    prompt: str | None
    model: str | None
    system: str | None
    params: dict[str, Any]
    endpoint: str
    max_concurrency: int
    restart: bool
    on_changed_input: Literal["refuse", "redo"]
    retry_failed: bool
    skip_invalid: bool
    limit: int | None
    shuffle: bool | int
    max_cost: float | None
    max_tokens_total: int | None
    prices: Mapping[str, Price] | None
    dry_run: bool
    on_progress: Callable[[Progress], object] | None
    progress_interval: float
    stop: Stop
    checkpoint_rows: int
    checkpoint_seconds: float
    max_line_bytes: int
    max_outage: float
    files: Files
    workers: Workers | None

    def __post_init__(self) -> None:
        if self.format not in _FORMATS:
            raise ConfigurationError(
                f"format must be one of {', '.join(map(str, _FORMATS[1:]))}, not {self.format!r}"
            )
        if self.on_changed_input not in {"refuse", "redo"}:
            raise ConfigurationError(
                f'on_changed_input must be "refuse" or "redo", not {self.on_changed_input!r}'
            )
        for name in ("limit", "max_tokens_total"):
            _check(name, getattr(self, name), whole=True, low=1, optional=True)
        _check("max_cost", self.max_cost, low=0, optional=True)
        for name in ("max_concurrency", "checkpoint_rows", "max_line_bytes"):
            _check(name, getattr(self, name), whole=True, low=1)
        for name in ("progress_interval", "checkpoint_seconds"):
            _check(name, getattr(self, name), low=0.001)
        _check("max_outage", self.max_outage, low=0)
        if self.restart and (self.retry_failed or self.on_changed_input == "redo"):
            raise ConfigurationError(
                "restart=True drops what was done: it cannot go with retry_failed=True or "
                'on_changed_input="redo"'
            )
        if self.output == "-" and (self.retry_failed or self.restart):
            raise ConfigurationError("a pipe as output has no earlier rows to retry or to drop")
        if piped(self) and self.shuffle is not False:
            raise ConfigurationError("from pipe to pipe there is no shuffle=")


def piped(options: Options) -> bool:
    """Whether rows go from pipe to pipe: each is read once, and none is known before."""
    return options.input == "-" and options.output == "-" and not options.dry_run


def _check(
    name: str, value: object, *, low: float, whole: bool = False, optional: bool = False
) -> None:
    if value is None and optional:
        return
    kinds = (int,) if whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds) or not low <= value < math.inf:
        kind = "an integer" if whole else "a number"
        raise ConfigurationError(f"{name} must be {kind} of at least {low:g}, not {value!r}")
