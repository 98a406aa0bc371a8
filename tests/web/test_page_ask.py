"""What is asked: how a question looks, what is attached to it, its parameters, and what it cost."""

import base64
import json
import re

import pytest
from playwright.async_api import expect
from web_kit import relay

from konko_async.batch import Price
from konko_async.relay import PageOptions
from konko_async.testing import Answer, Emulator

pytestmark = pytest.mark.asyncio(loop_scope="session")

MODEL = "codellama/codellama-13b-instruct"


async def bodies(upstream):
    return [json.loads(request.body) for request in upstream.requests]


def question(page):
    return page.page.locator(".turn.last .question-body")


async def test_a_question_is_markdown_and_folded_where_it_is_long(page, address, upstream):
    upstream.push(*(Answer.stream(["a"]) for _ in range(3)))
    await page.open(address)
    await page.ask("Is **this** `code`?")
    heading = question(page).get_by_role("heading", level=2)
    await expect(heading).to_have_text("Is this code?")
    await expect(heading.locator("strong")).to_have_text("this")
    await expect(page.answer()).to_have_attribute("data-state", "done")
    await page.ask("Why?\n\n```python\nx = 1\n```\n" + "\n".join(f"line {n}" for n in range(30)))
    await expect(question(page).get_by_role("heading", level=2)).to_have_text("Why?")
    await expect(question(page).locator("pre .hl-number")).to_have_text("1")
    await expect(question(page).locator(".folded")).to_have_count(1)
    await question(page).get_by_role("button", name="Show all").click()
    await expect(question(page).locator(".folded")).to_have_count(0)
    fold = question(page).get_by_role("button", name="Show less")
    await expect(fold).to_have_attribute("aria-expanded", "true")
    await fold.click()
    await question(page).get_by_role("button", name="Copy this code").focus()
    await expect(question(page).locator(".folded")).to_have_count(0)
    await expect(page.answer()).to_have_attribute("data-state", "done")
    # Code that was pasted as it is: shown as code, sent as it was.
    pasted = "What is wrong?\n\ndef f(x):\n    # a comment\n    y = x * x\n    return __name__\n\nThanks."
    await page.ask(pasted)
    code = question(page).locator("pre code")
    text = "def f(x):\n    # a comment\n    y = x * x\n    return __name__"
    assert await code.evaluate("(code) => code.textContent") == text
    assert (await bodies(upstream))[-1]["messages"][-1]["content"] == pasted


FENCED = """
async (texts) => {
    const { fenced } = await import("/assets/js/composing/fences.js");
    return texts.map((text) => fenced(text) !== text);
}
"""


async def test_prose_and_lists_are_no_code(page, address):
    await page.page.goto(address)
    prose = [
        "Plan a trip:\n- Rome (two days)\n- Naples\n  - Pompeii\n- home",
        "Dear all,\nif it rains, we stay.\nfor now, wait.\nYours",
        "# Title\nsome text\n## More\ntext",
        "a = b means equality.\nNot code.\n",
        "1. first;\n2. second;\n3. third;",
        "```\nx = 1;\ny = 2;\nz = 3;\n```",
        "x" * 100_000,
        "x = 1;" * 20_000,
    ]
    code = [
        "#include <stdio.h>\nint main() {\n  return 0;\n}",
        "SELECT:\nconst a = 1;\nlet b = 2;\nf(a, b);",
        "import os\nfrom x import y\nprint(os.name)",
    ]
    assert await page.page.evaluate(FENCED, prose) == [False] * len(prose)
    assert await page.page.evaluate(FENCED, code) == [True] * len(code)


