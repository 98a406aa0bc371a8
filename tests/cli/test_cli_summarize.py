"""`konko-async summarize`: a process of its own, against the emulator and the real local model."""

import asyncio
import io
import json
import re
import signal

import docx
import pytest
from cli_kit import CHAT_MODEL, KEY, command, environment, run, terminal
from reportlab.pdfgen.canvas import Canvas

from konko_async.testing import faults

CHAT = "/chat/completions"


@pytest.fixture
def env(env, emulator):
    emulator.answer = lambda body: f"About {len(body['messages'][-1]['content'])} characters."
    return {**env, "KONKO_MODEL": CHAT_MODEL}


@pytest.fixture(autouse=True)
def no_key_anywhere(tmp_path):
    yield
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert KEY.encode() not in path.read_bytes(), path


@pytest.fixture
def papers(tmp_path):
    """A folder with a document of each format, and one that is broken."""
    folder = tmp_path / "papers"
    folder.mkdir()
    (folder / "a.txt").write_bytes("Grüße aus Köln. ".encode("latin-1") * 9)
    (folder / "b.md").write_text("# Title\n\nText.")
    (folder / "c.html").write_text("<title>Page</title><p>Text.")
    file = io.BytesIO()
    canvas = Canvas(file)
    canvas.drawString(72, 700, "Text of a PDF.")
    canvas.save()
    (folder / "d.pdf").write_bytes(file.getvalue())
    document = docx.Document()
    document.add_paragraph("Text of a letter.")
    document.save(folder / "e.docx")
    (folder / "f.jsonl").write_text('{"text": "one"}\n{"text": "two"}\n')
    (folder / "g.pdf").write_bytes(b"%PDF-1.4 broken")
    return folder


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def chats(emulator):
    return [request for request in emulator.requests if request.path.endswith(CHAT)]


async def test_a_folder_of_all_formats(papers, env, emulator, tmp_path):
    out = tmp_path / "out.jsonl"
    result = await run("summarize", papers, "-o", out, env=env)
    assert (result.code, result.out) == (1, ""), "one is broken"
    found = rows(out)
    formats = [row["format"] for row in found]
    assert formats == ["text", "markdown", "html", "pdf", "docx", "jsonl", "jsonl", None]
    assert [row["error"] and row["error"]["code"] for row in found] == [None] * 7 + ["broken"]
    assert "Grüße aus Köln." in chats(emulator)[0].body["messages"][-1]["content"]
    # The table, and the summary.
    assert "g.pdf is a broken PDF" in re.sub(r"[\s│]+", " ", result.err)
    assert "7 documents summarised, 1 failed" in result.err
    assert re.search(r"cost +\$0\.00\d+", result.err)
    assert KEY not in result.err


async def test_a_long_document_is_split_and_resumed_after_a_kill(env, emulator, tmp_path):
    source, out = tmp_path / "long.txt", tmp_path / "out.md"
    source.write_text("\n\n".join(f"Paragraph {number}. " + "word " * 40 for number in range(40)))
    arguments = ["summarize", source, "-o", out, "--context", "1000", "--max-concurrency", "1"]
    emulator.script(None, None, path=CHAT)
    emulator.always(
        faults.Stall(after_chunks=None), path=CHAT, when=lambda _: not emulator.scripted
    )
    async with command(*arguments, env=env) as running:
        await emulator.wait_until(lambda: len(chats(emulator)) == 2)
        running.process.kill()
        await running.finish()
    await emulator.wait_until(lambda: emulator.in_flight == 0)
    emulator.clear()
    assert not out.exists()
    result = await run(*arguments, env=env)
    assert result.code == 0, result.err
    bodies = [json.dumps(request.body["messages"]) for request in chats(emulator)]
    assert len(bodies) == len(set(bodies)) + 1, "only what was in flight was asked again"
    text = out.read_text()
    assert "\n---\n\n# Summaries\n\n## " in text
    assert re.search(r", \d parts\*\n\nAbout \d+ characters\.", text)


async def test_ctrl_c_finishes_what_is_in_flight(env, emulator, tmp_path):
    go = asyncio.Event()

    async def answer(_):
        await go.wait()
        return "Fine."

    emulator.answer = answer
    for name in "abcd":
        (tmp_path / f"{name}.txt").write_text(f"Text {name}.")
    paths = sorted(tmp_path.glob("*.txt"))
    arguments = ["summarize", *paths, "-o", tmp_path / "out.jsonl", "--max-concurrency", "2"]
    async with terminal(*arguments, env=env) as shown:
        await emulator.wait_until(lambda: len(chats(emulator)) == 2)
        shown.type("\x03")
        await shown.wait_for("may finish")
        go.set()
        await shown.wait_for("2 documents summarised, 0 failed, 2 left")
        assert await shown.finish() == 130
    resumed = await run(*arguments, env=env)
    assert (resumed.code, len(chats(emulator))) == (0, 4)


