"""The documentation site: built strictly, complete, and loading nothing from elsewhere."""

import importlib
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from konko_async.cli._program import root as program
from konko_async.errors import KonkoError

pytest.importorskip("mkdocs")
pytest.importorskip("mkdocstrings")

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "scripts"))
site_hooks = importlib.import_module("site_hooks")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    build = (sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder))
    env = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    result = subprocess.run(build, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return folder


def text_of(page):
    return re.sub(r"<[^>]+>", "", page.read_text(encoding="utf-8"))


def test_every_public_name_is_in_the_reference(site):
    modules = site_hooks.public_modules()
    assert {"konko_async", "konko_async.batch", "konko_async.relay"} <= set(modules)
    for module, names in modules.items():
        page = (site / "reference" / "api" / f"{module}.html").read_text(encoding="utf-8")
        headings = set(re.findall(r'<h2 id="([^"]+)"', page))
        shown = {heading.rpartition(".")[2] for heading in headings}
        assert {name for name in names if not name.startswith("__")} <= shown, module


def test_every_command_and_option_is_in_the_reference(site):
    text = text_of(site / "reference" / "cli.html")
    commands = program.list_commands(None)
    assert len(commands) >= 7
    for name in commands:
        assert f"konko-async {name}" in text
        for parameter in program.get_command(None, name).params:
            for option in parameter.opts:
                assert option in text or not option.startswith("-"), (name, option)
    assert "Sentinel" not in text


def all_errors():
    for module in site_hooks.public_modules():
        try:
            loaded = importlib.import_module(module)
        except ModuleNotFoundError:  # an extra that is not installed
            continue
        for name in loaded.__all__:
            value = getattr(loaded, name)
            if inspect.isclass(value) and issubclass(value, Exception):
                yield name


def test_every_error_has_its_cause_and_remedy():
    page = (ROOT / "docs" / "reference" / "errors.md").read_text(encoding="utf-8")
    rows = {
        row[0]: row for row in re.findall(r"^\| `(?:[\w.]+\.)?(\w+)` \|(.*)\|$", page, re.MULTILINE)
    }
    missing = set(all_errors()) - set(rows) - {KonkoError.__name__, "APIError", "StreamError"}
    assert not missing


def test_nothing_is_loaded_from_elsewhere(site):
    pages = list(site.rglob("*.html"))
    assert len(pages) > 40
    for page in pages:
        for tag in re.findall(r"<(?:script|link|img|iframe|source)[^>]*>", page.read_text()):
            if 'rel="canonical"' not in tag:
                assert not re.search(r"""(?:src|href)=["']?(?:https?:)?//""", tag), (page, tag)
    for sheet in site.rglob("*.css"):
        assert not re.search(r"url\(\s*['\"]?(?:https?:)?//", sheet.read_text()), sheet


def test_links_out_of_the_folder_lead_somewhere(site):
    repository = "https://github.com/konko-async/konko-async"
    found = set()
    for page in site.rglob("*.html"):
        found.update(
            re.findall(rf'href="{repository}/(?:blob|tree)/main/([^"#]+)', page.read_text())
        )
    assert "examples/fastapi_app.py" in found
    for path in found:
        assert (ROOT / path).exists(), path
