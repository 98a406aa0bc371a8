"""The page for everybody: what axe-core finds, in each state, light and dark."""

import pytest
from axe_playwright_python.async_playwright import Axe
from markdown_kit import SAMPLES
from playwright.async_api import expect
from web_kit import gated, relay

from konko_async.testing import Answer

pytestmark = pytest.mark.asyncio(loop_scope="session")

NARROW = {"viewport": {"width": 360, "height": 740}}
TEXT = "# Title\n\n" + "\n\n".join(SAMPLES)
# Each colour of code, a formula of either kind, and a footnote.
TEXT += (
    "\n\n```python\n@a\ndef f(x: int):  # c\n    return 'x', 1, True\n```\n\n```diff\n-a\n+b\n```\n\n"
    "\\(x^2\\) and[^1]\n\n$$\\frac{a}{b}$$\n\n[^1]: A note.\n"
)
QUESTION = "# Why\n\n```js\nconst a = 1; // one\n```\n" + "\n".join(f"line {n}" for n in range(20))
FILE = {"name": "a.py", "mimeType": "text/x-python", "buffer": b"x = 1"}


async def check(page):
    results = await Axe().run(page.page)
    assert not results.response["violations"], results.generate_report()


@pytest.mark.parametrize(
    ("scheme", "options"),
    [("light", {}), ("dark", {}), ("light", NARROW)],
    ids=["light", "dark", "narrow"],
)
async def test_axe_finds_nothing(new_page, upstream, address, scheme, options):
    upstream.push(Answer.stream([TEXT]), gated(["a **b** ", "c"], 1), gated(["d"], 1))
    page = await new_page(color_scheme=scheme, **options)
    await page.open(address)
    await page.page.locator("#attach-file").set_input_files([FILE])
    await expect(page.page.locator("#attached li")).to_have_count(1)
    await check(page)  # empty, but for a file
    await page.ask(QUESTION)
    await expect(page.answer()).to_have_attribute("data-state", "done")
    await expect(page.prose().locator("math")).to_have_count(2)
    await check(page)  # a question and an answer with all that Markdown has
    await page.choose(2)
    await page.ask()
    await expect(page.prose()).to_contain_text("b")
    await check(page)  # side by side, being written
    await page.page.get_by_role("button", name="Stop").click()
    await expect(page.answer()).to_have_attribute("data-state", "stopped")
    await page.page.get_by_role("button", name="Settings").click()
    await check(page)  # a panel
    await page.page.keyboard.press("Escape")
    await page.page.click("#picker-open")
    await check(page)  # the list of models


async def test_axe_finds_nothing_where_a_token_is_asked_for(new_page, upstream):
    async def nobody(request):
        return None

    page = await new_page()
    async with relay(upstream.base_url, auth=nobody) as (address, _):
        await page.page.goto(address)
        await expect(page.page.locator("#gate")).to_be_visible()
        await check(page)
        await page.page.close()


async def test_axe_finds_nothing_in_a_second_tab(page, address):
    await page.page.goto(f"{address}#stream=none&q=Why%3F")
    await expect(page.page.locator(".error")).to_be_visible()
    await check(page)


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_axe_finds_nothing_where_something_failed(new_page, upstream, address, scheme):
    upstream.push(Answer.error(429, "wait", headers={"retry-after": "20"}), Answer.error(500, "x"))
    page = await new_page(color_scheme=scheme)
    await page.open(address)
    await page.choose(2)
    await page.ask()
    await expect(page.page.locator(".error")).to_have_count(2)
    await check(page)