async def test_all_parameters_are_sent_and_those_not_taken_are_hidden(page, upstream):
    upstream.push(Answer.stream(["a"]))
    params = {"temperature", "top_p", "max_tokens", "stop", "stream_options"}
    async with relay(upstream.base_url, params=params, max_tokens=500) as (address, _):
        await page.open(address)
        await page.page.get_by_role("button", name="Settings").click()
        await expect(page.page.get_by_label("Seed")).to_be_hidden()
        await expect(page.page.get_by_label("Max tokens")).to_have_attribute("max", "500")
        await page.page.get_by_label("Top p").fill("0.9")
        await page.page.get_by_label("Temperature").fill("3")
        alert = page.page.locator("#settings-problem")
        await expect(alert).to_have_text(
            "Temperature: a number from 0 to 2. It is left out until then."
        )
        await page.page.get_by_label("Stop at").fill("END\n\n###")
        await page.page.get_by_label("Max tokens").fill("50")
        await page.page.keyboard.press("Escape")
        await page.ask()
        await expect(page.prose()).to_have_text("a")
        (body,) = await bodies(upstream)
        assert (body["top_p"], body["stop"], body["max_tokens"]) == (0.9, ["END", "###"], 50)
        assert not {"temperature", "seed"} & {*body}
        await page.page.close()


async def test_system_prompts_are_saved_chosen_and_deleted(page, address):
    await page.open(address)
    await page.page.get_by_role("button", name="Settings").click()
    prompt = page.page.get_by_label("System prompt")
    save = page.page.get_by_role("button", name="Save…")
    await expect(save).to_be_disabled()
    await prompt.fill("Be brief.")
    await save.click()
    await page.page.keyboard.type("Short")
    await page.page.keyboard.press("Enter")
    saved = page.page.get_by_label("Saved prompts", exact=True)
    await expect(saved).to_have_value("Short")
    await page.page.get_by_role("button", name="Reset").click()
    await expect(saved).to_have_value("")
    await page.page.reload()
    await page.page.get_by_role("button", name="Settings").click()
    await saved.select_option("Short")
    await expect(prompt).to_have_value("Be brief.")
    await page.page.get_by_role("button", name="Delete", exact=True).click()
    await expect(saved).to_be_disabled()
    assert await page.page.evaluate("localStorage.getItem('konko.presets')") == "[]"


PICTURE = """
async ([width, height, type, name]) => {
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [width, height];
    const context = canvas.getContext("2d");
    // Noise: it hardly becomes smaller by being encoded.
    const noise = context.createImageData(width, height);
    for (let at = 0; at < noise.data.length; at += 1) noise.data[at] = at % 4 === 3 ? 255 : (at * 7919) % 251;
    context.putImageData(noise, 0, 0);
    const blob = await new Promise((resolve) => canvas.toBlob(resolve, type));
    const data = new DataTransfer();
    data.items.add(new File([blob], name, { type }));
    const how = window.how;
    const target = document.getElementById("question");
    const event = how === "paste"
        ? new ClipboardEvent("paste", { clipboardData: data, bubbles: true, cancelable: true })
        : new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true });
    target.dispatchEvent(event);
}
"""


async def put(page, how, *picture):
    await page.page.evaluate("(how) => { window.how = how; }", how)
    await page.page.evaluate(PICTURE, [*picture])


async def test_pictures_and_files_are_picked_pasted_and_dropped(page, address, upstream):
    upstream.push(Answer.stream(["seen"]), Answer.stream(["again"]))
    await page.open(address)
    chips = page.page.locator("#attached li")
    await put(page, "paste", 8, 8, "image/png", "small.png")
    await expect(chips).to_have_text([re.compile(r"small\.png.*8 × 8")])
    await put(page, "drop", 1700, 300, "image/jpeg", "large.jpg")
    await expect(chips.nth(1)).to_contain_text("made smaller")
    files = [
        {"name": "a.py", "mimeType": "text/x-python", "buffer": b"x = '```'\r\n"},
        {"name": "b.zip", "mimeType": "application/zip", "buffer": b"PK"},
        {"name": "c.txt", "mimeType": "text/plain", "buffer": b"\xff\xfe"},
    ]
    await page.page.locator("#attach-file").set_input_files(files)
    await expect(chips).to_have_count(3)
    await expect(page.page.locator("#attach-problem")).to_have_text(
        "b.zip was not attached: only pictures and text files can be attached. "
        "c.txt was not attached: it is no text in UTF-8."
    )
    await page.ask("What are these?")
    await expect(page.prose()).to_have_text("seen")
    await expect(chips).to_have_count(0)
    (body,) = await bodies(upstream)
    words, small, large, file = body["messages"][-1]["content"]
    assert words == {"type": "text", "text": "What are these?"}
    assert small["image_url"]["url"].startswith("data:image/png;base64,")
    assert large["image_url"]["url"].startswith("data:image/jpeg;base64,")
    assert len(large["image_url"]["url"]) <= 400_000
    data = base64.b64decode(large["image_url"]["url"].partition(",")[2])
    assert b"Exif" not in data[:200]
    assert file == {"type": "text", "text": "File: a.py\n````py\nx = '```'\n````"}
    await expect(question(page).get_by_role("img")).to_have_count(2)
    await question(page).get_by_text("a.py").click()
    await expect(question(page).locator(".file-sent code")).to_have_text("x = '```'")
    # In editing, all of it is there again.
    await page.page.get_by_role("button", name="Edit").click()
    await expect(chips).to_have_count(3)
    await expect(page.page.locator("#question")).to_have_value("What are these?")
    await page.page.get_by_role("button", name="Take out Picture").first.click()
    await expect(chips).to_have_count(2)
    await page.page.get_by_role("button", name="Take out Picture").click()
    await page.page.locator("#question").press("Enter")
    await expect(page.prose()).to_have_text("again")
    # Where all is text, a text is sent: not every server takes parts.
    content = (await bodies(upstream))[-1]["messages"][-1]["content"]
    assert content == "What are these?\n\nFile: a.py\n````py\nx = '```'\n````"


