"""The page in use: by keyboard, with several models, on a phone, when things go wrong."""

import json
import re

import pytest
from playwright.async_api import expect
from web_kit import MODELS, Page, gated, relay

from konko_async.testing import Answer, Emulator, faults

pytestmark = pytest.mark.asyncio(loop_scope="session")

NARROW = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}
WIDE_TEXT = (
    "averyveryverylongwordthatgoesonandonandonandonwithoutanyspaceatallinit\n\n"
    "```\nx = a_function_with_a_long_name(1, 2, 3) + another_function_with_a_long_name(4, 5, 6)\n```\n\n"
    "| one | two | three | four | five | six |\n|---|---|---|---|---|---|\n| a | b | c | d | e | f |\n\n"
    "https://example.com/a/very/long/address/that/has/no/end/and/no/space/in/it/whatsoever?x=1\n"
)


async def bodies(upstream):
    return [json.loads(request.body) for request in upstream.requests]


async def test_everything_can_be_done_with_the_keyboard(page, upstream, address):
    upstream.push(gated(["one ", "two"], 1), Answer.stream(["three"]), Answer.stream(["four"]))
    keyboard = page.page.keyboard
    question = page.page.locator("#question")
    await page.open(address)
    await expect(question).to_be_focused()
    await keyboard.type("first line")
    await keyboard.press("Shift+Enter")
    await keyboard.type("second")
    await keyboard.press("Enter")
    await expect(page.prose()).to_have_text("one")
    await expect(question).to_be_focused()
    await expect(question).to_have_value("")
    await keyboard.press("Escape")
    await expect(page.answer()).to_have_attribute("data-state", "stopped")
    (body,) = await bodies(upstream)
    assert body["messages"][-1]["content"] == "first line\nsecond"
    # To the answer's buttons and back.
    await page.answer().get_by_role("button", name="Retry").focus()
    await keyboard.press("Enter")
    await expect(page.prose()).to_have_text("three")
    await keyboard.press("/")
    await expect(question).to_be_focused()
    await expect(question).to_have_value("")
    await keyboard.type("a / b")
    await keyboard.press("Enter")
    await expect(page.prose()).to_have_text("four")
    assert (await bodies(upstream))[-1]["messages"][-1]["content"] == "a / b"


async def test_every_control_is_reached_by_tab_and_its_focus_is_seen(page, upstream, address):
    upstream.push(Answer.stream(["[link](http://a.example)\n\n```\ncode\n```\n"]))
    await page.open(address)
    await page.ask()
    await expect(page.answer()).to_have_attribute("data-state", "done")
    seen = []
    for _ in range(50):
        await page.page.keyboard.press("Tab")
        name, outline = await page.page.evaluate(
            """() => {
                const one = document.activeElement;
                const style = getComputedStyle(one.id === "question" ? one.closest(".field") : one);
                const ring = one.id === "question" ? style.boxShadow : style.outlineStyle;
                const name = one.getAttribute("aria-label") || one.id || one.textContent;
                return [one === document.body ? "BODY" : name, ring];
            }"""
        )
        if name == "BODY" and seen:  # once around
            break
        if name == "BODY" or (not seen and name != "Skip to the question"):
            continue  # we began in the middle
        seen.append(name)
        assert outline != "none", name
    wanted = ["Skip to the question", "picker-open", "New chat", "Settings", "Dark theme", "Edit"]
    wanted += ["Live link", "link", "Copy this code", "Code", "Copy", "Retry", "Attach", "question"]
    assert [name for name in seen if name in wanted] == wanted


async def test_several_models_side_by_side(page, address, upstream):
    upstream.push(*(gated([f"from {n}", " end"], 1) for n in range(3)))
    await page.open(address)
    await page.choose(3)
    await expect(page.page.locator("#picker-label")).to_have_text("3 models")
    await page.ask("Compare")
    for place in range(3):
        await expect(page.prose(place)).to_contain_text("from ")
    await upstream.wait_for_stall(3)
    boxes = [await page.answer(place).bounding_box() for place in range(3)]
    assert len({box["y"] for box in boxes}) == 1
    assert boxes[0]["x"] + boxes[0]["width"] <= boxes[1]["x"] < boxes[2]["x"]
    upstream.release()
    for place in range(3):
        await expect(page.prose(place)).to_contain_text(" end")
        await expect(page.answer(place)).to_have_attribute("data-state", "done")
    assert sorted(body["model"] for body in await bodies(upstream)) == sorted(MODELS[:3])
    # Each goes on with what it said itself.
    answers = [await page.prose(place).inner_text() for place in range(3)]
    upstream.push(*(Answer.stream(["more"]) for _ in range(3)))
    await page.ask("And?")
    for place in range(3):
        await expect(page.prose(place)).to_have_text("more")
    later = (await bodies(upstream))[3:]
    for body in later:
        said = answers[MODELS.index(body["model"])]
        assert [m["content"] for m in body["messages"]] == ["Compare", said, "And?"]