async def test_the_second_ctrl_c_cancels(env, emulator, tmp_path):
    emulator.always(faults.Stall(after_chunks=None), path=CHAT)
    (tmp_path / "a.txt").write_text("Text.")
    async with command("summarize", tmp_path / "a.txt", "-o", tmp_path / "out", env=env) as running:
        await emulator.wait_until(lambda: chats(emulator))
        running.signal(signal.SIGINT)
        seen = b""
        async with asyncio.timeout(60):
            while b"may finish" not in seen:
                data = await running.process.stderr.read(4096)
                assert data, seen
                seen += data
        running.signal(signal.SIGINT)
        result = await running.finish()
    assert result.code == 130
    assert "0 documents summarised, 0 failed, 1 left" in result.err
    assert "Traceback" not in result.err


async def test_to_a_pipe_and_in_markdown(papers, env, tmp_path):
    (papers / "g.pdf").unlink()
    lines = await run("summarize", papers, env=env)
    assert (lines.code, len(lines.out.splitlines())) == (0, 7)
    assert all(json.loads(line)["summary"] for line in lines.out.splitlines())
    text = await run("summarize", papers / "b.md", "--format", "markdown", env=env)
    assert text.out.startswith("# Summaries\n")
    assert not list(tmp_path.glob("*.work"))


async def test_summaries_in_a_pipe_cannot_steer_a_terminal(env, emulator, tmp_path):
    said = "safe \x1b]52;c;b3duZWQ=\x07\x9b2J\x7f end"
    emulator.answer = lambda _: said
    (tmp_path / "a.txt").write_text("Text. " * 20)
    commands = {chr(code) for code in (*range(10), *range(11, 32), *range(0x7F, 0xA0))}
    for form in ("jsonl", "markdown"):
        result = await run("summarize", tmp_path / "a.txt", "--format", form, env=env)
        assert result.code == 0, result.err
        assert not commands & set(result.out)
        if form == "jsonl":
            assert json.loads(result.out)["summary"] == said, "escaped, and nothing is lost"


async def test_a_folder_gets_a_page_per_document_and_a_digest(papers, env, emulator, tmp_path):
    pages = tmp_path / "pages"
    for _ in range(2):
        result = await run("summarize", papers, "-o", f"{pages}/", "--digest", env=env)
        assert result.code == 1, "one is broken"
    names = sorted(path.name for path in pages.iterdir())
    assert names == ["a.txt.md", "b.md.md", "c.html.md", "d.pdf.md", "e.docx.md",
                     "f.jsonl_1.md", "f.jsonl_2.md", "g.pdf.md", "index.md"]  # fmt: skip
    page = (pages / "b.md.md").read_text()
    assert page.startswith('---\ntitle: "Title"\nsource: ')
    assert f"*[{papers}/b.md](../papers/b.md)*" in page.replace("\\", "")
    index = (pages / "index.md").read_text()
    asked = chats(emulator)
    assert len(asked) == 8, "nothing is paid twice"
    assert f"About {len(asked[-1].body['messages'][-1]['content'])} characters." in index
    assert "- [Title](b.md.md)\n" in index
    assert "g.pdf](g.pdf.md) (no summary)\n" in index


async def test_an_output_among_the_documents_is_none_of_them(papers, env, emulator):
    (papers / "g.pdf").unlink()
    for _ in range(2):
        result = await run("summarize", papers, "-o", papers / "out.md", env=env)
        assert result.code == 0
        assert "7 documents summarised" in result.err
    assert len(chats(emulator)) == 7


async def test_a_prompt_file(env, emulator, tmp_path):
    (tmp_path / "a.txt").write_text("Some text.")
    prompt = tmp_path / "prompt"
    prompt.write_bytes("\ufeffFür Anwälte.\n".encode())
    result = await run("summarize", tmp_path / "a.txt", "--prompt-file", prompt, env=env)
    assert result.code == 0, result.err
    assert chats(emulator)[0].body["messages"][0]["content"].endswith(": Für Anwälte.")
    prompt.write_bytes("Für Anwälte.".encode("latin-1"))
    result = await run("summarize", tmp_path / "a.txt", "--prompt-file", prompt, env=env)
    assert (result.code, result.err.splitlines()[-1]) == (
        2, f"Error: --prompt-file {prompt} is not UTF-8: invalid start byte at byte 1"
    )  # fmt: skip


