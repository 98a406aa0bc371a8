"""Streaming as a person sees it: piecewise, stopped, cut off, taken up again, watched twice."""

import json

import pytest
from playwright.async_api import expect
from web_kit import Page, Wire, gated, relay

from konko_async.testing import Answer

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


async def test_stop_stops_the_model(page, upstream, address):
    upstream.push(gated(TOKENS, 2))
    await page.open(address)
    await page.ask()
    await expect(page.prose()).to_have_text("word1 word2")
    await upstream.wait_for_stall(1)
    await page.page.get_by_role("button", name="Stop").click()
    await upstream.wait_until_closed(1)
    assert upstream.connections.closed_by_peer == 1
    await expect(page.answer()).to_have_attribute("data-state", "stopped")
    await expect(page.answer().locator(".status")).to_have_text("Stopped")
    await expect(page.prose()).to_have_text("word1 word2")
    await expect(page.page.locator("#send")).to_be_visible()


async def test_a_call_that_still_waits_is_stopped_by_the_escape_key(page, upstream, address):
    upstream.push(gated(TOKENS, 1).stall(0))
    await page.open(address)
    await page.ask()
    await upstream.wait_for_stall(1)
    await expect(page.answer()).to_have_attribute("data-state", "waiting")
    await page.page.keyboard.press("Escape")
    await upstream.wait_until_closed(1)
    await expect(page.answer()).to_have_attribute("data-state", "stopped")


@pytest.mark.parametrize("how", ["stop", "new chat"])
async def test_a_call_whose_answer_is_on_the_way_is_stopped_too(page, upstream, port, how):
    upstream.push(gated(TOKENS, 1).stall(0))
    async with Wire(port) as wire:
        await page.open(wire.address)
        wire.through.clear()
        await page.ask()
        await upstream.wait_for_stall(1)
        if how == "stop":
            await page.page.keyboard.press("Escape")
        else:
            await page.page.get_by_role("button", name="New chat").click()
        wire.through.set()
        await upstream.wait_until_closed(1)
        await expect(page.page.locator("#send")).to_be_visible()
        await page.page.close()


@pytest.fixture
def port(address):
    return int(address.rsplit(":", 1)[1].rstrip("/"))


async def test_a_cut_connection_is_taken_up_where_it_was(page, upstream, port):
    upstream.push(gated(TOKENS, 2, 4, 6))
    async with Wire(port) as wire:
        await page.open(wire.address)
        asked = []
        page.page.on("request", lambda request: asked.append(request))  # noqa: PLW0108 - its signature is asked for
        await page.ask()
        await expect(page.prose()).to_have_text("word1 word2")
        await upstream.wait_for_stall(1)
        wire.cut()  # and what comes meanwhile is missed
        upstream.release()
        await expect(page.prose()).to_have_text("word1 word2 word3 word4")
        await upstream.wait_for_stall(2)
        wire.down()
        await expect(page.answer()).to_have_attribute("data-state", "reconnecting")
        await expect(page.answer().locator(".status")).to_contain_text("Reconnecting")
        upstream.release()
        await upstream.wait_for_stall(3)
        wire.up = True
        await expect(page.answer().locator(".status")).to_have_text("Resumed")
        await expect(page.page.locator("#live")).to_contain_text("The answer was resumed")
        upstream.release()
        await expect(page.answer()).to_have_attribute("data-state", "done")
        await expect(page.prose()).to_have_text(TEXT)
        assert len(upstream.requests) == 1
        # It asks for what it has not, not for all of it.
        again = [request for request in asked if "/v1/streams/" in request.url]
        assert again
        for request in again:
            stream = request.url.rsplit("/", 1)[1]
            assert request.headers["last-event-id"].startswith(f"{stream}.")
        await page.page.close()


async def test_what_comes_twice_is_shown_once(page, upstream, port):
    upstream.push(gated(TOKENS, 2))

    async def replay(route):
        """A proxy that drops the header, or a relay that sends all of it again."""
        headers = {k: v for k, v in route.request.headers.items() if k != "last-event-id"}
        await route.continue_(headers=headers)

    async with Wire(port) as wire:
        await page.page.route("**/v1/streams/*", replay)
        await page.open(wire.address)
        await page.ask()
        await expect(page.prose()).to_have_text("word1 word2")
        await upstream.wait_for_stall(1)
        wire.cut()
        upstream.release()
        await expect(page.answer()).to_have_attribute("data-state", "done")
        await expect(page.prose()).to_have_text(TEXT)
        await page.page.close()


async def test_a_tab_that_crashed_goes_on_from_what_was_kept(new_context, upstream, address):
    upstream.push(gated(TOKENS, 3, 6))
    context = await new_context()
    page = Page.of(await context.new_page())
    await page.open(address)
    await page.ask()
    await expect(page.prose()).to_have_text("word1 word2 word3")
    await upstream.wait_for_stall(1)
    # What the page writes now and then, not what it writes when it is left.
    kept = await page.page.evaluate(
        """() => new Promise((resolve) => {
            const look = () => {
                const kept = sessionStorage.getItem("konko.chat") ?? "";
                if (kept.includes("word3")) resolve(kept);
                else requestAnimationFrame(look);
            };
            look();
        })"""
    )
    again = Page.of(await context.new_page())
    await again.page.add_init_script(
        f"sessionStorage.getItem('konko.chat') ?? sessionStorage.setItem('konko.chat', {json.dumps(kept)})"
    )
    await again.open(address)
    await expect(again.prose()).to_have_text("word1 word2 word3")
    for stall in (1, 2):
        await upstream.wait_for_stall(stall)
        upstream.release()
    await expect(again.answer()).to_have_attribute("data-state", "done")
    await expect(again.prose()).to_have_text(TEXT)
    assert len(upstream.requests) == 1


