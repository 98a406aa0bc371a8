"""What the readers of documents miss, and how fast they are, over a folder of real documents.

    python -m benchmarks.bench_documents FOLDER [--files 40] [--derive 12]

For each format: the share of the words that a reference reader finds and ours do not, counted with
repetitions and once per word; documents and MB per second; the peak of the largest process so far,
ours or the reference's.
References: pdftotext for PDF, Chromium's innerText for HTML, pandoc for the rest. Headers, page
numbers and navigation that ours remove on purpose count as missed, so 0 is not the goal. With
``--derive``, pandoc makes Word, OpenDocument, EPUB, RTF, PowerPoint and notebook files of so many
HTML pages first.
"""

import argparse
import collections
import random
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from konko_async.documents import Document, read_documents

KINDS = {".pdf": "PDF", ".html": "HTML", ".htm": "HTML", ".epub": "EPUB", ".docx": "Word",
         ".odt": "OpenDocument", ".rtf": "RTF", ".ipynb": "notebook", ".rst": "reStructuredText",
         ".tex": "LaTeX", ".pptx": "PowerPoint"}  # fmt: skip
DERIVED = ("docx", "odt", "ipynb", "epub", "rtf", "pptx")
# Pandoc reads its own RTF wrongly, and no slides: the reference is the page that they are made of.
OF_THEIR_SOURCE = (".rtf", ".pptx")
WORD = re.compile(r"[^\W\d_]{2,}")


def words(text):
    """Count the words of a text; one that is hyphenated over two lines is one."""
    joined = re.sub(r"(\w)[-\u00ad\u2010]\n\s*(\w)", r"\1\2", text).replace("\u00ad", "")
    # Ligatures are compared as the letters that they stand for.
    for ligature, letters in {"ﬁ": "fi", "ﬂ": "fl", "ﬀ": "ff", "ﬃ": "ffi", "ﬄ": "ffl"}.items():
        joined = joined.replace(ligature, letters)
    return collections.Counter(word.lower() for word in WORD.findall(joined))


def output(*command):
    done = subprocess.run(command, capture_output=True, check=False, timeout=300)
    return done.stdout.decode(errors="replace")


def innertexts(paths):
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 - for HTML only

    found = {}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium-headless-shell") or shutil.which("chromium"),
            args=["--no-sandbox", "--disable-gpu"],
        )
        page = browser.new_context(java_script_enabled=True, offline=True).new_page()
        for path in paths:
            page.goto(path.as_uri(), wait_until="domcontentloaded")
            found[path] = page.evaluate("document.body ? document.body.innerText : ''")
        browser.close()
    return found


def references(kind, paths, sources):
    if kind == "HTML":
        return innertexts(paths)
    if kind == "PDF":
        return {path: output("pdftotext", path, "-") for path in paths}
    of = {path: sources.get(path, path) for path in paths}
    return {path: output("pandoc", "-t", "plain", "--wrap=none", of[path]) for path in paths}


def derive(pages, folder, sources):
    for page in pages:
        for ending in DERIVED:
            target = folder / f"{page.stem}.{ending}"
            subprocess.run(["pandoc", "-s", page, "-o", target], capture_output=True, check=False)
            if target.suffix in OF_THEIR_SOURCE:
                sources[target.resolve()] = page
    return [path for path in sorted(folder.iterdir()) if path.stat().st_size]


def measure(kind, paths, sources):
    reference = references(kind, paths, sources)
    started = time.perf_counter()
    found, errors = {}, 0
    # In one run, as `summarize` reads them: several processes, in the order of the files.
    for result in read_documents(paths):
        if isinstance(result, Document):
            found[result.name] = f"{result.title or ''}\n{result.text}"
        else:
            errors += 1
    took = time.perf_counter() - started
    missed = total = missed_kinds = kinds = 0
    worst = []
    for path in paths:
        theirs, ours = words(reference[path]), words(found.get(str(path), ""))
        gone = theirs - ours
        missed, total = missed + gone.total(), total + theirs.total()
        missed_kinds, kinds = missed_kinds + len(theirs.keys() - ours.keys()), kinds + len(theirs)
        worst.append((gone.total() / max(theirs.total(), 1), path.name))
    size = sum(path.stat().st_size for path in paths)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1000
    print(
        f"{kind:17} {len(paths):5} {errors:7} {missed / max(total, 1):9.2%} "
        f"{missed_kinds / max(kinds, 1):9.2%} {len(paths) / took:9.1f} {size / took / 1e6:8.2f} "
        f"{peak:8.0f}   {max(worst)[1]} {max(worst)[0]:.1%}", flush=True,
    )  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--files", type=int, default=40, help="of each format, drawn by a seed")
    parser.add_argument("--derive", type=int, default=0)
    told = parser.parse_args()
    by_kind = collections.defaultdict(list)
    with tempfile.TemporaryDirectory() as made:
        every = sorted(path for path in told.folder.rglob("*") if path.is_file())
        drawn = random.Random(1)
        pages = [path for path in every if KINDS.get(path.suffix) == "HTML"]
        sources = {}
        if told.derive:
            # Pages with some text: an index of links says little about a reader.
            long = [page for page in pages if 20_000 < page.stat().st_size < 400_000]
            every += derive(drawn.sample(long, min(told.derive, len(long))), Path(made), sources)
        for path in every:
            if (kind := KINDS.get(path.suffix.lower())) and not path.is_symlink():
                by_kind[kind].append(path.resolve())
        print(
            "format            files  errors    missed   (kinds)    docs/s     MB/s  peak MB  worst"
        )
        for kind, paths in sorted(by_kind.items()):
            measure(kind, sorted(drawn.sample(paths, min(told.files, len(paths)))), sources)


if __name__ == "__main__":
    sys.exit(main())
