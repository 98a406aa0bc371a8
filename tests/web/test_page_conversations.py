"""Conversations that are kept: only where the reader wants it, and then by all means."""

import json

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import expect
from web_kit import Page, gated

from konko_async.testing import Answer

pytestmark = pytest.mark.asyncio(loop_scope="session")

NARROW = {"viewport": {"width": 390, "height": 800}, "has_touch": True, "is_mobile": True}
TURNS = 300  # benchmarks/bench_page.py has 1,000


async def check(page):
    results = await Axe().run(page.page)
    assert not results.response["violations"], results.generate_report()


async def keep(page):
    await page.page.click("#open-side")
    await page.page.get_by_role("switch", name="Keep conversations").check()
    await expect(page.page.locator("#keep-text")).to_contain_text("are kept in this browser")


async def ask(page, question, answer):
    await page.ask(question)
    await expect(page.prose()).to_have_text(answer)
    await expect(page.answer()).to_have_attribute("data-state", "done")


def row(page, title):
    return page.page.locator(".chat-open", has_text=title)


def titles(page):
    return page.page.locator(".chat-title")


async def databases(page):
    return await page.page.evaluate(
        "async () => (await indexedDB.databases()).map(({name}) => name)"
    )


async def downloaded(page, name):
    async with page.page.expect_download() as going:
        await page.page.get_by_role("button", name=name).click()
    download = await going.value
    path = await download.path()
    return download.suggested_filename, path.read_text(encoding="utf-8")


async def choose(page, text, name="chats.json"):
    file = {"name": name, "mimeType": "application/json", "buffer": text.encode()}
    await page.page.set_input_files("#import-file", file)


def long_conversation():
    """A file with many turns, each with what Markdown has."""
    text = "**bold** `code`\n\n1. one\n2. two\n\n```python\nx = 1\n```\n\n" + "Some words. " * 20
    turns = [
        {
            "id": f"t{n}",
            "parent": f"t{n - 1}" if n else None,
            "after": f"v{n - 1}" if n else "",
            "content": f"Question {n}",
            "time": n,
            "answers": [
                {"versions": [{"key": f"v{n}", "model": "maker/one", "text": f"Answer {n} {text}"}]}
            ],
        }
        for n in range(TURNS)
    ]
    conversations = [{"id": "long", "title": "Long", "turns": turns}]
    return {"format": "konko-chats", "version": 1, "conversations": conversations}


async def test_nothing_is_kept_unless_the_reader_wants_it(page, upstream, address):
    upstream.push(Answer.stream(["secret"]), Answer.stream(["more"]))
    await page.open(address)
    await expect(page.page.locator("#privacy")).to_contain_text("Nothing is kept")
    await ask(page, "Q", "secret")
    await page.page.click("#open-side")
    await expect(page.page.locator("#keep-text")).to_contain_text("Nothing is kept")
    assert await databases(page) == []
    # From the moment on at which it is switched on, with the chat that is seen.
    await page.page.get_by_role("switch", name="Keep conversations").check()
    await expect(titles(page)).to_have_text(["Q"])
    assert await databases(page) == ["konko.chats"]
    # And when it is switched off, all is deleted.
    await page.page.get_by_role("switch").press("Space")
    dialog = page.page.get_by_role("dialog", name="Keep nothing any more?")
    await dialog.get_by_role("button", name="Cancel").click()
    await expect(page.page.get_by_role("switch")).to_be_checked()
    await page.page.get_by_role("switch").press("Space")
    await dialog.get_by_role("button", name="Delete and keep nothing").click()
    await expect(page.page.locator("#keep-text")).to_contain_text("Nothing is kept")
    assert await databases(page) == []
    await expect(page.prose()).to_have_text("secret")
    await ask(page, "Q2", "more")
    assert await databases(page) == []
    assert "secret" not in await page.page.evaluate("JSON.stringify({...localStorage})")


