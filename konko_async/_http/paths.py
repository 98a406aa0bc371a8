"""Paths of single things on the server, made of their ids."""

from __future__ import annotations

from urllib.parse import quote

from konko_async.errors import ConfigurationError

__all__ = ["id_path"]


def id_path(folder: str, name: str, id: object, after: str = "") -> str:
    """Return the path of a file or a batch; its id is one segment, whatever is in it.

    Args:
        folder: with slashes at both ends, such as ``/files/``.
        name: of the argument, for the error.
        id: the id.
        after: what follows it.

    Raises:
        ConfigurationError: not a usable id; it is not echoed.
    """
    if not isinstance(id, str) or not id.strip(".") or not id.isprintable():
        raise ConfigurationError(f"{name} must be an id that the server gave")
    return folder + quote(id, safe="") + after
