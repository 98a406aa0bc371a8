"""Where answers are delivered, if that is more than the file of lines that a run writes."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
from collections.abc import Callable, Collection
from hashlib import blake2b
from pathlib import Path, PurePosixPath
from typing import Any, Final, Literal

import msgspec

from konko_async import ConfigurationError
from konko_async.batch._data.storage import is_url, require, shown_url

__all__ = ["COMPRESSORS", "TableTarget"]

Kind = Literal["parquet", "arrow", "csv", "tsv", "jsonl"]
_KINDS: Final[dict[str, Kind]] = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
}
COMPRESSORS: Final[dict[str, Callable[..., Any]]] = {
    ".gz": gzip.open,
    ".xz": lzma.open,
    ".bz2": bz2.open,
}


class TableTarget(msgspec.Struct, frozen=True, kw_only=True):
    """A table, or lines in the order of the input, that is written when a run has ended.

    Attributes:
        path: of it, or its URL.
        kind: what is written.
        compression: ending of the compression, or an empty text.
        columns: names of the columns; None: those of the row, then those of the answer.
        work: the file of lines that the run writes, with its journal beside it.
    """

    path: str
    kind: Kind
    compression: str
    columns: tuple[str, ...] | None
    work: str

    @property
    def shown(self) -> str:
        """Its name in messages."""
        return shown_url(self.path) if is_url(self.path) else self.path

    @property
    def as_table(self) -> bool:
        """Whether it has columns, and not the lines of the run."""
        return self.kind != "jsonl" or self.columns is not None

    @classmethod
    def of(
        cls, output: str | os.PathLike[str], columns: Collection[str] | None, *, ordered: bool
    ) -> TableTarget | None:
        """Return the target that an output means; None for the plain file of lines.

        Raises:
            ConfigurationError: it cannot be written so.
        """
        path = os.fspath(output)
        if isinstance(columns, str):
            raise ConfigurationError("columns must be a list of names, not a text")
        names = None if columns is None else tuple(columns)
        name = PurePosixPath(path.partition("?")[0]) if is_url(path) else Path(path)
        ending = name.suffix.lower()
        compression = ending if ending in {*COMPRESSORS, ".zst"} else ""
        kind = _KINDS.get((name.with_suffix("") if compression else name).suffix.lower(), "jsonl")
        if path == "-":
            if names is not None or ordered:
                raise ConfigurationError("a pipe as output takes neither columns= nor ordered=")
            return None
        if kind == "jsonl" and not compression and not is_url(path) and not names and not ordered:
            return None
        if compression == ".zst" or (compression and kind in {"parquet", "arrow"}):
            raise ConfigurationError(
                f"{path}: an output can be compressed as .gz, .xz or .bz2, unless it is Parquet or "
                "Arrow, which compress by themselves"
            )
        if kind in {"parquet", "arrow"}:  # now, and not after hours of work
            require("pyarrow", shown_url(path))
        if is_url(path):
            require("fsspec", shown_url(path))
        return cls(
            path=path,
            kind=kind,
            compression=compression,
            columns=names,
            work=_work(path, name.name),
        )


def _work(path: str, name: str) -> str:
    if not is_url(path):
        return f"{path}.work.jsonl"
    # In this folder, under a name of its own: a journal cannot stand on other people's storage.
    return f"{name}-{blake2b(path.encode(), digest_size=4).hexdigest()}.work.jsonl"