async def test_conversations_are_opened_found_renamed_and_deleted_by_keyboard(
    new_context, upstream, address
):
    upstream.push(*(Answer.stream([text]) for text in ("light", "a zebra", "again")))
    context = await new_context()
    first = Page.of(await context.new_page())
    await first.open(address)
    await keep(first)
    await ask(first, "About stars", "light")
    await first.page.keyboard.press("Control+Shift+O")
    await ask(first, "About animals\nall of them", "a zebra")
    await expect(titles(first)).to_have_text(["About animals", "About stars"])
    await first.page.close()
    # Another tab, later.
    page = Page.of(await context.new_page())
    await page.open(address)
    keyboard, field = page.page.keyboard, page.page.locator("#side-search")
    await expect(titles(page)).to_have_text(["About animals", "About stars"])
    await keyboard.press("Control+k")
    await expect(field).to_be_focused()
    await keyboard.type("ZEBRA")
    await expect(page.page.locator("#live")).to_have_text("One conversation found")
    await expect(page.page.locator(".excerpt")).to_contain_text("a zebra")
    await keyboard.press("ArrowDown")
    await keyboard.press("Enter")
    await expect(page.prose()).to_have_text("a zebra")
    await keyboard.press("Control+k")
    await keyboard.press("Escape")
    await expect(field).to_have_value("")
    await expect(titles(page)).to_have_count(2)
    await keyboard.press("ArrowDown")
    await keyboard.press("ArrowDown")
    await expect(row(page, "About stars")).to_be_focused()
    await keyboard.press("F2")
    await keyboard.type("Suns")
    await keyboard.press("Enter")
    await expect(titles(page)).to_have_text(["About animals", "Suns"])
    await expect(row(page, "Suns")).to_be_focused()
    await keyboard.press("Enter")
    await expect(page.prose()).to_have_text("light")
    await ask(page, "And?", "again")
    await expect(titles(page)).to_have_text(["Suns", "About animals"])  # the latest first
    # One tab stop for all rows, the menu by its button.
    await row(page, "Suns").focus()
    await keyboard.press("ArrowRight")
    await keyboard.press("Enter")
    menu = page.page.get_by_role("dialog", name="Actions for Suns")
    await expect(menu.get_by_role("button", name="Rename")).to_be_focused()
    await check(page)
    await keyboard.press("ArrowUp")
    await keyboard.press("Enter")
    await expect(page.page.get_by_role("dialog", name="Delete this")).to_contain_text("Suns")
    await page.page.get_by_role("button", name="Delete", exact=True).click()
    await expect(titles(page)).to_have_text(["About animals"])
    await expect(row(page, "About animals")).to_be_focused()
    await expect(page.page.locator("#empty")).to_be_visible()
    await page.page.reload()
    await expect(titles(page)).to_have_text(["About animals"])


async def test_a_narrow_screen_has_a_drawer(new_page, upstream, address):
    upstream.push(Answer.stream(["one"]))
    page = await new_page(**NARROW)
    await page.open(address)
    await keep(page)
    await check(page)
    await page.page.keyboard.press("Escape")
    await expect(page.page.locator("#side")).to_be_hidden()
    await expect(page.page.locator("#open-side")).to_be_focused()
    await ask(page, "Q", "one")
    await page.page.get_by_role("button", name="New chat").click()
    await page.page.click("#open-side")
    await row(page, "Q").click()
    await expect(page.prose()).to_have_text("one")
    await expect(page.page.locator("#side")).to_be_hidden()
    assert await page.page.evaluate("document.scrollingElement.scrollWidth") <= 390


async def test_an_answer_is_written_on_while_another_conversation_is_seen(page, upstream, address):
    upstream.push(gated(["one ", "two"], 1), Answer.stream(["other"]))
    await page.open(address)
    await keep(page)
    await page.ask("Slow")
    await expect(page.prose()).to_have_text("one")
    await upstream.wait_for_stall(1)
    await page.page.get_by_role("button", name="New chat").first.click()
    await expect(row(page, "Slow")).to_contain_text("Being written")
    await ask(page, "Quick", "other")
    upstream.release()
    await expect(row(page, "Slow")).not_to_contain_text("Being written")
    await row(page, "Slow").click()
    await expect(page.prose()).to_have_text("one two")
    assert len(upstream.requests) == 2


async def test_a_tab_that_was_closed_goes_on_in_another_one(new_context, upstream, address):
    upstream.push(gated(["one ", "two ", "three"], 1, 2))
    context = await new_context()
    first = Page.of(await context.new_page())
    await first.open(address)
    await keep(first)
    await first.ask("Slow")
    await expect(first.prose()).to_have_text("one")
    await upstream.wait_for_stall(1)
    await first.page.reload()
    await expect(first.prose()).to_have_text("one")
    await first.page.close()
    upstream.release()
    second = Page.of(await context.new_page())
    await second.open(address)
    await row(second, "Slow").click()
    await expect(second.prose()).to_have_text("one two")
    await upstream.wait_for_stall(2)
    upstream.release()
    await expect(second.answer()).to_have_attribute("data-state", "done")
    await expect(second.prose()).to_have_text("one two three")
    assert len(upstream.requests) == 1


