"""Streaming as a person sees it: piecewise, stopped, cut off, taken up again, watched twice."""

import json

import pytest
from playwright.async_api import expect
from web_kit import Wire, gated, relay

pytestmark = pytest.mark.asyncio(loop_scope="session")

TOKENS = [f"word{n} " for n in range(1, 11)]
TEXT = "".join(TOKENS).strip()


async def test_an_answer_arrives_piecewise(page, upstream, address):
    upstream.push(gated(TOKENS, 2, 5))
    await page.open(address)
    await page.ask()
    await expect(page.prose()).to_have_text("word1 word2")
    await expect(page.answer()).to_have_attribute("data-state", "streaming")
    await upstream.wait_for_stall(1)
    upstream.release()
    await expect(page.prose()).to_have_text("word1 word2 word3 word4 word5")
    await upstream.wait_for_stall(2)
    upstream.release()
    await expect(page.prose()).to_have_text(TEXT)
    await expect(page.answer()).to_have_attribute("data-state", "done")
    figures = page.answer().locator(".figures")
    await expect(figures).to_contain_text("s to first token")
    await expect(figures).to_contain_text("tokens/s")
    (request,) = upstream.requests
    assert json.loads(request.body)["messages"] == [{"role": "user", "content": "Hello?"}]
