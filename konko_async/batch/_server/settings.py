"""The options of a run that the server makes."""

from __future__ import annotations

import math

import msgspec

from konko_async import ConfigurationError

__all__ = ["ServerSide"]

_WHOLE = ("rows_per_file", "bytes_per_file", "max_jobs", "max_tries")


class ServerSide(msgspec.Struct, frozen=True, kw_only=True):
    """How a run is made by the server (``run_batch(..., server_side=ServerSide(...))``).

    The defaults of the sizes are OpenAI's limits (Batch API guide: 50,000 requests and 200 MB).

    Attributes:
        rows_per_file: rows in one file at most. Default 50,000.
        bytes_per_file: its size at most. Default 200,000,000.
        completion_window: the time in which the server is to end a job. Default ``24h``.
        max_jobs: jobs that the server has at once; None: any number.
        max_tries: how often a row that fails for a reason that passes is submitted. Default 3.
            Rows that expired or were cancelled do not count.
        then_live: rows that failed for such a reason, or expired, are answered by calls of this
            process, once no job is left. Default False: they are submitted again.
        cancel: cancel the jobs that earlier runs have left, take what they have, and end.
        first_poll: seconds between the first two looks at the jobs; then half as much again each
            time. Default 2.
        longest_poll: seconds between two looks at most. Default 60.
        price_factor: what the server asks of its usual prices. Default 0.5.
        delete_files: delete the files from the server once their rows are in the output. Default
            False.

    Raises:
        ConfigurationError: a value cannot be used.
    """

    rows_per_file: int = 50_000
    bytes_per_file: int = 200_000_000
    completion_window: str = "24h"
    max_jobs: int | None = None
    max_tries: int = 3
    then_live: bool = False
    cancel: bool = False
    first_poll: float = 2.0
    longest_poll: float = 60.0
    price_factor: float = 0.5
    delete_files: bool = False

    def __post_init__(self) -> None:
        for name in _WHOLE:
            value = getattr(self, name)
            if value is None and name == "max_jobs":
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigurationError(
                    f"ServerSide: {name} must be an integer of at least 1, not {value!r}"
                )
        for name in ("first_poll", "longest_poll", "price_factor"):
            value = getattr(self, name)
            good = isinstance(value, (int, float)) and 0 <= value < math.inf
            if not good or isinstance(value, bool) or (name != "price_factor" and not value):
                raise ConfigurationError(f"ServerSide: {name} must be a number above 0")
