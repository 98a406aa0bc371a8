"""The tutorial's notebooks: made from its pages, and each cell runs where the last one ended."""

import ast
import asyncio
import importlib
import inspect
import json
import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "examples" / "notebooks").glob("*.ipynb"))


def test_the_notebooks_are_those_of_the_pages(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "scripts")
    make_notebooks = importlib.import_module("make_notebooks")
    assert {path.stem for path in NOTEBOOKS} == set(make_notebooks.PAGES)
    for path in NOTEBOOKS:
        made = make_notebooks.notebook(path.stem)
        assert path.read_text(encoding="utf-8") == made, "run scripts/make_notebooks.py"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
async def test_all_cells_run(path, monkeypatch, capsys):
    """As a notebook does: one after the other, in one namespace, on one loop, with `await`."""
    for name in ("KONKO_BASE_URL", "KONKO_API_KEY"):
        monkeypatch.setenv(name, "")  # so that what the first cell sets is undone afterwards
        del os.environ[name]
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    names = {"__name__": "__main__"}
    try:
        for source in sources:
            code = compile(source, str(path), "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            result = eval(code, names)  # noqa: S307 - our own notebooks
            if inspect.isawaitable(result):
                async with asyncio.timeout(60):
                    await result
    finally:
        if "emulator" in names:
            await names["emulator"].close()
    assert len(sources) > 1
    assert capsys.readouterr().out.strip()