async def test_no_fifth_model_and_never_none(page, upstream):
    async with relay(upstream.base_url, models=[f"m{n}" for n in range(9)]) as (address, _):
        await page.open(address)
        await page.page.click("#picker-open")
        boxes = page.page.locator("#picker-list input")
        await expect(page.page.locator("#picker-filter")).to_be_focused()
        await expect(boxes.nth(0)).to_be_disabled()
        for place in (1, 2, 3):
            await boxes.nth(place).check()
        await expect(boxes.nth(4)).to_be_disabled()
        await page.page.fill("#picker-filter", "m7")
        await expect(page.page.locator(".picker-row:visible")).to_have_count(1)
        await page.page.close()


async def test_retry_and_edit_of_the_last_question(page, upstream, address):
    upstream.push(*(Answer.stream([text]) for text in ("first", "again", "other", "last")))
    await page.open(address)
    await page.ask("Q1")
    await expect(page.prose()).to_have_text("first")
    await page.answer().get_by_role("button", name="Retry").click()
    await expect(page.prose()).to_have_text("again")
    await page.page.get_by_role("button", name="Edit").click()
    await expect(page.page.locator("#question")).to_have_value("Q1")
    await expect(page.page.locator("#editing")).to_be_visible()
    await page.ask("Q2")
    await expect(page.prose()).to_have_text("other")
    await expect(page.page.locator("#editing")).to_be_hidden()
    await page.ask("Q3")
    await expect(page.prose()).to_have_text("last")
    await expect(page.page.locator(".turn")).to_have_count(2)
    await expect(page.page.get_by_role("button", name="Edit")).to_have_count(2)
    asked = [[m["content"] for m in body["messages"]] for body in await bodies(upstream)]
    assert asked == [["Q1"], ["Q1"], ["Q2"], ["Q2", "other", "Q3"]]


async def test_settings_are_sent_and_survive_a_reload(page, upstream, address):
    upstream.push(Answer.stream(["a"]), Answer.stream(["b"]))
    await page.open(address)
    await page.page.get_by_role("button", name="Settings").click()
    await page.page.get_by_label("System prompt").fill("Be brief.")
    await page.page.get_by_label("Temperature").fill("0.3")
    await page.page.get_by_label("Max tokens").fill("50")
    await page.page.get_by_role("button", name="Done").click()
    await page.ask()
    await expect(page.prose()).to_have_text("a")
    await page.page.reload()
    await page.page.locator("#composer").wait_for()
    await page.page.get_by_role("button", name="New chat").click()
    await page.ask()
    await expect(page.prose()).to_have_text("b")
    for body in await bodies(upstream):
        assert body["messages"][0] == {"role": "system", "content": "Be brief."}
        assert (body["temperature"], body["max_tokens"], len(body["messages"])) == (0.3, 50, 2)


async def test_new_chat_stops_and_forgets(page, upstream, address):
    upstream.push(gated(["a ", "b"], 1))
    await page.open(address)
    await page.ask()
    await expect(page.prose()).to_have_text("a")
    await page.page.get_by_role("button", name="New chat").click()
    await upstream.wait_until_closed(1)
    await expect(page.page.locator("#empty")).to_be_visible()
    assert "Hello?" not in await page.page.evaluate("JSON.stringify({...sessionStorage})")
    await page.page.reload()
    await expect(page.page.locator("#empty")).to_be_visible()


