"""A short soak; `python tests/soak/soak.py --seconds 300` is the real one."""

import subprocess
import sys
from pathlib import Path


def test_nothing_is_left_over():
    script = Path(__file__).with_name("soak.py")
    options = ["--seconds", "5", "--streams", "40", "--most-growth", "15"]
    # So short a run is half start: descriptors that stay are told by what is left at the end.
    options += ["--most-descriptors", "100"]
    done = subprocess.run(
        [sys.executable, "-W", "error", str(script), *options],
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