async def test_a_page_that_was_offline_goes_on(page, upstream, port):
    upstream.push(gated(TOKENS, 2))
    async with Wire(port) as wire:
        await page.open(wire.address)
        await page.ask()
        await expect(page.prose()).to_have_text("word1 word2")
        await upstream.wait_for_stall(1)
        await page.page.context.set_offline(True)
        wire.cut()
        await expect(page.answer()).to_have_attribute("data-state", "reconnecting")
        upstream.release()
        await page.page.context.set_offline(False)
        await expect(page.answer()).to_have_attribute("data-state", "done")
        await expect(page.prose()).to_have_text(TEXT)
        assert len(upstream.requests) == 1
        await page.page.close()


@pytest.mark.parametrize("gone_on", [False, True])
async def test_a_reload_goes_on_with_the_answer(page, upstream, address, gone_on):
    upstream.push(gated(TOKENS, 3, 6))
    await page.open(address)
    await page.ask("A *question*")
    await expect(page.prose()).to_have_text("word1 word2 word3")
    await upstream.wait_for_stall(1)
    if gone_on:
        await page.page.goto("about:blank")
        upstream.release()
        await upstream.wait_for_stall(2)
        await page.open(address)
    else:
        await page.page.reload()
        await expect(page.prose()).to_have_text("word1 word2 word3")
        upstream.release()
    await expect(page.prose()).to_have_text("word1 word2 word3 word4 word5 word6")
    await upstream.wait_for_stall(2)
    upstream.release()
    await expect(page.answer()).to_have_attribute("data-state", "done")
    await expect(page.prose()).to_have_text(TEXT)
    await expect(page.page.locator(".question-text")).to_have_text("A question")
    assert len(upstream.requests) == 1
    await page.page.reload()
    await expect(page.prose()).to_have_text(TEXT)


# Say what a browser says when its page is hidden for a while, and comes back.
HIDE_AND_SHOW = """
(hidden) => {
    Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
    const now = Date.now;
    Date.now = () => now() + 60_000; // the device slept for a minute
    document.dispatchEvent(new Event("visibilitychange"));
}
"""


async def test_a_page_that_comes_back_into_view_looks_at_once(page, upstream):
    """A phone freezes pages; their connections die unheard, and no timer of theirs runs."""
    upstream.push(gated(TOKENS, 2))
    async with (
        relay(upstream.base_url) as (address, _),
        Wire(int(address.rsplit(":", 1)[1].rstrip("/"))) as wire,
    ):
        await page.open(wire.address)
        await page.ask()
        await expect(page.prose()).to_have_text("word1 word2")
        await upstream.wait_for_stall(1)
        await page.page.evaluate(HIDE_AND_SHOW, True)
        wire.freeze()  # what is open is dead, and nobody says so
        upstream.release()
        await page.page.evaluate(HIDE_AND_SHOW, False)
        await expect(page.prose()).to_have_text(TEXT)
        await expect(page.answer()).to_have_attribute("data-state", "done")
        await page.page.close()


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
async def test_thoughts_are_shown_by_either_name(page, upstream, address, field):
    deltas = [{field: "Rome or "}, {field: "Oslo, hm."}, {"content": "Oslo."}]
    chunks = [
        json.dumps({"id": "c", "choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
        for delta in deltas
    ]
    end = {"id": "c", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    upstream.push(Answer.events([*chunks, json.dumps(end), "[DONE]"]))
    await page.open(address)
    await page.ask()
    await expect(page.prose()).to_have_text("Oslo.")
    await expect(page.answer().locator(".thought-text")).to_have_text("Rome or Oslo, hm.")


async def test_a_second_tab_shows_the_same_stream(page, upstream, address):
    upstream.push(gated(TOKENS, 2, 5))
    await page.open(address)
    await page.ask("Do you see?")
    await expect(page.prose()).to_have_text("word1 word2")
    await upstream.wait_for_stall(1)
    async with page.page.context.expect_page() as opening:
        await page.page.get_by_role("link", name="Live link").click()
    second = Page.of(await opening.value)
    await expect(second.page.locator(".question-text")).to_have_text("Do you see?")
    await expect(second.prose()).to_have_text("word1 word2")
    await expect(second.page.locator("#watching")).to_be_visible()
    upstream.release()
    for tab in (page, second):
        await expect(tab.prose()).to_have_text("word1 word2 word3 word4 word5")
    await upstream.wait_for_stall(2)
    await second.page.get_by_role("button", name="Stop").click()
    await upstream.wait_until_closed(1)
    for tab in (page, second):
        await expect(tab.answer()).to_have_attribute("data-state", "stopped")
    assert len(upstream.requests) == 1
    await expect(second.answer().locator(".name")).to_have_text("codellama-13b-instruct")


async def test_a_relay_that_forgot_is_said_so_with_what_to_do(page, upstream):
    upstream.push(gated(TOKENS, 2), gated(TOKENS))
    async with relay(upstream.base_url) as (first, _):
        port = int(first.rsplit(":", 1)[1].rstrip("/"))
        async with Wire(port) as wire:
            await page.open(wire.address)
            await page.ask()
            await expect(page.prose()).to_have_text("word1 word2")
            await upstream.wait_for_stall(1)
            wire.down()
            async with relay(upstream.base_url) as (other, _):
                wire._port = int(other.rsplit(":", 1)[1].rstrip("/"))
                wire.up = True
                error = page.answer().locator(".error")
                await expect(error).to_contain_text("There is no such answer")
                await expect(page.prose()).to_have_text("word1 word2")
                await error.get_by_role("button", name="Retry").click()
                await expect(page.prose()).to_have_text(TEXT)
                await expect(page.answer()).to_have_attribute("data-state", "done")
                await page.page.close()
