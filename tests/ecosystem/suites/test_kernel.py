"""The notebooks, executed by a real kernel; progress is one output that is updated."""

import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parents[3] / "examples" / "notebooks").glob("*.ipynb"))


def outputs(notebook):
    return [output for cell in notebook.cells for output in cell.get("outputs", ())]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_kernel_executes_it(path, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}})
    client.execute(env=dict(os.environ))
    found = outputs(notebook)
    assert found
    assert not [output for output in found if output.output_type == "error"]
    if path.stem == "progress":
        bars = [o.data["text/html"] for o in found if "text/html" in o.get("data", {})]
        # One each for the map and the batch, in their last state.
        assert len(bars) == 2
        assert all(bar.startswith('<progress value="50" max="50">') for bar in bars)
        plain = [o.data["text/plain"] for o in found if "text/html" in o.get("data", {})]
        assert plain[1].startswith("squares: 50 of 50")