async def test_options_reach_the_model(env, emulator, tmp_path):
    (tmp_path / "a.jsonl").write_text('{"note": "one"}\n{"note": "two"}\n')
    options = ["--field", "note", "--limit", "1", "--max-tokens", "77", "-t", "0.5",
               "--instructions", "In German.", "-m", "mistralai/Mistral-7B-Instruct-v0.1"]  # fmt: skip
    result = await run("summarize", tmp_path / "a.jsonl", *options, env=env)
    assert result.code == 0, result.err
    (request,) = chats(emulator)
    assert (request.body["max_tokens"], request.body["temperature"]) == (77, 0.5)
    assert request.body["model"] == "mistralai/Mistral-7B-Instruct-v0.1"
    assert "In German." in request.body["messages"][0]["content"]


async def test_calls_are_judged_and_priced_as_those_of_batches(env, emulator, tmp_path):
    for name in "abc":
        (tmp_path / f"{name}.txt").write_text(f"Text {name}. " * 9)
    done = await run(
        "summarize", tmp_path / "a.txt", "-o", tmp_path / "out.jsonl", "--price-in", "1000000",
        "--price-out", "0", "--progress", "none", env=env,
    )  # fmt: skip
    assert (done.code, "$" in done.err) == (0, True), done.err
    emulator.answer = lambda _body: ""
    done = await run(
        "summarize", tmp_path, "-o", tmp_path / "new.jsonl", "--fail-on", "empty",
        "--max-failures", "1", "--max-concurrency", "1", "--progress", "none", env=env,
    )  # fmt: skip
    assert (done.code, "too many rows failed" in done.err) == (3, True), done.err


async def test_a_dry_run_estimates(papers, env, emulator, tmp_path):
    (papers / "long.txt").write_text("A sentence of it. " * 3000)
    result = await run(
        "summarize", papers, "-o", tmp_path / "out", "--dry-run", "--context", "2000", env=env
    )
    assert result.code == 1, "one is broken"
    assert not chats(emulator)
    assert re.search(r"would send \d+ calls", result.err)
    assert re.search(r"more +then about \d+ calls for summaries of summaries", result.err)
    assert re.search(r"cost +up to \$0", result.err)
    assert "g.pdf is a broken PDF" in result.err
    assert [path.name for path in tmp_path.iterdir()] == ["papers"]


async def test_progress_names_its_stage_and_a_report_is_written(env, emulator, tmp_path):
    (tmp_path / "a.txt").write_text("A sentence of it. " * 500)
    options = [
        "--context",
        "1000",
        "--max-tokens",
        "50",
        "--progress",
        "json",
        "--report",
        tmp_path / "r.json",
    ]
    result = await run("summarize", tmp_path / "a.txt", *options, env=env)
    assert result.code == 0, result.err
    lines = [json.loads(line) for line in result.err.splitlines() if line.startswith("{")]
    stages = list(dict.fromkeys(line["stage"] for line in lines))
    assert stages == ["documents", "summaries of parts, round 1"]
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["done"] == len(chats(emulator)) == report["first_token"]["count"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "PATHS"),
        (["{tmp}"], "no documents found"),
        (["{tmp}", "-o", "{tmp}", "--format", "jsonl"], "folder"),
        (["{tmp}", "--local", "--digest"], "--digest"),
        (["{tmp}", "--restart"], "pipe"),
        (["{tmp}", "--context", "200"], "context"),
        (["{tmp}", "--local", "--instructions", "x"], "--instructions"),
    ],
)
async def test_wrong_usage(arguments, told, env, emulator, tmp_path):
    (tmp_path / "empty").mkdir()
    given = [argument.format(tmp=tmp_path / "empty") for argument in arguments]
    result = await run("summarize", *given, env=env)
    assert (result.code, result.out) == (2, ""), result.err
    assert told in result.err
    assert not chats(emulator)


async def test_a_wrong_key_ends_it(papers, env, tmp_path):
    wrong = {**env, "KONKO_API_KEY": "canary-of-a-wrong-key"}
    result = await run("summarize", papers, "-o", tmp_path / "out", env=wrong)
    assert result.code == 3
    assert "all rows would fail" in result.err
    assert "canary-of-a-wrong-key" not in result.err


@pytest.mark.local_model
async def test_local_summarises_with_the_real_model(tmp_path):
    pytest.importorskip("xllamacpp")
    (tmp_path / "a.md").write_text(
        "# leaftimer\n\nleaftimer is a Python library that measures how long functions take. It "
        "needs no changes to your code, and works with threads and asyncio.\n"
    )
    out = tmp_path / "out.jsonl"
    result = await run("summarize", tmp_path / "a.md", "-o", out, "--local", env=environment())
    assert result.code == 0, result.err
    (row,) = rows(out)
    assert row["read"] == "opening"
    assert re.search("python|library|function|measure", row["summary"], re.IGNORECASE)
    assert row["summary"].endswith(".")
