"""The wheel and `pip install .`, each in an environment of its own that is empty before."""

import os
import re
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NO_INDEX = ("No matching distribution", "Could not find a version", "ConnectionError", "timed out")


@pytest.mark.parametrize("name", ["demo", "dev"])
def test_the_lock_has_all_that_is_wanted_and_no_place_of_its_making(name):
    requirements = pytest.importorskip("packaging.requirements")
    text = (ROOT / "requirements" / f"{name}.txt").read_text()
    pins = dict(re.findall(r"^([\w.-]+)==([\w.+!-]+)", text, re.MULTILINE))
    assert text.count("--hash=sha256:") >= len(pins)
    assert "://" not in text  # no index
    assert not re.search(r"(?<!requirements)(?<!\w)/\w+/", text)  # no path
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras, groups = project["project"]["optional-dependencies"], project["dependency-groups"]
    chosen = {"demo": ["cli", "local", "speed"], "dev": list(extras)}[name]
    wanted = [*project["project"]["dependencies"], *groups["build"]]
    wanted += [line for extra in chosen for line in extras[extra]]
    wanted += groups["dev"] if name == "dev" else []
    for line in wanted:
        requirement = requirements.Requirement(line)
        assert pins[requirement.name] in requirement.specifier, f"{line}: run `make lock`"


def execute(*arguments, cwd=None):
    command = [str(argument) for argument in arguments]
    # Without certificates, as tests/conftest.py has it, pip reaches no index.
    without = {"PYTHONPATH", "SSL_CERT_FILE", "SSL_CERT_DIR"}
    env = {name: value for name, value in os.environ.items() if name not in without}
    return subprocess.run(command, check=False, cwd=cwd, env=env, capture_output=True, text=True)


@pytest.fixture
def empty(tmp_path):
    """Make an empty environment; pip works on it from outside, which saves installing pip."""
    venv.create(tmp_path / "venv", with_pip=False, symlinks=True)
    return tmp_path / "venv" / "bin"


def install(empty, what):
    # Not compiled, as most of what is installed is never run.
    pip = (sys.executable, "-m", "pip", "--python", empty / "python", "install", "-q")
    result = execute(*pip, "--no-input", "--no-compile", what)
    if result.returncode and any(sign in result.stderr for sign in NO_INDEX):
        pytest.skip(f"the package index cannot be used: {result.stderr.splitlines()[-1]}")
    assert result.returncode == 0, result.stderr


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
    # Temml, which the chat page sets formulas with, is MIT: its licence goes where it goes.
    assert any("/licenses/" in name and "temml" in name for name in names)
    assert "konko_async/relay/page/js/vendor/temml/LICENSE.txt" in names
    assert sdist.stat().st_size > 0
    install(empty, f"{wheel}[cli]")
    result = execute(empty / "konko-async", "--help", cwd=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    assert "Commands:" in result.stdout
    refused = execute(empty / "konko-async", "models", "--local", cwd=tmp_path)
    assert refused.returncode == 2
    assert "pip install 'konko-async[local]'" in refused.stderr


def test_the_audit_is_skipped_where_no_database_answers(unused_tcp_port_factory, tmp_path):
    done = execute(
        sys.executable, str(ROOT / "scripts/audit.py"), "--venv", str(tmp_path / "never"),
        "--database", f"http://127.0.0.1:{unused_tcp_port_factory()}/v1/query",
    )  # fmt: skip
    assert done.returncode == 0
    assert done.stdout.startswith("audit skipped: no advisory database")
    assert not (tmp_path / "never").exists()
