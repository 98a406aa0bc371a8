"""The page's files: how they are served, and what must not be in them."""

import hashlib
import posixpath
import re
from importlib import resources
from pathlib import Path

import pytest

from konko_async.relay._page_files import PAGE_HEADERS, page_file, page_reply

FOLDER = Path(str(resources.files("konko_async.relay") / "page"))
FILES = sorted(path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob("*") if path.is_file())
SCRIPTS = [name for name in FILES if name.endswith(".js")]
# What others wrote: the file of their release, with one line more, which makes a module of it.
VENDORED = {
    "js/vendor/temml/temml.js": "1ab19148afe0dbc836b7a74f344071b3f3a70a7a8259ae4049e76894fcdf8d95"
}
APP = "assets/js/app.js"


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
        "txt": "text/plain",
    }
    assert status == 200
    assert headers["Content-Type"].split(";")[0] == kinds[name.rsplit(".", 1)[1]]
    assert body == (FOLDER / name).read_bytes()
    assert PAGE_HEADERS.items() <= headers.items()


def test_a_browser_that_has_a_file_is_not_sent_it_again():
    etag = page_file(APP).etag
    for known in (etag, f"W/{etag}", f'"other", {etag}', "*"):
        status, headers, body = page_reply(APP, known)
        assert (status, headers["ETag"], body) == (304, etag, b"")
    assert page_reply(APP, '"other"')[0] == 200
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
        "assets/js",
        "assets/js/",
        "assets/app.js",
        "assets/..",
        "/etc/passwd",
        "assets/js//app.js",
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


@pytest.mark.parametrize(("name", "digest"), VENDORED.items())
def test_what_others_wrote_is_as_they_released_it(name, digest):
    released, line, rest = text(name).rpartition("\nexport default ")
    assert line
    assert rest == "temml;\n"
    assert hashlib.sha256(released.encode()).hexdigest() == digest
    assert "MIT License" in text(posixpath.join(posixpath.dirname(name), "LICENSE.txt"))
    for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
        assert word not in released
    assert "new Function(" not in released
    assert not re.search(r"XMLHttpRequest|\bimport\(", released)


@pytest.mark.parametrize("name", sorted({*SCRIPTS} - {*VENDORED}))
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
        assert target.startswith(("./", "../"))
        assert posixpath.normpath(posixpath.join(posixpath.dirname(name), target)) in SCRIPTS
    assert len(text(name).splitlines()) <= 500


@pytest.mark.parametrize("name", [name for name in FILES if name.endswith(".css")])
def test_styles_load_nothing(name):
    assert not re.search(r"url\(|@import|@font-face", text(name))


def test_no_folder_has_more_than_a_page_of_files():
    folders = [FOLDER, *(path for path in FOLDER.rglob("*") if path.is_dir())]
    for folder in folders:
        assert len(list(folder.iterdir())) <= 16, folder.name
