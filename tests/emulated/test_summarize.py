"""Map and reduce over sockets: what is asked, what is paid, what a stop and a crash leave."""

import asyncio
import json
import re
import stat

import pytest

from konko_async import AsyncKonko, ConfigurationError
from konko_async.batch import BatchLockedError, BatchOutputError, Stop
from konko_async.documents import Document, DocumentError
from konko_async.summarize import context_of, default_style, summarize, tokens_in
from konko_async.testing import Emulator, faults

MODEL = "meta-llama/llama-2-13b-chat"
CHAT = "/chat/completions"
CONTEXT = 1000


def document(name, paragraphs=1):
    text = "\n\n".join(
        f"{name}, paragraph {number}. " + ("Words of it. " * 20).strip()
        for number in range(paragraphs)
    )
    return Document(name=name, text=text.strip(), format="text")


def text_of(body):
    """The text that a request asks about."""
    return re.search(r"<document>\n(.*)\n</document>", body["messages"][-1]["content"], re.DOTALL)[
        1
    ]


def kind_of(body):
    for kind, words in (
        ("merge", "consecutive parts"),
        ("part", "this part"),
        ("whole", "this document"),
    ):
        if words in body["messages"][-1]["content"]:
            return kind
    return None


def answer(body):
    return f"Summary of {len(text_of(body))} characters."


@pytest.fixture
async def emulator():
    async with Emulator(answer=answer) as running:
        yield running


@pytest.fixture
async def client(emulator):
    async with AsyncKonko(emulator.api_key, emulator.base_url, retry=None) as made:
        yield made


@pytest.fixture
def style():
    return default_style(MODEL, context=CONTEXT, max_tokens=100)


@pytest.fixture
def bodies(emulator):
    """What was asked until now; a function, as it grows."""
    return lambda: [request.body for request in emulator.requests if request.path.endswith(CHAT)]


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


async def test_a_short_document_is_one_streamed_call(client, style, bodies, tmp_path):
    report = await summarize(client, lambda: [document("a")], tmp_path / "out.jsonl", style=style)
    (body,) = bodies()
    assert (body["model"], body["stream"], body["max_tokens"]) == (MODEL, True, 100)
    assert kind_of(body) == "whole"
    (row,) = rows(tmp_path / "out.jsonl")
    assert row["document"] == "a"
    assert row["summary"] == answer(body)
    assert (row["parts"], row["read"], row["error"]) == (1, "all", None)
    assert (report.done, report.failed, report.left, report.exit_code) == (1, 0, 0, 0)
    assert report.calls.first_token.total == 1


async def test_a_long_one_is_split_and_its_summaries_are_merged(client, style, bodies, tmp_path):
    found = document("long", 60)
    report = await summarize(client, lambda: [found], tmp_path / "out.jsonl", style=style)
    parts = [body for body in bodies() if kind_of(body) == "part"]
    (merge,) = [body for body in bodies() if kind_of(body) == "merge"]
    assert len(parts) > 5
    texts = sorted((text_of(body) for body in parts), key=found.text.index)
    assert "\n\n".join(texts) == found.text, "nothing was lost, and cuts are at paragraphs"
    assert all(tokens_in(text) <= style.room for text in texts)
    # In the order of the document.
    assert text_of(merge).split("\n\n") == [f"Summary of {len(text)} characters." for text in texts]
    (row,) = rows(tmp_path / "out.jsonl")
    assert row["parts"] == len(parts)
    assert row["summary"] == answer(merge)
    assert report.rounds == 2


async def test_summaries_that_are_too_many_are_merged_in_rounds(client, emulator, style, tmp_path):
    emulator.answer = lambda body: f"{kind_of(body)}. " + "Long. " * 60
    report = await summarize(client, lambda: [document("x", 200)], tmp_path / "out", style=style)
    assert report.rounds > 2
    (row,) = rows(tmp_path / "out")
    assert row["summary"].startswith("merge.")


