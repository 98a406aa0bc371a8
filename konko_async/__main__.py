"""``python -m konko_async``: the same as the command ``konko-async``."""

from konko_async.cli import main

main()
