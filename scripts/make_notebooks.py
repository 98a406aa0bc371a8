"""Writes the notebooks (examples/notebooks) from pages and the README; --check only compares.

A notebook has an event loop of its own, so `asyncio.run(main())` becomes `await main()`.
"""

import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
# The tutorial's third lesson serves pages, which a notebook cannot.
PAGES = {
    "first-answer": "docs/tutorial/first-answer.md",
    "batch": "docs/tutorial/batch.md",
    "readme": "README.md",
    "progress": "docs/how-to/notebooks.md",
}
CODE = re.compile(r"^```python\n(.*?)^```\n", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"!?\]\((?!https?:)([^)#]+)([^)]*)\)")
SET_UP = """# Without KONKO_API_KEY, an emulator of the API answers on this machine.
import os

from konko_async.testing import Emulator

if "KONKO_API_KEY" not in os.environ:
    emulator = Emulator()
    await emulator.start()
    os.environ["KONKO_API_KEY"] = emulator.api_key
    os.environ["KONKO_BASE_URL"] = emulator.base_url
"""


def lines(text: str) -> list[str]:
    """Split a cell's text as the format has it."""
    return text.strip("\n").splitlines(keepends=True)


def code_cell(text: str) -> dict[str, object]:
    """Make a cell that can be run."""
    return {
        "cell_type": "code",
        "execution_count": None,
        "metadata": {},
        "outputs": [],
        "source": lines(text),
    }


def text_cell(text: str) -> dict[str, object]:
    """Make a cell of text; links to other pages of the documentation become plain words."""
    return {"cell_type": "markdown", "metadata": {}, "source": lines(LINK.sub("]", text))}


def cells_of(page: str) -> list[dict[str, object]]:
    """Cut a page into cells."""
    found: list[dict[str, object]] = []
    text = ""
    for number, part in enumerate(CODE.split(page)):
        if number % 2:
            if text.strip():
                found.append(text_cell(text))
            text = ""
            found.append(code_cell(part.replace("asyncio.run(main())", "await main()")))
        else:
            text += f"```python\n{part}```\n" if number % 2 else part
    if text.strip():
        found.append(text_cell(text))
    return [found[0], code_cell(SET_UP), *found[1:]]


def notebook(name: str) -> str:
    """Return the notebook of a page, as JSON."""
    page = (ROOT / PAGES[name]).read_text(encoding="utf-8")
    cells = [{"id": f"cell-{place}", **cell} for place, cell in enumerate(cells_of(page))]
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    whole = {
        "cells": cells,
        "metadata": {"kernelspec": kernel, "language_info": {"name": "python"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    return json.dumps(whole, indent=1, ensure_ascii=False) + "\n"


def main() -> int:
    """Write the notebooks, or say which are out of date."""
    stale = []
    for name in PAGES:
        path = ROOT / "examples" / "notebooks" / f"{name}.ipynb"
        made = notebook(name)
        if not path.exists() or path.read_text(encoding="utf-8") != made:
            stale.append(path.name)
            if "--check" not in sys.argv[1:]:
                path.write_text(made, encoding="utf-8")
    if stale:
        print("out of date:" if "--check" in sys.argv[1:] else "written:", ", ".join(stale))
    return int(bool(stale) and "--check" in sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