async def test_summaries_that_do_not_get_shorter_end(client, emulator, style, tmp_path):
    emulator.answer = lambda _: "No shorter. " * 150
    style = default_style(MODEL, context=CONTEXT, max_tokens=700)
    report = await summarize(client, lambda: [document("x", 60)], tmp_path / "out", style=style)
    assert report.summaries[0].error["code"] == "no_progress"
    assert report.exit_code == 1


async def test_the_same_text_is_paid_once(client, style, bodies, tmp_path):
    twins = [document("a", 20), Document(name="copy", text=document("a", 20).text, format="text")]
    report = await summarize(client, lambda: twins, tmp_path / "out", style=style)
    keys = [json.dumps(body["messages"]) for body in bodies()]
    assert len(set(keys)) == len(keys)
    assert report.summaries[0].summary == report.summaries[1].summary is not None


async def test_nothing_is_paid_twice(client, style, bodies, tmp_path):
    found = [document("a"), document("b", 40)]
    await summarize(client, lambda: found, tmp_path / "out", style=style)
    first = len(bodies())
    again = await summarize(client, lambda: found, tmp_path / "out", style=style)
    assert (len(bodies()), again.done) == (first, 2)
    # Another document costs its own call, wherever it comes.
    found.insert(0, document("new"))
    more = await summarize(client, lambda: found, tmp_path / "out", style=style)
    assert (len(bodies()), more.done) == (first + 1, 3)
    assert [row["document"] for row in rows(tmp_path / "out")] == ["new", "a", "b"]
    anew = await summarize(client, lambda: found, tmp_path / "out", style=style, restart=True)
    assert (len(bodies()), anew.done) == (2 * first + 2, 3)


async def test_documents_that_cannot_be_read_are_rows(client, style, bodies, tmp_path):
    broken = DocumentError("x.pdf is encrypted", name="x.pdf", code="encrypted")
    report = await summarize(client, lambda: [broken, document("a")], tmp_path / "out", style=style)
    first, second = rows(tmp_path / "out")
    assert first["error"] == {"code": "encrypted", "message": "x.pdf is encrypted"}
    assert first["summary"] is None
    assert second["summary"]
    assert (report.exit_code, len(bodies())) == (1, 1)
    none = await summarize(client, lambda: [broken], tmp_path / "none", style=style)
    assert (none.failed, len(rows(tmp_path / "none"))) == (1, 1)


async def test_a_part_that_fails_fails_its_document_alone(
    client, emulator, style, bodies, tmp_path
):
    found = [document("bad", 20), document("good")]
    emulator.script(faults.Status(400), path=CHAT)
    options = {"style": style, "max_concurrency": 1}
    report = await summarize(client, lambda: found, tmp_path / "out", **options)
    bad, good = report.summaries
    assert bad.error["code"] == "bad_request"
    assert bad.error["message"].startswith("part 1 of ")
    assert good.summary
    before = len(bodies())
    mended = await summarize(client, lambda: found, tmp_path / "out", retry_failed=True, **options)
    assert mended.done == 2
    assert len(bodies()) == before + 2, "the part that failed, and the merging"


async def test_an_empty_answer_is_an_error(client, emulator, style, tmp_path):
    emulator.answer = lambda _: " \n"
    report = await summarize(client, lambda: [document("a")], tmp_path / "out", style=style)
    assert report.summaries[0].error["code"] == "empty_answer"


def too_long(limit):
    """Refuse what is longer than a real model's context: the list told a wrong one."""

    def when(call):
        return len(text_of(call.body)) > limit

    body = {
        "error": {
            "message": "too long",
            "code": "context_length_exceeded",
            "type": "invalid_request_error",
        }
    }
    return faults.Status(400, body=json.dumps(body)), when