async def test_what_is_exported_is_imported_again(new_page, upstream, address):
    upstream.push(*(Answer.stream([text]) for text in ("old", "new", "**b**")))
    page = await new_page()
    await page.open(address)
    await ask(page, "Q / 1", "old")
    await page.answer().get_by_role("button", name="Retry").click()
    await expect(page.prose()).to_have_text("new")
    await page.ask("Q2")
    await expect(page.answer().locator("strong")).to_have_text("b")
    await expect(page.answer()).to_have_attribute("data-state", "done")
    await page.page.click("#open-side")  # nothing is kept, and yet it can be exported
    await page.page.click("#export")
    name, text = await downloaded(page, "This chat as Markdown")
    assert name == "q-1.md"
    assert text.startswith("# Q / 1\n\n*20")
    assert text.endswith(
        "*\n\n## You\n\nQ / 1\n\n## maker/one\n\nnew\n\n## You\n\nQ2\n\n## maker/one\n\n**b**\n"
    )
    await page.page.click("#export")
    name, text = await downloaded(page, "This chat as JSON")
    assert name == "q-1.json"
    # There: a browser that has never been here, with and without keeping.
    other = await new_page()
    await other.open(address)
    await choose(other, text)
    await expect(other.page.locator(".turn")).to_have_count(2)
    assert await databases(other) == []
    await keep(other)
    await (
        other.page.get_by_role("group", name="Versions of the answer")
        .get_by_label("Previous")
        .click()
    )
    await expect(other.prose()).to_have_text("old")
    await choose(other, text.replace("Q2", "Q3"))  # the same one, as far as its time says
    await expect(other.page.locator("#live")).to_have_text("0 imported, 1 were here already")
    found = json.loads(text)
    found["conversations"][0]["changed"] += 1
    await choose(other, json.dumps(found))  # it went on elsewhere: beside what is here
    await expect(titles(other)).to_have_text(["Q / 1", "Q / 1"])
    await expect(other.page.locator(".turn")).to_have_count(2)
    await other.page.click("#export")
    _, text = await downloaded(other, "All conversations as JSON")
    assert [len(one["turns"]) for one in json.loads(text)["conversations"]] == [2, 2]


BAD = {
    "{": "The file is not JSON",
    "[]": "not an export of this page",
    '{"format": "konko-chats", "version": 9}': "has version 9; this page reads version 1",
    '{"format": "konko-chats", "version": 1, "conversations": [{"id": "a", "title": "T", "turns": '
    '[{"id": "t", "parent": "x", "after": "", "content": "q", "time": 1, "answers": []}]}]}': (
        "conversations[0].turns: one must have no parent"
    ),
    '{"format": "konko-chats", "version": 1, "conversations": [{"id": "a", "title": "T", "turns": '
    '[{"id": "t", "parent": null, "after": "", "content": "q", "time": 1, "answers": '
    '[{"versions": [{"key": "k", "text": 1}]}]}]}]}': (
        "conversations[0].turns[0].answers[0].versions[0].text: must be a text"
    ),
}


async def test_a_file_that_does_not_fit_is_refused_with_its_place(page, address):
    await page.open(address)
    for text, problem in BAD.items():
        await choose(page, text)
        await expect(page.page.locator("#side-problem")).to_contain_text(problem)
    await expect(page.page.get_by_role("alert")).to_be_visible()


async def test_all_turns_of_a_long_conversation_are_there(page, address):
    await page.open(address)
    await keep(page)
    await choose(page, json.dumps(long_conversation()))
    # By selectors: an expectation that does not hold yet describes all of the page, each time.
    await page.page.locator(".turn.last", has_text=f"Question {TURNS - 1}").wait_for()
    await page.page.locator("#turns:not([aria-busy])").wait_for()
    # Pieces are drawn in their order, above what is seen; the end stays in view.
    questions = await page.page.evaluate(
        "[...document.querySelectorAll('.question-text')].map((one) => one.textContent)"
    )
    assert questions == [f"Question {n}" for n in range(TURNS)]
    top = "(n) => document.querySelectorAll('.turn')[n].getBoundingClientRect().top"
    assert await page.page.evaluate(top, TURNS - 1) < 800
    await page.page.fill("#side-search", "answer 123")
    await page.page.locator(".excerpt", has_text="Answer 123").wait_for()
    await row(page, "Long").click()
    assert 0 <= await page.page.evaluate(top, 123) < 800
