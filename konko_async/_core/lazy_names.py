"""Names of a package that are loaded on first use: what few calls need costs others no import."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

__all__ = ["lazy_names"]


def lazy_names(
    package: str, homes: Mapping[str, str], renamed: Mapping[str, str] | None = None
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return the ``__getattr__`` and the ``__dir__`` of a package.

    Args:
        package: its ``__name__``.
        homes: names of the package, parted by spaces, by the module below it that has them. A
            module that is itself such a name stands for itself.
        renamed: names of earlier versions, which warn, and the names of today.
    """
    home_of = {name: home for home, names in homes.items() for name in names.split()}
    renamed = renamed or {}

    def load(name: str) -> Any:
        if name in renamed:
            return _renamed(package, name, renamed[name])
        home = home_of.get(name)
        if home is None:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module = import_module(f"{package}.{home}")
        found = module if name == home else getattr(module, name)
        # Once found it is an attribute like any other.
        setattr(sys.modules[package], name, found)
        return found

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *home_of})

    return load, names


def _renamed(package: str, old: str, new: str) -> Any:
    import warnings  # noqa: PLC0415 - for names of earlier versions only

    # 3: the line that looked the name up, beyond this function and __getattr__.
    warnings.warn(f"{package}.{old} is now {package}.{new}", DeprecationWarning, stacklevel=3)
    return getattr(sys.modules[package], new)
