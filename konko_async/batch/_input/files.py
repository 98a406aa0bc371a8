"""The files of an input: one, a folder or glob of shards; compressed; JSON arrays."""

from __future__ import annotations

import bz2
import glob
import gzip
import lzma
import shutil
import tempfile
import zlib
from collections.abc import Callable
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO, Final

import msgspec

from konko_async.batch._errors import BatchInputError
from konko_async.batch._input.row_parser import Format
from konko_async.batch._options import Options

__all__ = ["find_files", "json_lines", "open_shard", "unpacked"]

_JSON: Final = (".jsonl", ".ndjson", ".json")
_DATA: Final = (*_JSON, ".csv", ".tsv", ".tab")
_COMPRESSED: Final = (".gz", ".xz", ".bz2", ".zst")
_TEXTS: Final = (".txt", ".md", ".text", ".rst")
_CHUNK: Final = 1 << 20
_MAGIC: Final[dict[bytes, str]] = {
    b"\x1f\x8b": "gzip",
    b"\xfd7zXZ\0": "xz",
    b"BZh": "bz2",
    b"\x28\xb5\x2f\xfd": "zstd",
}
# A file cut short raises EOFError; the errors of lzma and zlib are no OSErrors.
_BROKEN: Final = (OSError, EOFError, lzma.LZMAError, zlib.error)


def find_files(shown: str, form: Format | None) -> list[str]:
    """Return the paths that an input names; none for a folder of text files.

    Args:
        shown: a file, a folder, or a glob such as ``shards/*.jsonl``.
        form: the format, if it was given.

    Raises:
        BatchInputError: a glob that fits no file, or a folder with data and text files.
    """
    path = Path(shown)
    if path.is_dir():
        return _shards(path, form)
    # An existing file whose name holds such a sign is that file, not a pattern.
    if not path.exists() and any(sign in shown for sign in "*?["):
        found = sorted(name for name in glob.glob(shown, recursive=True) if Path(name).is_file())  # noqa: PTH207 - absolute patterns
        if not found:
            raise BatchInputError(f"{shown}: no file fits this pattern")
        return found
    return [shown]


def _shards(folder: Path, form: Format | None) -> list[str]:
    # Sorted, since rows are numbered across all files: on resuming, the order has to be the same.
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    data = [path for path in files if _ending(path).endswith(_DATA)]
    if form == "texts" or not data:
        return []
    texts = [path for path in files if path.name.lower().endswith(_TEXTS)]
    if texts and form is None:
        raise BatchInputError(
            f"{folder}: a folder with {len(data)} data files ({data[0].name}, ...) and "
            f"{len(texts)} text files ({texts[0].name}, ...); say which with format="
        )
    return [str(path) for path in data]


def _ending(path: Path) -> str:
    name = path.name.lower()
    for ending in _COMPRESSED:
        name = name.removesuffix(ending)
    return name


def _temporary(options: Options) -> BinaryIO:
    """Return a file without a name, beside the output: there is room for as much."""
    folder = None if options.output == "-" else Path(options.output).parent
    # Unbuffered, as FileSource needs it, which seeks before each read.
    return tempfile.TemporaryFile(dir=folder, buffering=0)


def open_shard(path: str, options: Options) -> BinaryIO:
    """Open a file for reading; what is compressed is unpacked into a temporary file first.

    Raises:
        BatchInputError: it is damaged, or Python cannot unpack it.
    """
    return unpacked(Path(path).open("rb", buffering=0), path, options)


def unpacked(file: BinaryIO, path: str, options: Options) -> BinaryIO:
    """Return a file, or where it is compressed, a temporary one in its place.

    Raises:
        BatchInputError: it is damaged, or Python cannot unpack it.
    """
    with ExitStack() as opened:
        opened.enter_context(file)
        head = file.read(8)
        file.seek(0)
        # By content, not by name: a compressed file may have lost its ending, or kept it.
        kind = next((kind for magic, kind in _MAGIC.items() if head.startswith(magic)), None)
        if kind is None:
            # The caller closes the file from here on.
            opened.pop_all()
            return file
        target = opened.enter_context(_temporary(options))
        try:
            with _unpackers()[kind](file) as unpacked:
                shutil.copyfileobj(unpacked, target, _CHUNK)
        except _BROKEN as error:
            problem = f"{path}: it cannot be unpacked ({kind}): {error}"
        else:
            target.seek(0)
            opened.pop_all()
            file.close()
            return target
    raise BatchInputError(problem)


def _unpackers() -> dict[str, Callable[[BinaryIO], Any]]:
    return {"gzip": gzip.open, "xz": lzma.open, "bz2": bz2.open, "zstd": _zstd}


def _zstd(file: BinaryIO) -> Any:
    for name in ("compression.zstd", "backports.zstd"):
        try:
            return import_module(name).open(file, "rb")
        except ImportError:
            continue
    try:
        return import_module("zstandard").open(file, "rb")
    except ImportError:
        raise BatchInputError(
            "Zstandard needs Python 3.14 or the package zstandard (pip install zstandard); or "
            "unpack the file first (zstd -d)"
        ) from None


def json_lines(file: BinaryIO, head: bytes, path: str, options: Options) -> BinaryIO:
    """Return the file, or if it is a JSON array, a temporary one with a line for each element.

    The array is held in memory while it is read.

    Raises:
        BatchInputError: it is not JSON.
    """
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    by_name = _ending(Path(path)).endswith(_JSON)
    # In a text file a line may begin with a bracket: only JSON can be an array.
    wanted = by_name if options.format is None else options.format in {"jsonl", "openai"}
    if not start.startswith(b"[") or not wanted:
        return file
    file.seek(0)
    with file:
        data = b"".join(iter(lambda: file.read(_CHUNK), b"")).removeprefix(b"\xef\xbb\xbf")
    try:
        # Raw keeps each element's own bytes: decoded and encoded again,
        # numbers could be spelt differently.
        elements = msgspec.json.decode(data, type=list[msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BatchInputError(f"{path}: a JSON array that cannot be read: {error}") from None
    target = _temporary(options)
    # Line feeds stand only between the tokens of JSON, never in its strings.
    lines = (bytes(element).replace(b"\n", b" ").replace(b"\r", b" ") for element in elements)
    target.write(b"\n".join([*lines, b""]))
    target.seek(0)
    options.notice(
        f"{path}: a JSON array of {len(elements)} elements; each is a row, and its number the line"
    )
    return target
