"""The wheel and `pip install .`, each in an environment of its own that is empty before."""

import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NO_INDEX = ("No matching distribution", "Could not find a version", "ConnectionError", "timed out")


def execute(*arguments, cwd=None):
    command = [str(argument) for argument in arguments]
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(command, check=False, cwd=cwd, env=env, capture_output=True, text=True)


@pytest.fixture
def empty(tmp_path):
    """Make an empty environment; pip works on it from outside, which saves installing pip."""
    venv.create(tmp_path / "venv", with_pip=False, symlinks=True)
    return tmp_path / "venv" / "bin"


def install(empty, what):
    pip = (sys.executable, "-m", "pip", "--python", empty / "python", "install", "-q")
    result = execute(*pip, "--no-input", what)
    if result.returncode and any(sign in result.stderr for sign in NO_INDEX):
        pytest.skip(f"the package index cannot be used: {result.stderr.splitlines()[-1]}")
    assert result.returncode == 0, result.stderr


def test_the_wheel_works_in_an_empty_environment(empty, tmp_path):
    pytest.importorskip("hatchling")
    built = execute(sys.executable, "-m", "hatchling", "build", "-d", tmp_path, cwd=ROOT)
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    (sdist,) = tmp_path.glob("*.tar.gz")
    names = zipfile.ZipFile(wheel).namelist()
    assert "konko_async/py.typed" in names
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"konko_async"}
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert sdist.stat().st_size > 0
    install(empty, f"{wheel}[cli]")
    result = execute(empty / "konko-async", "--help", cwd=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    assert "Commands:" in result.stdout
    refused = execute(empty / "konko-async", "models", "--local", cwd=tmp_path)
    assert refused.returncode == 2
    assert "pip install 'konko-async[local]'" in refused.stderr


def test_pip_install_of_a_clone_works_without_extras(empty, tmp_path):
    install(empty, ROOT)
    script = "import konko_async as k; print(k.AsyncKonko(api_key='x'), k.__file__)"
    result = execute(empty / "python", "-c", script, cwd=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    assert str(tmp_path) in result.stdout
    result = execute(empty / "python", "-m", "konko_async", "models", cwd=tmp_path)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.count("\n") == 1
    assert "konko-async[cli]" in result.stderr
