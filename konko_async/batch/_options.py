"""The options of a run, checked before anything is opened."""

from __future__ import annotations

import logging
import math
import os
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Literal, Self

import msgspec

from konko_async import ConfigurationError
from konko_async.batch._data.arrow_table import is_frame
from konko_async.batch._data.storage import is_url, shown_url
from konko_async.batch._data.target import TableTarget
from konko_async.batch._input.row_parser import Format
from konko_async.batch._output.filesystem import Filesystem
from konko_async.batch._output.row_results import RowResult
from konko_async.batch._pricing import Price
from konko_async.batch._progress import Progress
from konko_async.batch._server.settings import ServerSide
from konko_async.batch._steps.plan import Step, StepPlan, plan_of
from konko_async.batch._stop import Stop
from konko_async.batch._typed.typed_rows import RowType, row_type
from konko_async.batch._workers.protocol import Workers

__all__ = ["Options", "piped"]

_FORMATS = (None, "openai", "jsonl", "csv", "lines", "texts")


_SHARED_ROWS = 50  # finished rows below which a share of failures is not judged
_FAIL_ON = ("empty", "length", "content_filter", "refusal")
_SHARD = re.compile(r"\s*(\d{1,6})\s*/\s*(\d{1,6})\s*")
_SHARE = re.compile(r"(\d+(?:\.\d+)?)\s*%")

_log = logging.getLogger("konko_async")


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
    id_column: str | None
    fail_on: frozenset[str]
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
    max_attempts: int | None
    max_failures: int | str | None
    max_failures_in_a_row: int | None
    on_notice: Callable[[str], object] | None
    files: Filesystem
    workers: Workers | None
    server_side: ServerSide | None
    typed: RowType | None
    plan: StepPlan | None
    shard: tuple[int, int] | None
    on_row: Callable[[RowResult], object] | None
    data: Any = None
    target: TableTarget | None = None

    def __post_init__(self) -> None:
        if self.format not in _FORMATS:
            raise ConfigurationError(
                f"format must be one of {', '.join(map(str, _FORMATS[1:]))}, not {self.format!r}"
            )
        if self.on_changed_input not in {"refuse", "redo"}:
            raise ConfigurationError(
                f'on_changed_input must be "refuse" or "redo", not {self.on_changed_input!r}'
            )
        unknown = self.fail_on - set(_FAIL_ON)
        if unknown:
            raise ConfigurationError(
                f"fail_on takes {', '.join(_FAIL_ON)}, not {', '.join(sorted(unknown))}"
            )
        for name in ("limit", "max_tokens_total", "max_attempts", "max_failures_in_a_row"):
            _check(name, getattr(self, name), whole=True, low=1, optional=True)
        _check("max_cost", self.max_cost, low=0, optional=True)
        for name in ("max_concurrency", "checkpoint_rows", "max_line_bytes"):
            _check(name, getattr(self, name), whole=True, low=1)
        for name in ("progress_interval", "checkpoint_seconds"):
            _check(name, getattr(self, name), low=0.001)
        _check("max_outage", self.max_outage, low=0)
        # Called only for its check: a bad max_failures is to be refused
        # now, not at the first failed row.
        self.failures_allowed(0)
        self._check_together()

    def _check_together(self) -> None:
        """Refuse options that contradict each other."""
        if self.restart and (self.retry_failed or self.on_changed_input == "redo"):
            raise ConfigurationError(
                "restart=True drops what was done: it cannot go with retry_failed=True or "
                'on_changed_input="redo"'
            )
        if self.output == "-" and (self.retry_failed or self.restart):
            raise ConfigurationError("a pipe as output has no earlier rows to retry or to drop")
        # A permutation needs the number of rows, which a pipe has only at its end.
        if piped(self) and self.shuffle is not False:
            raise ConfigurationError("from pipe to pipe there is no shuffle=")
        if self.plan is not None and (self.workers is not None or self.server_side is not None):
            raise ConfigurationError(
                "steps= run in this process: they exclude workers= and server_side="
            )
        if self.shard is not None and self.target is not None:
            raise ConfigurationError(
                "shard= writes lines (OUT.jsonl): merge the shards, then the same call without "
                "shard= writes a table"
            )
        if self.server_side is not None and self.output == "-":
            raise ConfigurationError(
                "server_side= needs a file as output: jobs outlive this process, and are taken up "
                "by the file beside it"
            )

    @classmethod
    def of(
        cls,
        input_path: Any,
        output_path: str | os.PathLike[str],
        *,
        columns: Collection[str] | None,
        ordered: bool,
        params: Mapping[str, Any] | None,
        fail_on: Collection[str],
        stop: Stop | None,
        server_side: bool | ServerSide,
        response_format: Any,
        max_reasks: int,
        shard: str | tuple[int, int] | None,
        steps: Sequence[Step | tuple[str, str]] | None,
        **rest: Any,
    ) -> Self:
        """Make them of the arguments, under the same names."""
        # A string is a collection too, of its letters: "empty" would be refused letter by letter.
        fail_on = (fail_on,) if isinstance(fail_on, str) else fail_on
        portable = rest.get("workers") is not None
        typed = row_type(response_format, max_reasks, portable=portable)
        params = _with_format(params, typed)
        plan = plan_of(
            steps,
            prompt=rest["prompt"],
            params=params,
            system=rest["system"],
            endpoint=rest["endpoint"],
        )
        if plan is not None:  # its first step is the request that a record becomes
            first = plan.steps[0]
            params = {**params, **first.params}
            rest |= {"prompt": first.prompt, "system": first.system or rest["system"]}
            rest["model"] = first.model or rest["model"]
        named = isinstance(input_path, (str, os.PathLike))
        if not named and not isinstance(input_path, Iterable) and not is_frame(input_path):
            raise ConfigurationError(
                "the input must be a path, a frame, a data set or rows, not "
                f"{type(input_path).__name__}"
            )
        target = TableTarget.of(output_path, columns, ordered=ordered)
        name = os.fspath(input_path) if named else f"<{type(input_path).__name__}>"
        remote = is_url(name)
        return cls(
            input=shown_url(name) if remote else name,
            data=input_path if remote or not named else None,
            output=os.fspath(output_path) if target is None else target.work,
            target=target,
            params=params,
            typed=typed,
            plan=plan,
            shard=_shard(shard),
            fail_on=frozenset(fail_on),
            stop=stop or Stop(),
            server_side=_server_side(server_side),
            **rest,
        )

    def notice(self, text: str) -> None:
        """Give the user a line about what happens to the run."""
        if self.on_notice is None:
            _log.warning("%s", text)
            return
        try:
            self.on_notice(text)
        except Exception:  # noqa: BLE001 - an observer must not break the run
            _log.exception("on_notice failed")

    def takes(self, index: int) -> bool:
        """Whether a row belongs to this shard."""
        return self.shard is None or index % self.shard[1] == self.shard[0] - 1

    def own_rows(self, rows: int) -> int:
        """Return how many of the input's rows belong to this shard."""
        if self.shard is None:
            return rows
        number, count = self.shard
        return (rows - number) // count + 1 if rows >= number else 0

    def failures_allowed(self, finished: int) -> float:
        """Return how many of ``finished`` rows may have failed before the run ends.

        Raises:
            ConfigurationError: ``max_failures`` is neither a number nor a share such as ``"5%"``.
        """
        value = self.max_failures
        if value is None:
            return math.inf
        match = _SHARE.fullmatch(value.strip()) if isinstance(value, str) else None
        if match is not None and float(match[1]) <= 100:  # noqa: PLR2004 - per cent
            # A share of the first few rows says nothing.
            return float(match[1]) / 100 * max(finished, _SHARED_ROWS)
        if isinstance(value, str) and value.strip().isdecimal():
            return int(value)
        _check("max_failures", value, whole=True, low=0)
        return float(value)


