"""One browser for all tests here, on one loop; each test has its own relay, context and page."""

import asyncio

import pytest_asyncio
from playwright.async_api import expect
from web_kit import PATIENCE, Page, browser, relay

from konko_async.testing import Emulator, FaultServer

expect.set_options(timeout=PATIENCE)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def the_browser():
    async with browser() as running:
        yield running


@pytest_asyncio.fixture(autouse=True, loop_scope="session")
async def no_task_left_behind(the_browser, nothing_left_behind):
    """As for all tests, on the loop that the browser's connection needs."""
    before = asyncio.all_tasks()
    yield
    left = {
        task
        for task in asyncio.all_tasks() - before - {asyncio.current_task()}
        if "playwright" not in repr(task.get_coro())
    }
    for task in left:
        task.cancel()
    assert not left, f"tasks were left behind: {left}"


@pytest_asyncio.fixture(loop_scope="session")
async def new_context(the_browser, no_task_left_behind):
    """Make browser contexts; what a page complains of fails the test."""
    contexts, pages = [], []

    async def make(**options):
        context = await the_browser.new_context(
            **{"viewport": {"width": 1200, "height": 800}, **options}
        )
        context.set_default_timeout(PATIENCE)
        contexts.append(context)
        context.on("page", lambda page: pages.append(Page.of(page)))
        return context

    yield make
    for context in contexts:
        await context.close()
    assert not [problem for page in pages for problem in page.problems]


@pytest_asyncio.fixture(loop_scope="session")
async def new_page(new_context):
    async def make(**options):
        context = await new_context(**options)
        return Page.of(await context.new_page())

    return make


@pytest_asyncio.fixture(loop_scope="session")
async def page(new_page):
    return await new_page()


@pytest_asyncio.fixture(loop_scope="session")
async def upstream(no_task_left_behind):
    """The model's server, which answers as told, chunk by chunk."""
    async with FaultServer(keep_alive=True) as server:
        yield server


@pytest_asyncio.fixture(loop_scope="session")
async def address(upstream):
    async with relay(upstream.base_url) as (found, _):
        yield found


@pytest_asyncio.fixture(loop_scope="session")
async def emulator(no_task_left_behind):
    async with Emulator() as running:
        yield running
