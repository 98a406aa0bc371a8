"""The types hold for users: what is right passes ``mypy --strict``, what is wrong is found."""

import re
import shutil
from pathlib import Path

import pytest
from mypy import api

HERE = Path(__file__).parent
ROOT = HERE.parent


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """One cache for all checks: the second is quick. With `make types` before, the first is, too."""
    cache, made = tmp_path_factory.mktemp("mypy"), ROOT / ".mypy_cache"
    if made.is_dir():
        shutil.copytree(made, cache, dirs_exist_ok=True)
    return cache


def check(path, cache):
    """Return the lines in which mypy finds errors, and its words."""
    config = ["--config-file", str(ROOT / "pyproject.toml"), "--cache-dir", str(cache)]
    out, err, _ = api.run([*config, "--strict", "--hide-error-context", str(path)])
    assert not err
    found = re.findall(rf"^{re.escape(str(path))}:(\d+): error: ", out, re.MULTILINE)
    return {int(line) for line in found}, out


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", ["api.py", "blocking.py"])
def test_the_api_as_a_user_sees_it(cache, name):
    found, out = check(HERE / "typing" / name, cache)
    assert not found, out
    assert "Success" in out, out  # nor anything in the package, as seen from here


@pytest.mark.timeout(300)
def test_mistakes_are_found_each_in_its_line(cache, tmp_path):
    # Kept under another name, so that `mypy tests/typing` passes.
    path = tmp_path / "mistakes.py"
    shutil.copy(HERE / "typing" / "mistakes.txt", path)
    lines = path.read_text().splitlines()
    expected = {number for number, line in enumerate(lines, 1) if line.endswith("# wrong")}
    assert len(expected) > 20
    found, out = check(path, cache)
    assert found == expected, out
