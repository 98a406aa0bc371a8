"""The demo, with few documents: on the real model, in a pipe."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

DEMO = Path(__file__).parents[1] / "examples" / "demo.py"


@pytest.mark.local_model
def test_it_streams_summarises_and_prints_figures():
    pytest.importorskip("xllamacpp")
    names = ("PATH", "HOME", "XDG_CACHE_HOME", "LANG", "PYTHONPATH")
    env = {name: os.environ[name] for name in names if name in os.environ}
    arguments = [sys.executable, "-W", "error", str(DEMO), "--documents", "2"]
    result = subprocess.run(arguments, check=False, env=env, capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")
    assert "2 of 2 done" in result.stdout
    assert len(re.findall(r"^\S[^\t\n]*\t\S.+$", result.stdout, re.MULTILINE)) == 2
    assert "2 summarised, 0 failed" in result.stdout
    assert re.search(r"time to first token  p50 \d+\.\d\d s, p95 \d+\.\d\d s", result.stdout)
    assert re.search(r"throughput +\d+ tokens/s", result.stdout)
    assert re.search(r"requests +\d+, of them \d+ retries", result.stdout)


def test_it_finds_enough_documents_on_any_machine():
    script = (
        "import runpy, sys, importlib.metadata as metadata\n"
        f"demo = runpy.run_path({str(DEMO)!r})\n"
        "everything = demo['find_documents'](32)\n"
        "metadata.distributions = lambda: []\n"
        "bare = demo['find_documents'](32)\n"
        "print(len(everything), len(bare), len({document.text for document in bare}))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], check=False, capture_output=True, text=True
    )
    assert result.stderr == ""
    found, bare, distinct = map(int, result.stdout.split())
    assert found == 32
    assert bare == distinct >= 24
