"""Reads docstrings in Google's style: the description, and that of each argument; pure."""

from __future__ import annotations

import inspect
import re

__all__ = ["read_docstring"]

# The package docstring-parser reads more styles, but would be a dependency of every installation
# for one style and 60 lines.
_SECTION = re.compile(
    r"^(Args|Arguments|Parameters|Params|Attributes|Returns?|Yields?|Raises|Examples?|Notes?|"
    r"References|See Also|Todo|Warnings?|Keyword Args|Keyword Arguments|Other Parameters):\s*$"
)
_PARTS = ("Arg", "Param", "Attributes", "Keyword", "Other")
_ENTRY = re.compile(r"^\*{0,2}(\w+)\s*(?:\([^)]*\))?:\s*(.*)$")


def read_docstring(text: str | None) -> tuple[str, dict[str, str]]:
    """Return what a docstring says before its first section, and what of each argument.

    Args:
        text: the docstring. Its ``Args:`` and ``Attributes:`` are read; other sections are skipped.

    Returns:
        The description, and descriptions by name; lines that belong together are joined.
    """
    lines = inspect.cleandoc(text or "").splitlines()
    description: list[str] = []
    parts: dict[str, str] = {}
    section = None
    for place, line in enumerate(lines):
        found = _SECTION.match(line)
        if found:
            section = found[1]
            if section.startswith(_PARTS):
                parts.update(_entries(lines[place + 1 :]))
        elif section is None:
            description.append(line)
        elif line and not line[0].isspace():
            section = None if section.startswith(_PARTS) else section  # prose after a section
    return "\n".join(description).strip(), parts


def _entries(lines: list[str]) -> dict[str, str]:
    """Read ``name (type): what it is`` and the lines that go on, further in."""
    found: dict[str, str] = {}
    name, depth = "", None
    for line in lines:
        if not line.strip():
            continue
        indent = len(line) - len(line.lstrip())
        if indent == 0:
            break
        depth = indent if depth is None else depth
        entry = _ENTRY.match(line.strip()) if indent <= depth else None
        if entry:
            name = entry[1]
            found[name] = entry[2]
        elif name:
            found[name] = f"{found[name]} {line.strip()}".strip()
    return found
