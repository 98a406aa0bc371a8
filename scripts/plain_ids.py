"""A plugin of pytest for ``make mutants``: ids of parameters that a command line can carry.

mutmut names the tests that it runs one by one, and pytest does not find those whose parameters have
brackets, colons or backslashes in their ids.
"""

import re
import zlib
from typing import Any


def pytest_make_parametrize_id(config: Any, val: object, argname: str) -> str:
    """Return a name of letters, digits and underscores for a parameter's value."""
    del config
    if not isinstance(val, str | bytes | int | float | None):
        # Not its repr, which may change as the tests use it; pytest numbers those of one name.
        return f"{argname}_{re.sub(r'[^0-9a-zA-Z]+', '_', getattr(val, '__name__', ''))}"
    text = repr(val)
    shown = re.sub(r"\W+", "_", text, flags=re.ASCII)[:40]
    return f"{argname}_{shown}_{zlib.crc32(text.encode(errors='replace')):08x}"