async def test_a_context_smaller_than_told_splits_further(
    client, emulator, style, bodies, tmp_path
):
    fault, when = too_long(700)
    emulator.always(fault, path=CHAT, when=when)
    found = [document("long", 20), document("short")]
    report = await summarize(client, lambda: found, tmp_path / "out", style=style)
    assert (report.done, report.failed) == (2, 0)
    assert all(len(text_of(body)) <= 700 or kind_of(body) != "merge" for body in bodies())
    assert report.summaries[0].parts > 20 * len(document("x").text) // 700


@pytest.mark.parametrize("later", [[document("b", 5)], []])
async def test_a_document_that_changed_before_it_was_read_again(
    later, client, emulator, style, tmp_path
):
    fault, when = too_long(10)
    emulator.always(fault, path=CHAT, when=when)
    versions = iter([[document("a", 5)], later])
    report = await summarize(client, lambda: next(versions), tmp_path / "out", style=style)
    assert report.summaries[0].error["code"] == "changed"


async def test_a_context_that_nothing_fits_into_fails_in_the_end(client, emulator, style, tmp_path):
    fault, when = too_long(0)
    emulator.always(fault, path=CHAT, when=when)
    report = await summarize(client, lambda: [document("a", 3)], tmp_path / "out", style=style)
    assert report.summaries[0].error["code"] == "context_length_exceeded"


async def test_a_stop_keeps_what_is_finished(client, emulator, style, bodies, tmp_path):
    go, stop = asyncio.Event(), Stop()

    async def held(body):
        if len(bodies()) > 2:
            await go.wait()
        return answer(body)

    emulator.answer = held
    found = [document(name) for name in "abcdef"]
    options = {"style": style, "max_concurrency": 2}
    running = asyncio.create_task(
        summarize(client, lambda: found, tmp_path / "out", stop=stop, **options)
    )
    await emulator.wait_until(lambda: len(bodies()) >= 4)
    stop.request()
    go.set()
    report = await running
    assert report.exit_code == 130
    assert (report.done, report.left) == (4, 2)
    assert len(rows(tmp_path / "out")) == 4
    resumed = await summarize(client, lambda: found, tmp_path / "out", **options)
    assert (resumed.done, len(bodies())) == (6, 6)


async def test_a_stop_while_reading_leaves_the_last_output(client, style, bodies, tmp_path):
    found = [document("a"), document("b", 40)]
    await summarize(client, lambda: found, tmp_path / "out", style=style)
    before, calls, stop = (tmp_path / "out").read_bytes(), len(bodies()), Stop()

    def stopping():
        yield found[0]
        stop.request()
        yield found[1]

    report = await summarize(client, stopping, tmp_path / "out", style=style, stop=stop)
    assert report.exit_code == 130
    assert ((tmp_path / "out").read_bytes(), len(bodies())) == (before, calls)


async def test_cancellation_leaves_nothing_running(client, emulator, style, tmp_path):
    emulator.always(faults.Stall(after_chunks=None), path=CHAT)
    running = asyncio.create_task(
        summarize(client, lambda: [document("a")], tmp_path / "out", style=style)
    )
    await emulator.wait_until(lambda: emulator.in_flight == 1)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    emulator.clear()
    report = await summarize(client, lambda: [document("a")], tmp_path / "out", style=style)
    assert report.done == 1, "the lock was let go"


async def test_limits_of_cost_and_tokens_hold_over_all_rounds(client, style, tmp_path):
    found = [document("long", 60)]
    whole = await summarize(client, lambda: found, tmp_path / "whole", style=style)
    assert whole.calls.cost > 0
    used = whole.calls.prompt_tokens + whole.calls.completion_tokens
    few = await summarize(
        client, lambda: found, tmp_path / "few", style=style, max_tokens_total=used // 2
    )
    assert (few.calls.stopped, few.left) == ("max_tokens_total", 1)
    cheap = await summarize(
        client, lambda: found, tmp_path / "cheap", style=style, max_cost=whole.calls.cost / 2
    )
    assert cheap.calls.stopped == "max_cost"


