"""The entry point: works, as far as to say what is missing, without the extra ``cli``."""

import sys
from importlib import import_module
from typing import NoReturn

_NEEDED = {"click", "rich", "prompt_toolkit"}
_MISSING = "konko-async: the command line needs its extra: pip install 'konko-async[cli]'\n"


def main() -> NoReturn:
    """Run the command that ``sys.argv`` names, and exit with its code."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # answers may hold what the terminal's encoding lacks
            stream.reconfigure(errors="replace")
    try:
        # Imported within the try: a missing extra has to become one line, not a traceback.
        execute = import_module("konko_async.cli._program").execute
        code = execute(sys.argv[1:])
    except ModuleNotFoundError as error:
        # Any other module that is missing is a fault of ours, which the traceback should show.
        if (error.name or "").partition(".")[0] not in _NEEDED:
            raise
        sys.stderr.write(_MISSING)
        code = 2
    sys.exit(code)
