"""Pieces of programs in the documentation, run with what surrounds them in a program.

Snippets that are whole programs are run by test_readme.py. Here, each piece is put into a program
that gives it the names which its page takes for granted.
"""

import re
import sys
import textwrap
from pathlib import Path

import pytest

from konko_async.testing import Emulator

sys.path.insert(0, str(Path(__file__).parent / "cli"))
from cli_kit import KEY, environment, join_waiters, run
from command_server import PROGRAM

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
MODEL = "codellama/codellama-13b-instruct"

# What a page's pieces take for granted, and what stands for their "...".
SAID = [{"role": "user", "content": "Hello!"}]
AROUND = f"""
import asyncio, contextlib, json, os, re, signal, sys
import aiohttp, konko_async
from konko_async import *
from konko_async.batch import *
from konko_async.relay import *
from konko_async.local import LocalServer
from konko_async.testing import Answer, FaultServer
MODEL = {MODEL!r}
text = "asyncio runs coroutines."

async def user_of(header): return "somebody"
def MyStore(*_): return MemoryStore()

def prepare():
    rows = [{{"custom_id": str(n), "method": "POST", "url": "/v1/chat/completions",
             "body": {{"model": MODEL, "messages": {SAID!r}}}}} for n in range(3)]
    with open("in.jsonl", "w") as file:
        file.write("".join(json.dumps(row) + "\\n" for row in rows))
    with open("requests.jsonl", "w") as file:
        file.write(json.dumps(rows[0]) + "\\n")
    with open("texts.jsonl", "w") as file:
        file.write('{{"text": "asyncio"}}\\n')
    for name in ("answers.jsonl", "other.jsonl"):
        open(name, "w").close()
    os.makedirs("papers", exist_ok=True)
    with open("papers/one.txt", "w") as file:
        file.write("asyncio runs coroutines. " * 20)
"""
# The page, a word that its piece has, and what comes after it: what it should have brought about.
PIECES = {
    ("explanation/limits", 'max_concurrency="auto"'): "assert MODEL in str(client.limits)",
    ("explanation/limits", "on_store_failure"): "assert client.rate_limit.store is not None",
    ("explanation/resilience", "fallback_models"): "await client.close()",
    ("explanation/scaling", "Processes(4)"): "assert (report.done, report.failed) == (3, 0)",
    ("how-to/batch", "tokens_per_minute"): "assert (report.done, report.failed) == (3, 0)",
    ("how-to/batch", "stop=stop"): "",
    ("how-to/server-batches", "server_side=True"): "assert (report.done, report.failed) == (3, 0)",
    ("how-to/server-batches", "input_file_id"): "assert batch.endpoint == '/v1/chat/completions'",
    ("how-to/batch-rows", "response_format"): "assert report.done == 3",
    ("how-to/batch-rows", "steps=steps"): "assert (report.done, report.failed) == (1, 0)",
    ("how-to/cache", "from_cache"): "assert client.cache.stats.stored == 1",
    ("how-to/data", "pd.DataFrame"): "assert list(answers['id']) == ['a', 'b']",
    ("how-to/viewer", "Viewer("): "assert viewer.address.startswith('http://127.0.0.1:')",
    ("how-to/bench", "run_bench"): "assert result.completed == 500",
    (
        "how-to/fault-server",
        "StreamTruncatedError",
    ): "await test_a_cut_stream_keeps_what_had_arrived()",
    (
        "how-to/fault-server",
        "run_with_jumping_time",
    ): "await asyncio.to_thread(test_an_hour_is_nothing)",
    ("how-to/local-model", "LocalServer() as server"): "assert completion.choices",
    ("how-to/local-model", "model_path"): "",
    ("how-to/relay", "make_app"): "app = await make_app()\nassert len(app.router.routes())",
    ("how-to/relay", "stream_response"): "assert callable(explain)",
    ("how-to/relay", "check_store"): "await test_my_store()",
    ("how-to/summarize", "default_style"): "assert len(report.summaries) == 1",
}
# Pieces that need what no test has, or whose page is run by a test of its own.
ELSEWHERE = {
    "explanation/scaling": ("RayWorkers", "ray.data"),  # tests/ray
    "how-to/fault-server": ("for at in range",),  # tests/emulated/test_cuts.py
    "how-to/endpoints": ("",),  # tests/emulated/test_endpoints.py and test_resume.py
    "how-to/mcp": ("",),  # tests/frameworks/test_mcp.py
    "how-to/openai": ("",),  # tests/ecosystem/test_page.py
    "how-to/testing": ("",),  # tests/emulated/test_emulator_docs.py
    "how-to/web-backends": ("",),  # test_readme.py serves the programs; tests/relay has the pieces
    "how-to/page": ("",),  # tests/web
}
PAGES = sorted({page for page, _ in PIECES} | set(ELSEWHERE))


def pieces(page):
    return BLOCK.findall((ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8"))


@pytest.mark.parametrize(("page", "word"), PIECES)
async def test_a_piece_runs(page, word, tmp_path):
    (piece,) = [text for text in pieces(page) if word in text]
    local = page == "how-to/local-model"
    if local:
        pytest.importorskip("xllamacpp")
    piece = piece.replace("[...]", repr(SAID)).replace(
        ".create(...,", f".create(model=MODEL, messages={SAID!r},"
    )
    piece = piece.replace('"my-model"', "MODEL").replace('"a-model"', "MODEL")
    piece = piece.replace("sys.exit(report.exit_code)", "assert report.exit_code == 0")
    around = f"import pytest\n{AROUND}" if "pytest" in piece else AROUND  # it is slow to import
    body = piece if page in {"how-to/relay", "how-to/fault-server"} else ""
    inner = f"{'' if body else piece}\n{PIECES[page, word]}\n"
    program = (
        f"{around}\n{body}\nasync def main():\n"
        "    prepare()\n    loop = asyncio.get_running_loop()\n    client = konko_async.AsyncKonko()\n"
        "    globals().update(client=client)\n"
        f"{textwrap.indent(inner, '    ')}\n    await client.close()\n"
        "if __name__ == '__main__':\n    asyncio.run(main())\n    print('well')\n"
    )
    file = tmp_path / "piece.py"
    file.write_text(program)
    async with Emulator(api_keys=[KEY]) as emulator:
        env = environment(emulator, tmp_path)
        start = (*PROGRAM, str(file))
        result = await run(env=env, executable=start, cwd=tmp_path, patience=90)
    join_waiters()
    assert (result.code, result.out.splitlines()[-1:]) == (0, ["well"]), result
    assert KEY not in result.out


@pytest.mark.parametrize("page", PAGES)
def test_no_piece_is_forgotten(page):
    words = [word for of, word in PIECES if of == page] + list(ELSEWHERE.get(page, ()))
    for text in pieces(page):
        assert any(word in text for word in words), text


def test_no_page_is_forgotten():
    run_whole = "".join(
        (ROOT / path).read_text(encoding="utf-8")
        for path in ("tests/test_readme.py", "scripts/make_notebooks.py")
    )
    for path in (ROOT / "docs").rglob("*.md"):
        page = str(path.relative_to(ROOT / "docs").with_suffix(""))
        if page not in PAGES and BLOCK.search(path.read_text(encoding="utf-8")):
            assert f'"{path.stem}"' in run_whole or f"docs/{page}.md" in run_whole, page