async def test_a_dry_run_asks_and_writes_nothing(client, style, bodies, tmp_path):
    found = [document("a"), document("long", 60)]
    report = await summarize(client, lambda: found, tmp_path / "out", style=style, dry_run=True)
    assert report.calls.estimate.rows == sum(entry.parts for entry in report.summaries)
    assert report.more == 3, "9 parts: two calls for their summaries, one for those two"
    assert not bodies()
    assert not list(tmp_path.iterdir())
    await summarize(client, lambda: found, tmp_path / "out", style=style)
    after = await summarize(client, lambda: found, tmp_path / "out", style=style, dry_run=True)
    assert after.calls.estimate.rows == 0


async def test_the_report_covers_all_rounds(client, style, bodies, tmp_path):
    report = await summarize(client, lambda: [document("x", 60)], tmp_path / "out", style=style)
    calls = report.calls
    assert calls.done == calls.rows == calls.latency.total == len(bodies())
    assert [sample.done for sample in calls.history] == sorted(
        sample.done for sample in calls.history
    )
    assert calls.history[-1].done == calls.done
    assert calls.currency == "USD"


async def test_two_runs_and_outputs_that_cannot_be_written(client, emulator, style, tmp_path):
    emulator.always(faults.Stall(after_chunks=None), path=CHAT)
    arguments = (client, lambda: [document("a")], tmp_path / "out")
    running = asyncio.create_task(summarize(*arguments, style=style))
    await emulator.wait_until(lambda: emulator.in_flight == 1)
    with pytest.raises(BatchLockedError, match="in use"):
        await summarize(*arguments, style=style)
    running.cancel()
    await asyncio.wait([running])
    for path in (tmp_path, tmp_path / "nosuch" / "out"):
        with pytest.raises(BatchOutputError, match="folder"):
            await summarize(client, lambda: [document("a")], path, style=style)


async def test_a_file_that_is_not_ours_is_not_written_over(client, style, bodies, tmp_path):
    out = tmp_path / "README.md"
    out.write_text("Precious.")
    with pytest.raises(BatchOutputError, match="exists"):
        await summarize(client, lambda: [document("a")], out, style=style)
    assert (out.read_text(), bodies()) == ("Precious.", [])
    await summarize(client, lambda: [document("a")], out, style=style, restart=True)
    assert "Precious" not in out.read_text()


async def test_what_is_kept_is_private(client, style, tmp_path):
    await summarize(client, lambda: [document("a")], tmp_path / "out", style=style)
    for path in tmp_path.rglob("*"):
        assert not stat.S_IMODE(path.stat().st_mode) & 0o077, path


async def test_markdown(client, emulator, style, tmp_path):
    emulator.answer = lambda _: "It is *fine*."
    titled = Document(name="a_b.md", title="A # title", text="Text.", format="markdown")
    broken = DocumentError("x is empty", name="x", code="empty")
    await summarize(
        client, lambda: [titled, broken], tmp_path / "out.md", style=style, form="markdown"
    )
    assert (tmp_path / "out.md").read_text() == (
        "# Summaries\n\n## A \\# title\n\n*a\\_b.md*\n\nIt is *fine*.\n\n## x\n\n**No summary:** x is empty\n"
    )


async def test_the_context_is_what_the_model_list_tells(client, emulator):
    assert await context_of(client, MODEL) == emulator.models[MODEL]["max_context_length"]
    assert await context_of(client, "nosuch") is None
    emulator.always(faults.Status(404), path="/models")
    assert await context_of(client, MODEL) is None


def test_a_context_without_room_is_refused():
    with pytest.raises(ConfigurationError, match="context"):
        default_style(MODEL, context=500, max_tokens=400)


async def test_instructions_go_into_the_system_message(client, bodies, tmp_path):
    style = default_style(MODEL, context=2000, instructions="Auf Deutsch.")
    await summarize(client, lambda: [document("a")], tmp_path / "out", style=style)
    assert bodies()[0]["messages"][0]["content"].endswith("\nAuf Deutsch.")