@pytest.mark.parametrize(
    ("fault", "title", "button"),
    [
        (
            faults.Status(429, retry_after_ms=30_000),
            "The model is busy",
            re.compile(r"^Retry in \d+ s$"),
        ),
        (faults.Status(500), "The model’s server failed", "Retry"),
        (faults.Status(400), "The request was refused", "Retry"),
        (faults.Cut(after_chunks=3), "The answer was cut off", "Retry"),
    ],
    ids=["busy", "failed", "refused", "cut"],
)
async def test_what_goes_wrong_is_said_with_what_to_do(page, emulator, fault, title, button):
    emulator.script(fault)
    async with relay(emulator.base_url, models=["codellama/codellama-13b-instruct"]) as (
        address,
        _,
    ):
        await page.open(address)
        await page.ask()
        error = page.answer().locator(".error")
        await expect(error.locator("h4")).to_have_text(title)
        await expect(error.get_by_role("button")).to_have_text(button)
        await expect(page.page.locator("#live")).to_contain_text(title)
        if button == "Retry":
            await error.get_by_role("button").click()
            await expect(page.answer()).to_have_attribute("data-state", "done")
            await expect(error).to_have_count(0)
        await page.page.close()


async def test_a_relay_that_is_gone(page, upstream):
    async with relay(upstream.base_url) as (address, _):
        await page.open(address)
    await page.ask()
    await expect(page.answer().locator(".error h4")).to_have_text("The relay cannot be reached")


async def test_a_token_is_asked_for_kept_and_given_to_other_tabs(new_context, upstream):
    async def auth(request):
        return "me" if request.headers.get("authorization") == "Bearer s3cret" else None

    upstream.push(gated(["seen ", "by both"], 1))
    context = await new_context()
    async with relay(upstream.base_url, auth=auth) as (address, _):
        locked = await context.new_page()
        await locked.goto(address)
        await locked.locator("#gate-token").fill("wrong")
        await locked.get_by_role("button", name="Enter").click()
        await expect(locked.locator("#gate")).to_be_visible()
        await locked.get_by_label("Token", exact=True).fill("s3cret")
        await locked.get_by_role("button", name="Enter").click()
        await expect(locked.locator("#composer")).to_be_visible()
        await locked.close()
        first = Page.of(await context.new_page())
        await first.open(f"{address}#token=s3cret")
        assert first.page.url == address
        await first.ask()
        await expect(first.prose()).to_have_text("seen")
        second = Page.of(await context.new_page())
        await second.page.goto(
            address + await first.page.get_by_role("link", name="Live link").get_attribute("href")
        )
        await expect(second.prose()).to_have_text("seen")
        await upstream.wait_for_stall(1)
        upstream.release()
        for tab in (first, second):
            await expect(tab.prose()).to_have_text("seen by both")
        await context.close()


async def swipe(page, start, end):
    """A finger goes across a heading, which does not scroll itself."""
    await page.evaluate("scrollTo(0, 0)")
    box = await page.locator(".question-text").bounding_box()
    session = await page.context.new_cdp_session(page)
    y = box["y"] + 10
    for kind, x in (("touchStart", start), ("touchMove", (start + end) / 2), ("touchMove", end)):
        await session.send(
            "Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x, "y": y}]}
        )
    await session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    await session.detach()


async def test_a_narrow_screen_has_tabs_and_never_scrolls_sideways(new_page, upstream, address):
    upstream.push(Answer.stream([WIDE_TEXT]), Answer.stream([WIDE_TEXT]), Answer.stream(["x"]))
    page = await new_page(**NARROW)
    await page.open(address)

    async def check():
        width = await page.page.evaluate("document.scrollingElement.scrollWidth")
        assert width <= 360

    await check()
    await page.choose(2)
    await page.ask("Averyveryverylongwordwithoutanyspaceatallthatisasked?")
    await expect(page.answer(0)).to_have_attribute("data-state", "done")
    await expect(page.answer(1)).to_have_attribute("data-state", "done")
    await check()
    await expect(page.answer(0)).to_be_visible()
    await expect(page.answer(1)).to_be_hidden()
    await page.page.get_by_role("button", name="two").click()
    await expect(page.answer(1)).to_be_visible()
    await expect(page.answer(0)).to_be_hidden()
    await check()
    await swipe(page.page, 60, 300)
    await expect(page.answer(0)).to_be_visible()
    await expect(page.answer(1)).to_be_hidden()
    await swipe(page.page, 300, 60)
    await expect(page.answer(1)).to_be_visible()
    await page.page.set_viewport_size({"width": 1000, "height": 740})
    await expect(page.answer(0)).to_be_visible()
    await expect(page.answer(1)).to_be_visible()


