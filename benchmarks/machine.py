"""What the figures were measured on, and with which versions."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.load import ROOT, Server
from benchmarks.rivals.table import RIVALS

PACKAGES = (
    "konko_async", "aiohttp", "msgspec", "tenacity", "aiolimiter", "uvloop", "pyreqwest", "openai",
    "httpx2", "httpx", "pydantic", "konko", "litellm",
)  # fmt: skip
ASK = """
import importlib.metadata as m, json, sys
found = {}
for name in sys.argv[1:]:
    try: found[name] = m.version(name)
    except m.PackageNotFoundError: pass
print(json.dumps(found))
"""


def versions(python: str) -> dict[str, str]:
    """Return the versions of an environment's packages."""
    said = subprocess.run(
        [python, "-c", ASK, *PACKAGES], check=True, capture_output=True, text=True, cwd=ROOT
    )
    return json.loads(said.stdout)


def processor() -> str:
    """Return the processor's name."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def commit() -> str:
    """Return the commit that was measured, with a + where files differ from it."""
    command = ["git", "describe", "--always", "--dirty=+", "--exclude=*"]
    try:
        done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()


def describe(server: Server, names: list[str]) -> dict[str, Any]:
    """Return the machine, the versions and the date."""
    rivals = [RIVALS[name] for name in names if RIVALS[name].ready()]
    environments = {rival.env or "ours": rival.python() for rival in rivals}
    return {
        "date": datetime.now(UTC).isoformat(timespec="minutes"),
        "processor": processor(),
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "client core, server core": [server.client_core, server.core],
        "load at the start": [round(load, 2) for load in os.getloadavg()],
        "commit": commit(),
        "versions": {name: versions(python) for name, python in sorted(environments.items())},
    }
