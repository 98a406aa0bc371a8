"""Changes the defences at random places, and counts the changes that the tests notice.

mutmut makes the changes (mutants) and runs the tests that reach each; what is changed, and which
tests are run, is said in ``[tool.mutmut]`` of pyproject.toml. A seeded sample keeps the time within
bounds. Prints the share that was noticed for each module, and each mutant that survived as a diff.

Run as ``make mutants SAMPLE=400``. mutmut writes to ``mutants/``, which a second run resumes:
delete it after a change of code or tests.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[1]
MADE = ROOT / "mutants"
# What mutmut writes for a mutant that no test noticed, or that no test reached.
SURVIVED, UNREACHED = 0, 33


def results() -> dict[str, int | None]:
    """Read the exit code of the tests for each mutant; None where they have not been run."""
    return {
        name: code
        for path in sorted(MADE.rglob("*.meta"))
        for name, code in json.loads(path.read_text())["exit_code_by_key"].items()
    }


def mutmut(tool: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run mutmut of a folder with this Python's packages, and the mutants as the code."""
    env = os.environ | {"PYTHONPATH": f"{MADE}{os.pathsep}{tool}"}
    command = [sys.executable, "-m", "mutmut", *arguments]
    return subprocess.run(command, cwd=ROOT, env=env, check=False, capture_output=True, text=True)


def absolute(path: str) -> Path:
    """Return a path that means the same in every folder."""
    return Path(path).resolve()


def module(mutant: str) -> str:
    """Return the module that a mutant changes."""
    return mutant.rpartition(".")[0].removeprefix("konko_async.")


def main() -> int:
    """Make the mutants, run the tests, print the figures."""
    options = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    # Absolute: tests run in another folder, and start processes that import it as well.
    options.add_argument("--tool", type=absolute, required=True, help="where mutmut is installed")
    options.add_argument("--sample", type=int, default=400, help="mutants to try; 0: all")
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--processes", type=int, default=2)
    given = options.parse_args()
    MADE.mkdir(exist_ok=True)  # Python looks only once whether a folder of its path exists
    width = ["--max-children", str(given.processes)]
    # The smallest module first: that makes all mutants, and measures which tests reach what.
    begun = mutmut(given.tool, "run", *width, "konko_async._core.secret.*")
    known = sorted(results())
    if begun.returncode or not known:
        print(begun.stdout[-3000:], begun.stderr[-3000:])
        return 2
    chosen = known
    if given.sample:
        drawn = random.Random(given.seed)  # noqa: S311 - a sample, the same for each run
        chosen = sorted(drawn.sample(known, min(given.sample, len(known))))
    ended = mutmut(given.tool, "run", *width, *chosen)
    tried = {name: code for name, code in results().items() if name in set(chosen)}
    if ended.returncode or any(code is None for code in tried.values()):
        print(ended.stdout[-3000:], ended.stderr[-3000:])
        return 2
    alive = [name for name, code in tried.items() if code in {SURVIVED, UNREACHED}]
    for name in alive:
        reached = "" if tried[name] == SURVIVED else "  (no test reaches it)"
        print(f"\n== {name}{reached}\n{mutmut(given.tool, 'show', name).stdout.strip()}")
    print("\nmodule                              mutants  noticed")
    totals, left = Counter(map(module, tried)), Counter(map(module, alive))
    for name, count in sorted(totals.items()):
        print(f"{name:35} {count:7} {1 - left[name] / count:8.1%}")
    share = 1 - len(alive) / len(tried)
    print(f"{'all':35} {len(tried):7} {share:8.1%}   (of {len(known)}, seed {given.seed})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
