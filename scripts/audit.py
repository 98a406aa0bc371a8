"""Looks the locked dependencies up in a database of known vulnerabilities (OSV), with pip-audit.

Exits with 1 if a locked version has a known vulnerability. Where no database can be reached, or it
fails midway, says so and exits with 0: a set-up without a network is not at fault.

The scanner lives in an environment of its own, made when it is first needed, and never before the
database has answered.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
import urllib.request
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]
LOCKS = ("requirements/dev.txt", "requirements/demo.txt")
SCANNER = "pip-audit==2.10.1"
DATABASE = "https://api.osv.dev/v1/query"
REACHED_WITHIN = 5.0  # seconds for the first answer
DONE_WITHIN = 300.0  # seconds for all of it
# Advisories that do not concern this project: {"GHSA-…": "why"}.
IGNORED: dict[str, str] = {}


def reachable(database: str) -> str | None:
    """Ask about an old release that has an advisory; return what is wrong, or None."""
    question = {"package": {"name": "requests", "ecosystem": "PyPI"}, "version": "2.5.0"}
    request = urllib.request.Request(  # noqa: S310 - https, or what the caller passed
        database, json.dumps(question).encode(), {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=REACHED_WITHIN) as answer:  # noqa: S310 - as said
            found = json.load(answer)
    except (OSError, ValueError) as error:
        return str(error)
    if not isinstance(found, dict) or not found.get("vulns"):
        return "it does not know a vulnerability that is known"
    return None


def scanner(environment: Path) -> Path:
    """Return the scanner's program, installed if it is not there yet."""
    program = environment / "bin" / "pip-audit"
    made = environment / f".{SCANNER}"
    if not made.exists():
        venv.create(environment, with_pip=True, clear=True)
        pip = [str(environment / "bin" / "python"), "-m", "pip", "install", "--quiet", SCANNER]
        subprocess.run(pip, check=True, timeout=DONE_WITHIN)
        made.touch()
    return program


def scan(program: Path, database: str, within: float) -> dict[str, list[str]]:
    """Return the vulnerabilities of each locked release that has any.

    Raises:
        OSError: the database failed.
    """
    # Locked with hashes: nothing is resolved or downloaded but the advisories.
    command = [str(program), "--vulnerability-service", "osv", "--osv-url", database]
    command += ["--disable-pip", "--progress-spinner", "off", "--format", "json"]
    for lock in LOCKS:
        command += ["--requirement", str(ROOT / lock)]
    for advisory in IGNORED:
        command += ["--ignore-vuln", advisory]
    done = subprocess.run(command, timeout=within, check=False, capture_output=True, text=True)
    try:
        releases = json.loads(done.stdout)["dependencies"]
    except ValueError as error:  # its exit code is 1 for this too
        raise OSError(done.stderr.strip().rpartition("\n")[2]) from error
    print(f"{len(releases)} locked releases looked up")
    return {
        f"{release['name']} {release['version']}": [
            f"{known['id']}, fixed in {', '.join(known['fix_versions']) or 'no release'}"
            for known in release["vulns"]
        ]
        for release in releases
        if release.get("vulns")
    }


def main() -> int:
    """Check the locks."""
    options = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    options.add_argument("--database", default=DATABASE, help="the query address of an OSV service")
    options.add_argument("--venv", type=Path, default=ROOT / ".venv-audit", help="of the scanner")
    given = options.parse_args()
    begin = time.monotonic()
    if (wrong := reachable(given.database)) is not None:
        print(f"audit skipped: no advisory database at {given.database} ({wrong})")
        return 0
    try:
        program = scanner(given.venv)
        left = DONE_WITHIN - (time.monotonic() - begin)
        found = scan(program, given.database, max(left, 1.0))
    except (OSError, subprocess.SubprocessError) as error:
        print(f"audit skipped: {error}")
        return 0
    for release, advisories in found.items():
        print(f"{release}: {'; '.join(advisories)}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