def _shard(given: object) -> tuple[int, int] | None:
    """Read a shard such as ``"3/16"``."""
    if given is None:
        return None
    found = given
    if isinstance(given, str):
        match = _SHARD.fullmatch(given)
        found = None if match is None else (int(match[1]), int(match[2]))
    if isinstance(found, tuple) and len(found) == 2:  # noqa: PLR2004 - a pair
        number, count = found
        if type(number) is int and type(count) is int and 1 <= number <= count:
            return number, count
    raise ConfigurationError(
        f'shard must be a number of a number of shards, such as "3/16", not {given!r:.40}'
    )


def _with_format(params: Mapping[str, Any] | None, typed: RowType | None) -> dict[str, Any]:
    """Return the parameters with the format: it is a part of what is asked."""
    found = dict(params or {})
    if typed is not None:
        found["response_format"] = typed.wire
    return found


def _server_side(given: object) -> ServerSide | None:
    if isinstance(given, ServerSide):
        return given
    if given is None or isinstance(given, bool):
        return ServerSide() if given else None
    raise ConfigurationError(
        f"server_side must be True, False or a ServerSide, not {type(given).__name__}"
    )


def piped(options: Options) -> bool:
    """Whether rows go from pipe to pipe: each is read once, and none is known before."""
    return options.input == "-" and options.output == "-" and not options.dry_run


def _check(
    name: str, value: object, *, low: float, whole: bool = False, optional: bool = False
) -> None:
    if value is None and optional:
        return
    kinds = (int,) if whole else (int, float)
    # bool is an int in Python. The comparison is negated as a whole so that NaN, for which every
    # comparison is false, is refused as well.
    if isinstance(value, bool) or not isinstance(value, kinds) or not low <= value < math.inf:
        kind = "an integer" if whole else "a number"
        raise ConfigurationError(f"{name} must be {kind} of at least {low:g}, not {value!r}")
