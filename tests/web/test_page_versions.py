"""Turns that are edited, asked again and continued; versions to page through; where it is said."""

import json

import pytest
from playwright.async_api import expect
from web_kit import gated

from konko_async.testing import Answer

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def asked(upstream):
    return [
        [message["content"] for message in json.loads(request.body)["messages"]]
        for request in upstream.requests
    ]


async def texts(page):
    """The questions and answers that are seen, from the first to the last."""
    # Answers are drawn in the next frame.
    await page.page.evaluate("new Promise((done) => requestAnimationFrame(() => setTimeout(done)))")
    return await page.page.locator(".question-text, .prose").all_inner_texts()


def turn(page, place):
    return page.page.locator(".turn").nth(place)


async def test_any_turn_is_edited_and_each_version_has_its_own_sequel(page, upstream, address):
    upstream.push(*(Answer.stream([text]) for text in ("a1", "a2", "b1", "c1", "d1")))
    await page.open(address)
    for question, answer in (("A", "a1"), ("A?", "a2")):
        await page.ask(question)
        await expect(page.prose()).to_have_text(answer)
    await turn(page, 0).get_by_role("button", name="Edit").click()
    await expect(page.page.locator("#editing")).to_contain_text("Editing your question 1 of 2")
    await page.ask("B")
    await expect(page.prose()).to_have_text("b1")
    assert await texts(page) == ["B", "b1"]
    await page.ask("B?")
    await expect(page.prose()).to_have_text("c1")
    # Back to the first version by the keyboard, which stays where it is.
    pager = turn(page, 0).get_by_role("group", name="Versions of the question")
    await expect(pager).to_contain_text("2/2")
    await expect(pager.get_by_role("button", name="Next")).to_be_disabled()
    await pager.get_by_role("button", name="Previous version of the question").press("Enter")
    assert await texts(page) == ["A", "a1", "A?", "a2"]
    await expect(pager.get_by_role("button", name="Next")).to_be_focused()
    await expect(page.page.locator("#live")).to_have_text("Question: version 1 of 2")
    await page.page.keyboard.press("Enter")
    assert await texts(page) == ["B", "b1", "B?", "c1"]
    await page.ask("more")
    await expect(page.prose()).to_have_text("d1")
    assert (await asked(upstream))[2:] == [
        ["B"],
        ["B", "b1", "B?"],
        ["B", "b1", "B?", "c1", "more"],
    ]
    # Which version is seen survives a reload.
    await pager.get_by_role("button", name="Previous").click()
    await page.page.reload()
    await expect(turn(page, 1).locator(".prose")).to_have_text("a2")
    assert await texts(page) == ["A", "a1", "A?", "a2"]


async def test_any_answer_is_asked_again(page, upstream, address):
    upstream.push(*(Answer.stream([text]) for text in ("one", "two", "uno", "due")))
    await page.open(address)
    for question, answer in (("Q1", "one"), ("Q2", "two")):
        await page.ask(question)
        await expect(page.prose()).to_have_text(answer)
    await turn(page, 0).get_by_role("button", name="Retry").click()
    await expect(page.prose()).to_have_text("uno")
    await expect(page.page.locator(".turn")).to_have_count(1)  # what followed was about another
    pager = turn(page, 0).get_by_role("group", name="Versions of the answer")
    await pager.get_by_role("button", name="Previous").click()
    assert await texts(page) == ["Q1", "one", "Q2", "two"]
    await pager.get_by_role("button", name="Next").click()
    await page.ask("Q3")
    await expect(page.prose()).to_have_text("due")
    assert (await asked(upstream))[2:] == [["Q1"], ["Q1", "uno", "Q3"]]


async def test_an_answer_in_which_nothing_came_is_no_version(page, upstream, address):
    upstream.push(Answer.error(500, "no"), Answer.stream(["yes"]))
    await page.open(address)
    await page.ask()
    await page.answer().locator(".error").get_by_role("button", name="Retry").click()
    await expect(page.prose()).to_have_text("yes")
    await expect(page.page.locator(".versions")).to_have_count(0)


async def test_other_versions_are_written_on_while_another_is_seen(page, upstream, address):
    upstream.push(Answer.stream(["old"]), gated(["new ", "end"], 1))
    await page.open(address)
    await page.ask()
    await expect(page.answer()).to_have_attribute("data-state", "done")
    await page.answer().get_by_role("button", name="Retry").click()
    await expect(page.prose()).to_have_text("new")
    await upstream.wait_for_stall(1)
    await page.answer().get_by_role("button", name="Previous").click()
    await expect(page.prose()).to_have_text("old")
    upstream.release()
    await expect(page.page.locator("#send")).to_be_visible()
    await page.answer().get_by_role("button", name="Next").click()
    await expect(page.prose()).to_have_text("new end")


