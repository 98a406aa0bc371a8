"""How the emulator runs batches."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

RowOutcome: TypeAlias = int | Literal["expired", "lost"] | None
"""A status with which a row fails; "expired": it is not answered in time; "lost": it is in neither
file; `None`: it is answered."""


@dataclass(slots=True)
class BatchSettings:
    """How an emulator runs batches; every attribute may be set while it runs.

    Attributes:
        rows_per_second: The pace of each batch; `None` for as fast as it goes.
        window: Seconds after which a batch expires, whatever its `completion_window` says; `None`
            for never.
        outcome: A function of a row (a decoded line of the input file) that returns what becomes of
            it: a status such as 500, `"expired"` or `"lost"`; `None` for an answer.
        max_rows: Rows above which a batch is refused.
        max_bytes: Size above which a file for a batch is refused.
        max_queued: Rows in all batches that have not ended above which a further one is refused
            with `token_limit_exceeded`; `None` for any number.
        reverse: Whether answers stand in the output in reverse order, which no server promises.
    """

    rows_per_second: float | None = None
    window: float | None = None
    outcome: Callable[[dict[str, Any]], RowOutcome] | None = None
    max_rows: int = 50_000
    max_bytes: int = 200 * 2**20
    max_queued: int | None = None
    reverse: bool = False
