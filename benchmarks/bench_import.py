"""How long an import takes, and ``konko-async --help``; every sample is a fresh process.

What is timed is CPU, up to a client that is ready to be used, because our names are loaded lazily.
"""

from __future__ import annotations

import compileall
import os
import subprocess
import sys
import time

from benchmarks.bench import Bench
from benchmarks.load import ROOT
from benchmarks.results import Figure, Goal
from benchmarks.rivals.table import RIVALS

TIMED = (
    "import time; _t = time.process_time(); {before}; _u = time.process_time(); {after}; "
    "print(time.process_time() - _u)"
)
OURS = "from konko_async import AsyncKonko; AsyncKonko('key').chat.completions.create"
NEEDED = "import aiohttp, msgspec, tenacity, aiolimiter"
THEIRS = "(api_key='key').chat.completions.create"
CASES = {
    "ours": ("pass", OURS),
    "beyond": (NEEDED, OURS),
    "openai": ("pass", f"from openai import AsyncOpenAI; AsyncOpenAI{THEIRS}"),
    "konko": ("pass", f"from konko import AsyncKonko; AsyncKonko{THEIRS}"),
    "litellm": ("pass", "from litellm import acompletion"),
}


def seconds(python: str, before: str, after: str) -> float:
    """Return the CPU seconds of the second statement after the first."""
    code = TIMED.format(before=before, after=after)
    environment = os.environ | {"LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    said = subprocess.run(
        [python, "-c", code], check=True, capture_output=True, text=True, cwd=ROOT, env=environment
    )
    return float(said.stdout)


def help_page() -> float:
    """Return the seconds that ``konko-async --help`` takes from start to end."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "konko_async", "--help"]
    subprocess.run(command, check=True, capture_output=True, cwd=ROOT)
    return time.perf_counter() - began


def measure(bench: Bench) -> None:
    """Measure all imports in turn."""
    # As pip does when it installs a package: the rivals' are compiled, too.
    compileall.compile_dir(str(ROOT / "konko_async"), quiet=2)
    pythons = {"beyond": sys.executable}
    openai = bench.taking_part("openai") or bench.taking_part("openai_aiohttp")
    rivals = [*bench.taking_part("ours", "konko", "litellm"), *openai]
    pythons |= {rival.name: rival.python() for rival in rivals}
    samples: dict[str, list[float]] = {name: [] for name in pythons}
    pages = []
    for turn in range((bench.rounds or (5 if bench.quick else 10)) + 1):
        for name, python in pythons.items():
            took = seconds(python, *CASES[name.removesuffix("_aiohttp")]) * 1e3
            samples[name].extend([took] if turn else [])  # the first round fills the disk cache
        pages.append(help_page())
        print(".", end="", file=sys.stderr, flush=True)
    beyond = samples.pop("beyond")
    found = {
        name: Figure("import", RIVALS[name].label, "import and client", "ms CPU", values)
        for name, values in samples.items()
    }
    bench.results.figures.extend(found.values())
    bench.results.goals.append(
        Goal("import", "beyond its four dependencies", beyond, 20, unit="ms CPU")
    )
    bench.ratios(found, *[("ours", rival.name, 0.4) for rival in openai])
    bench.ratios(found, ("ours", "konko", None), ("ours", "litellm", None))
    bench.results.goals.append(Goal("import", "konko-async --help", pages[1:], 0.1, unit="s"))