async def test_what_is_too_large_is_said_before_it_is_sent(page, upstream):
    async with relay(upstream.base_url, max_body=20_000, parts={"text"}) as (address, _):
        await page.open(address)
        await expect(page.page.locator("#attach")).to_have_attribute(
            "title", "Attach text files: up to 8, and 20 kB in all with the conversation"
        )
        wrong = page.page.locator("#attach-problem")
        await put(page, "paste", 8, 8, "image/png", "p.png")
        await expect(wrong).to_have_text("p.png was not attached: this relay takes no pictures.")
        large = {"name": "l.txt", "mimeType": "text/plain", "buffer": b"x" * 19_000}
        await page.page.locator("#attach-file").set_input_files([large])
        await expect(wrong).to_have_text(
            re.compile(r"l\.txt was not attached: it has 19 kB, and 16 kB are left\.")
        )
        await page.ask("é" * 9_000)
        await expect(wrong).to_have_text(
            "This is too large to send: 22 kB with the conversation so far, and this relay takes "
            "20 kB. Take something out, or begin a new chat."
        )
        assert await page.page.locator("#question").input_value() == "é" * 9_000
        assert not upstream.requests
        await page.page.close()


async def test_what_an_answer_cost_stands_beside_its_tokens(page):
    prices = PageOptions(prices={MODEL: Price(prompt=1e-6, completion=2e-6)})
    async with (
        Emulator(answer_tokens=5) as emulator,
        relay(emulator.base_url, models=[MODEL, "other"], page=prices) as (address, _),
    ):
        await page.open(address)
        costs = await page.page.evaluate(
            """async (usage) => {
                const { costOf } = await import("/assets/js/stream/relay.js");
                const cached = { ...usage, prompt_tokens_details: { cached_tokens: 1000 } };
                return [costOf("MODEL", usage), costOf("other", usage), costOf("MODEL", null), costOf("MODEL", cached)];
            }""".replace("MODEL", MODEL),
            {"prompt_tokens": 1000, "completion_tokens": 2000},
        )
        assert costs == ["$0.005", "", "", "$0.005"]
        await page.ask()
        figures = page.answer().locator(".figures")
        await expect(figures).to_have_text(re.compile(r"\d+ tokens · \$0\.0000\d+$"))
        await page.page.reload()
        await expect(figures).to_have_text(re.compile(r"\$0\.0000\d+$"))
        await page.page.close()


async def test_a_relay_tells_what_its_model_is_and_what_to_ask_it(page, upstream):
    told = PageOptions(about="A very small model.", starters=[("Name", "Name three colours.")])
    upstream.push(Answer.stream(["Red"]))
    async with relay(upstream.base_url, page=told) as (address, _):
        await page.open(address)
        await expect(page.page.locator("#about")).to_have_text("A very small model.")
        await page.page.get_by_role("button", name="Name three colours.").click()
        await expect(page.prose()).to_have_text("Red")
        await page.page.close()
