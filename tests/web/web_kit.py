"""A real browser, and the real relay that it looks at."""

import asyncio
import contextlib
import json
import os
import shutil
import weakref

import pytest
from aiohttp import web
from playwright.async_api import async_playwright

from konko_async import AsyncKonko
from konko_async.relay import MemoryStore, RelayOptions, RelayService
from konko_async.relay.aiohttp_web import add_routes
from konko_async.testing import Answer

MODELS = ["maker/one", "maker/two", "maker/three", "maker/four"]
PATIENCE = 40_000  # ms
_FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
# The first is the same engine without the windows and menus around it: half the CPU.
_PLACES = (
    "chromium-headless-shell", "chromium", "chromium-browser", "google-chrome",
    "google-chrome-stable",
)  # fmt: skip


def chromium():
    """Return the browser's path; where there is none, skips, or on a build machine fails."""
    found = next((path for name in _PLACES if (path := shutil.which(name))), None)
    if found is None:
        message = "no Chromium: apt-get install chromium"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(message)
    return found


@contextlib.asynccontextmanager
async def browser():
    async with async_playwright() as playwright:
        running = await playwright.chromium.launch(executable_path=chromium(), args=list(_FLAGS))
        try:
            yield running
        finally:
            await running.close()


# What a page does, in small: strings, a pattern, nodes. The best of some times, as others may run.
_WORK = r"""
() => {
    let best = Infinity;
    for (let turn = 0; turn < 20; turn += 1) {
        const begin = performance.now();
        const words = [];
        for (let number = 0; number < 10_000; number += 1) words.push(`<b>word</b> ${number}`);
        const text = words.join(" ").replace(/(\w+) (\d+)/g, "$2 of $1");
        const element = document.createElement("div");
        for (const word of text.slice(0, 50_000).split(" ")) element.append(word);
        best = Math.min(best, performance.now() - begin);
    }
    return best;
}
"""
_USUAL = 3.0  # ms for that work, where the milliseconds that tests allow were measured


async def slowness(page):
    """How many times slower than usual the machine computes now; 1 if it is not."""
    return max(1.0, await page.page.evaluate(_WORK) / _USUAL)


@contextlib.asynccontextmanager
async def relay(base_url, *, models=MODELS, auth="open", page=True, **options):
    """Serve the page; yields its address and the service."""
    async with AsyncKonko("any-key", base_url, retry=None) as client:
        options = {"stats": True, "open_early": True, "hosts": ["127.0.0.1"], **options}
        service = RelayService(
            client,
            RelayOptions(models=models, **options),
            auth=auth,
            host="127.0.0.1",
            store=MemoryStore(),
            page=page,
        )
        app = web.Application()
        add_routes(app, service)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            yield f"http://127.0.0.1:{runner.addresses[0][1]}/", service
        finally:
            await runner.cleanup()


def gated(tokens, *gates):
    """An answer that stalls after so many tokens, until it is released; then goes on to the next."""
    answer = Answer.stream(tokens)
    wire = answer.wire
    at = answer.head_size
    for count, token in enumerate(tokens, 1):
        # The place after the event that has this token.
        at = wire.index(b"\n\n", wire.index(json.dumps(token).encode(), at)) + 2
        if count in gates:
            answer = answer.stall(at)
    return answer


class Wire:
    """A TCP proxy in front of the relay: the network that is cut."""

    def __init__(self, port):
        self._port = port
        self._server = None
        self._tasks = set()
        self._writers = set()
        self.up = True
        self.through = asyncio.Event()  # while it is clear, what the relay says does not arrive
        self.through.set()
        self._streaming = {}  # the gates of connections that carry a stream, by their writer

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        self.address = f"http://127.0.0.1:{port}/"
        return self

    async def __aexit__(self, *_):
        self._server.close()
        for gate in (*self._streaming.values(), self.through):
            gate.set()
        self.cut()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    def cut(self):
        """Kill all connections by a reset."""
        for writer in list(self._writers):
            writer.transport.abort()

    def freeze(self):
        """Let what reads a stream hear nothing more, without an end; all else is cut."""
        for writer in list(self._writers):
            if writer not in self._streaming:
                writer.transport.abort()
        for gate in self._streaming.values():
            gate.clear()

    def down(self):
        """Cut, and let no connection live until up again."""
        self.up = False
        self.cut()

    def _gates(self, writer):
        """What one connection waits for before it passes on what the relay said."""

        def gates(data):
            if b"text/event-stream" in data and writer not in self._streaming:
                self._streaming[writer] = asyncio.Event()
                self._streaming[writer].set()
            return [self.through, *filter(None, [self._streaming.get(writer)])]

        return gates

    async def _accept(self, reader, writer):
        self._tasks.add(asyncio.current_task())
        asyncio.current_task().add_done_callback(self._tasks.discard)
        if not self.up:
            writer.transport.abort()
            return
        self._writers.add(writer)
        there = None
        try:
            back, there = await asyncio.open_connection("127.0.0.1", self._port)
            self._writers.add(there)
            async with asyncio.TaskGroup() as group:
                group.create_task(_copy(reader, there))
                group.create_task(_copy(back, writer, self._gates(writer)))
        except* (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            for one in (writer, there):
                if one is not None:
                    self._writers.discard(one)
                    one.transport.abort()


async def _copy(reader, writer, gates=None):
    while data := await reader.read(65536):
        for gate in () if gates is None else gates(data):
            await gate.wait()
        writer.write(data)
        await writer.drain()
    raise ConnectionResetError  # one side has ended: so does the other


_pages = weakref.WeakKeyDictionary()


class Page:
    """What a person does, in words."""

    @classmethod
    def of(cls, page):
        """The one of a tab."""
        return _pages.get(page) or _pages.setdefault(page, cls(page))

    def __init__(self, page):
        self.page = page
        self.problems = []
        page.on("pageerror", lambda error: self.problems.append(f"error: {error}"))
        page.on("console", self._console)

    def _console(self, message):
        # A failed request is said by the browser, too.
        if message.type == "error" and "Failed to load resource" not in message.text:
            self.problems.append(message.text)

    async def open(self, address):
        await self.page.goto(address)
        await self.page.locator("#composer").wait_for()

    async def choose(self, count):
        await self.page.click("#picker-open")
        for place in range(1, count):
            await self.page.locator("#picker-list input").nth(place).check()
        await self.page.keyboard.press("Escape")

    async def ask(self, question="Hello?"):
        await self.page.fill("#question", question)
        await self.page.press("#question", "Enter")

    def answer(self, place=0):
        return self.page.locator(".turn.last .answer").nth(place)

    def prose(self, place=0):
        return self.answer(place).locator(".prose")
