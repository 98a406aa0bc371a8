"""The page's files: how they are served, and what must not be in them."""

import re
from importlib import resources
from pathlib import Path

import pytest

from konko_async.relay._page import PAGE_HEADERS, page_file, page_reply

FOLDER = Path(str(resources.files("konko_async.relay") / "page"))
FILES = sorted(path.name for path in FOLDER.iterdir())
SCRIPTS = [name for name in FILES if name.endswith(".js")]


def text(name):
    return (FOLDER / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", FILES)
def test_each_file_is_served_with_its_type(name):
    path = "" if name == "index.html" else f"assets/{name}"
    status, headers, body = page_reply(path)
    kinds = {
        "html": "text/html",
        "css": "text/css",
        "js": "text/javascript",
        "svg": "image/svg+xml",
    }
    assert status == 200
    assert headers["Content-Type"].split(";")[0] == kinds[name.rsplit(".", 1)[1]]
    assert body == (FOLDER / name).read_bytes()
    assert PAGE_HEADERS.items() <= headers.items()


def test_a_browser_that_has_a_file_is_not_sent_it_again():
    etag = page_file("assets/app.js").etag
    for known in (etag, f"W/{etag}", f'"other", {etag}', "*"):
        status, headers, body = page_reply("assets/app.js", known)
        assert (status, headers["ETag"], body) == (304, etag, b"")
    assert page_reply("assets/app.js", '"other"')[0] == 200
    assert PAGE_HEADERS["Cache-Control"] == "no-cache"
    etags = {
        page_reply("" if name == "index.html" else f"assets/{name}")[1]["ETag"] for name in FILES
    }
    assert len(etags) == len(FILES)


@pytest.mark.parametrize(
    "path",
    [
        "index.html",
        "assets/",
        "assets/index.html",
        "assets/../_page.py",
        "assets/..",
        "/etc/passwd",
        "assets//app.js",
    ],
)
def test_there_is_nothing_else(path):
    assert page_reply(path) is None


def test_the_page_needs_no_exception_from_its_policy():
    page = text("index.html")
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=", page)
    for found in re.findall(r'(?:src|href)="([^"]+)"', page):
        assert found.startswith(("assets/", "#", "./")), found
        if found.startswith("assets/"):
            assert page_file(found), found


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_make_no_html_and_load_nothing_from_elsewhere(name):
    code = re.sub(r"^\s*//.*$|/\*\*.*?\*/", "", text(name), flags=re.MULTILINE | re.DOTALL)
    for word in (
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "Function(",
        "DOMParser",
        "srcdoc",
    ):
        assert word not in code
    for found in re.findall(r'from "([^"]+)"|import\("([^"]+)"\)', code):
        (target,) = (one for one in found if one)
        assert target.startswith("./")
        assert target.removeprefix("./") in SCRIPTS
    assert len(text(name).splitlines()) <= 500


@pytest.mark.parametrize("name", [name for name in FILES if name.endswith(".css")])
def test_styles_load_nothing(name):
    assert not re.search(r"url\(|@import|@font-face", text(name))
