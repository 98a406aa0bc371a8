"""The command line, ``konko-async`` (extra ``cli``)."""

from konko_async.cli._main import main

__all__ = ["main"]