async def test_the_end_is_followed_only_by_who_is_there(page, upstream, address):
    lines = [f"- line {n}\n" for n in range(200)]
    upstream.push(gated(lines, 80, 120))
    await page.open(address)
    await page.ask()
    await expect(page.prose()).to_contain_text("line 79")
    # Once the frame is drawn.
    distance = """() => new Promise((resolve) => requestAnimationFrame(() => setTimeout(() => resolve(
        document.scrollingElement.scrollHeight - scrollY - innerHeight))))"""
    assert await page.page.evaluate(distance) < 2
    await page.page.mouse.move(600, 300)
    await page.page.mouse.wheel(0, -700)
    button = page.page.get_by_role("button", name="Latest")
    await expect(button).to_be_visible()
    before = await page.page.evaluate("scrollY")
    await upstream.wait_for_stall(1)
    upstream.release()
    await expect(page.prose()).to_contain_text("line 119")
    assert await page.page.evaluate("scrollY") == before
    await button.click()
    assert await page.page.evaluate(distance) < 2
    await upstream.wait_for_stall(2)
    upstream.release()
    await expect(page.answer()).to_have_attribute("data-state", "done")
    assert await page.page.evaluate(distance) < 2


async def test_code_can_be_copied(new_page, upstream, address):
    upstream.push(Answer.stream(["```py\nx = 1\n\ny = 2\n```\n"]))
    page = await new_page(permissions=["clipboard-read", "clipboard-write"])
    await page.open(address)
    await page.ask()
    await expect(page.answer()).to_have_attribute("data-state", "done")
    button = page.page.get_by_role("button", name="Copy this code")
    await button.click()
    await expect(button).to_have_text("Copied")
    assert await page.page.evaluate("navigator.clipboard.readText()") == "x = 1\n\ny = 2"


async def test_the_theme_is_the_systems_until_another_is_chosen(new_page, address):
    page = await new_page(color_scheme="dark")
    await page.open(address)
    colour = "getComputedStyle(document.body).backgroundColor"
    dark = await page.page.evaluate(colour)
    button = page.page.get_by_role("button", name="Dark theme")
    await expect(button).to_have_attribute("aria-pressed", "true")
    await button.click()
    light = await page.page.evaluate(colour)
    assert light != dark
    await page.page.reload()
    assert await page.page.evaluate(colour) == light
    await expect(button).to_have_attribute("aria-pressed", "false")


async def test_what_is_read_out_is_ends_and_not_tokens(page, upstream, address):
    upstream.push(gated(["One. ", "Two. ", "Three."], 1, 2))
    await page.open(address)
    live = page.page.locator("#live")
    await expect(live).to_have_attribute("aria-live", "polite")
    await page.ask()
    await expect(page.prose()).to_have_text("One.")
    await expect(page.answer()).to_have_attribute("aria-busy", "true")
    await expect(live).to_be_empty()
    for stall in (1, 2):
        await upstream.wait_for_stall(stall)
        upstream.release()
    await expect(live).to_have_text("one has answered. One. Two. Three.")
    await expect(page.answer()).to_have_attribute("aria-busy", "false")


async def test_who_asks_for_less_motion_gets_none(new_page, upstream, address):
    upstream.push(gated(["a ", "b"], 1))
    page = await new_page(reduced_motion="reduce")
    await page.open(address)
    await page.ask()
    await expect(page.prose()).to_have_text("a")
    assert await page.page.evaluate("document.getAnimations().length") == 0


async def test_the_emulators_answers_look_the_same_after_a_reload(page):
    async with Emulator(answer_tokens=200) as emulator:
        models = ["codellama/codellama-13b-instruct"]
        async with relay(emulator.base_url, models=models) as (address, _):
            await page.open(address)
            await page.ask("Tell me.")
            await expect(page.answer()).to_have_attribute("data-state", "done")
            shown = await page.prose().inner_html()
            await page.page.reload()
            assert await page.prose().inner_html() == shown
            assert await page.answer().locator(".figures").inner_text()
            await page.page.close()