async def test_keys_edit_the_last_question_and_give_the_draft_back(page, upstream, address):
    upstream.push(Answer.stream(["one"]), Answer.stream(["two"]))
    await page.open(address)
    keyboard, field = page.page.keyboard, page.page.locator("#question")
    await keyboard.press("ArrowUp")
    await expect(page.page.locator("#editing")).to_be_hidden()  # there is none yet
    await page.ask("first")
    await expect(page.answer()).to_have_attribute("data-state", "done")
    await keyboard.press("ArrowUp")
    await expect(field).to_have_value("first")
    await expect(page.page.locator("#editing")).to_contain_text("Editing your last question")
    await keyboard.press("Escape")
    await expect(field).to_have_value("")
    await field.fill("a draft")
    await keyboard.press("ArrowUp")  # moves in the text, as anywhere
    await expect(field).to_have_value("a draft")
    await turn(page, 0).get_by_role("button", name="Edit").press("Enter")
    await expect(field).to_have_value("first")
    await keyboard.press("Escape")
    await expect(field).to_have_value("a draft")
    await expect(page.page.locator("#editing")).to_be_hidden()
    await page.page.get_by_role("button", name="Edit").click()
    await page.ask("second")
    await expect(page.prose()).to_have_text("two")
    await expect(field).to_have_value("a draft")
    await keyboard.press("Control+Shift+O")
    await expect(page.page.locator("#empty")).to_be_visible()
    await expect(field).to_be_focused()
    await expect(field).to_have_value("a draft")


async def test_a_stopped_answer_is_continued_and_says_so_where_it_ends(page, upstream, address):
    first = ["Once upon a time ", "there was a fox", " and more"]
    # The model says its last words again before it goes on.
    upstream.push(gated(first, 2), Answer.stream(["there was ", "a fox", " that ran."]))
    await page.open(address)
    await page.ask("A tale")
    await expect(page.prose()).to_have_text("Once upon a time there was a fox")
    await upstream.wait_for_stall(1)
    await page.page.keyboard.press("Escape")
    status = page.answer().locator(".status")
    await expect(status).to_have_text("Stopped")
    await expect(page.page.locator("#live")).to_contain_text("was stopped after 8 words")
    end = await page.prose().bounding_box()
    box = await status.bounding_box()
    assert 0 <= box["y"] - end["y"] - end["height"] < 40  # px below the last line
    await page.page.reload()  # what was stopped can be continued later, too
    await page.answer().get_by_role("button", name="Continue").press("Enter")
    await expect(page.answer()).to_have_attribute("data-state", "done")
    await expect(page.prose()).to_have_text("Once upon a time there was a fox that ran.")
    await expect(page.page.get_by_role("button", name="Continue")).to_be_hidden()
    await expect(page.page.locator(".versions")).to_have_count(0)
    sent = json.loads(upstream.requests[1].body)["messages"]
    assert [message["role"] for message in sent] == ["user", "assistant", "user"]
    assert sent[1]["content"] == "Once upon a time there was a fox"


# Every way to cut what comes, in two; and character by character.
CUT = """
async ([tail, came]) => {
    const { Seam } = await import("/assets/js/stream/seam.js");
    const read = (pieces) => {
        const seam = new Seam(tail);
        return pieces.map((piece) => seam.take(piece)).join("") + seam.end();
    };
    const cuts = [...came].map((_, at) => read([came.slice(0, at), came.slice(at)]));
    return [...new Set([...cuts, read([...came])])];
}
"""


async def test_what_is_said_twice_is_found_however_it_is_cut(page, address):
    await page.open(address)
    tail = "Once upon a time there was a fox"
    for came, new in (
        ("there was a fox that ran", " that ran"),
        ("time there was a fox", ""),
        (" that ran", " that ran"),
        ("ox and fox", "ox and fox"),  # two letters are a chance
        ("Once upon a time there was a fox", ""),
        ("Once upon a time there were two", "Once upon a time there were two"),
        ("a time, long ago", "a time, long ago"),
        ("", ""),
    ):
        assert await page.page.evaluate(CUT, [tail, came]) == [new]
