"""The programs of the page on frameworks, wherever what they import is installed."""

import ast
import asyncio
import importlib.util
import os
import re
import sys
from pathlib import Path

import pytest
from test_frameworks import answer

from konko_async.testing import Emulator

ROOT = Path(__file__).parents[2]
PROGRAMS = re.findall(
    r"^```python\n(.*?)^```$",
    (ROOT / "docs/how-to/openai.md").read_text(encoding="utf-8"),
    re.MULTILINE | re.DOTALL,
)
pytestmark = [
    pytest.mark.asyncio(loop_scope="function"),
    pytest.mark.skipif(
        not os.environ.get("KONKO_ECOSYSTEM"),
        reason="needs the packages that `make ecosystem` installs",
    ),
]


def imported(program):
    found = set()
    for node in ast.walk(ast.parse(program)):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module.partition(".")[0])
    return found


@pytest.mark.parametrize("program", PROGRAMS, ids=range(len(PROGRAMS)))
async def test_program(program):
    missing = [name for name in imported(program) if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}")
    async with Emulator(answer=answer) as emulator:
        env = {
            **os.environ,
            "KONKO_API_KEY": "k",
            "KONKO_BASE_URL": emulator.base_url,
            "PYTHONPATH": str(ROOT),
        }
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", program, env=env, stdout=-1, stderr=-1
        )
        said, errors = await process.communicate()
        assert process.returncode == 0, errors.decode()
        assert b"Paris" in said
        assert emulator.received == 1
