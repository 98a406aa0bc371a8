"""Files on other people's storage (S3, GCS, HTTP, ...), by fsspec."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from importlib import import_module
from typing import Any, BinaryIO, Final

from konko_async import ConfigurationError
from konko_async.batch._errors import BatchInputError, BatchOutputError

__all__ = ["download", "is_url", "require", "shown_url", "upload"]

_URL: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+(://|::)")
_CHUNK: Final = 1 << 20
_LOGIN: Final = re.compile(r"(?<=://)[^/@]*@")


def is_url(path: str) -> bool:
    """Whether a path is one for fsspec: ``s3://bucket/in.parquet``, ``https://host/in.csv``."""
    return _URL.match(path) is not None


def shown_url(url: str) -> str:
    """Return a URL as messages show it: without a login, and without its query."""
    return _LOGIN.sub("", url).partition("?")[0]


def require(module: str, what: str) -> Any:
    """Import a module of the extra ``data``.

    Raises:
        ConfigurationError: it is not installed; says what needs it.
    """
    try:
        return import_module(module)
    except ImportError:
        raise ConfigurationError(
            f"{what} needs the extra `data`: pip install 'konko-async[data]'"
        ) from None


def download(url: str, target: BinaryIO, tick: Callable[[], object]) -> None:
    """Copy what is at a URL into a file. Blocks.

    Raises:
        BatchInputError: it cannot be read.
    """
    fsspec = require("fsspec", shown_url(url))
    try:
        with fsspec.open(url, "rb") as source:
            while data := source.read(_CHUNK):
                target.write(data)
                tick()
    except (OSError, ValueError, ImportError) as error:
        problem = _said(error)
    else:
        return
    raise BatchInputError(f"{shown_url(url)} cannot be read: {problem}")


def upload(path: str, url: str) -> None:
    """Copy a file to a URL. Blocks.

    Raises:
        BatchOutputError: it cannot be written.
    """
    fsspec = require("fsspec", shown_url(url))
    try:
        with open(path, "rb") as source, fsspec.open(url, "wb") as target:  # noqa: PTH123 - a text
            shutil.copyfileobj(source, target, _CHUNK)
    except (OSError, ValueError, ImportError, NotImplementedError) as error:
        problem = _said(error)
    else:
        return
    raise BatchOutputError(
        f"{shown_url(url)} cannot be written: {problem}; the answers are safe, and the same call "
        "writes it again"
    )


def _said(error: Exception) -> str:
    # fsspec's errors for a missing file are often just its name, with the login in it.
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    kind = "no such file: " if isinstance(error, FileNotFoundError) else ""
    shown = " ".join(shown_url(word) if is_url(word) else word for word in str(text).split())
    return f"{kind}{shown}" if os.strerror(2) not in shown else shown
