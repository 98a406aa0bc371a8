"""What the chat page takes in Chromium: a long conversation, and four answers at once.

    python -m benchmarks.bench_page --turns 1000
    python -m benchmarks.bench_page --streams

The first: from the click in the list to the last turn drawn, to the frame that shows it, and to the
last of the turns above it, which are drawn piece by piece. Medians and worst of five, after a
reload.

The second: four models answer side by side with 200 tokens a second each, in Markdown with code and
tables, for five seconds. From the key that sends the question to the frame that shows the first
token, and the time between frames; the emulator begins at once, so that all of it is ours.
"""

import argparse
import asyncio
import json
import shutil
import statistics

from aiohttp import web
from playwright.async_api import async_playwright

from konko_async import AsyncKonko
from konko_async.relay import RelayOptions, RelayService
from konko_async.relay.aiohttp_web import add_routes
from konko_async.testing import Emulator

ROUNDS = 5
TEXT = (
    "Here is **what** to do, with `code` and a [link](https://a.example):\n\n1. one\n2. two\n\n"
    "```python\ndef f(x):\n    return x + 1\n```\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n"
    + "A sentence of some words that goes on for a while, as they do. "
    * 6
)
OPEN = """async ([title, last]) => {
  const turns = document.querySelector("#turns");
  const pause = () => new Promise((resolve) => setTimeout(resolve));
  const from = performance.now();
  [...document.querySelectorAll(".chat-open")].find((one) => one.title === title).click();
  while (!turns.querySelector(".turn.last")?.textContent.includes(last)) await pause();
  const drawn = performance.now() - from;
  await new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve)));
  const seen = performance.now() - from;
  while (turns.hasAttribute("aria-busy")) await pause();
  return [drawn, seen, performance.now() - from];
}"""


def file_of(title, count):
    """Return a file that the page imports."""
    turns = [
        {
            "id": f"t{n}", "parent": f"t{n - 1}" if n else None, "after": f"v{n - 1}" if n else "",
            "content": f"Question {n}?", "time": n,
            "answers": [
                {"versions": [{"key": f"v{n}", "model": "m", "text": TEXT, "state": "done"}]}
            ],
        }
        for n in range(count)
    ]  # fmt: skip
    conversations = [{"id": title, "title": title, "turns": turns}]
    text = json.dumps({"format": "konko-chats", "version": 1, "conversations": conversations})
    return {"name": "chats.json", "mimeType": "application/json", "buffer": text.encode()}


async def measure(page, address, count):
    """Return the times of each opening, in ms."""
    await page.goto(address)
    await page.click("#open-side")
    await page.check("#keep")
    for title, turns in (("Long", count), ("Short", 2)):
        await page.set_input_files("#import-file", file_of(title, turns))
        await page.locator(".chat-open", has_text=title).wait_for()
    found = []
    for _ in range(ROUNDS):
        await page.reload()
        await page.locator(".chat-open", has_text="Long").wait_for()
        await page.locator(".chat-open", has_text="Short").click()
        await page.locator(".turn.last", has_text="Question 1?").wait_for()
        found.append(await page.evaluate(OPEN, ["Long", f"Question {count - 1}?"]))
        await page.locator(".chat-open", has_text="Short").click()
    return found


STREAM = """async () => {
  const field = document.querySelector("#question");
  field.value = "Go on.";
  field.dispatchEvent(new Event("input", { bubbles: true }));
  field.focus();
  const times = [];
  let first = null;
  const answers = () => [...document.querySelectorAll(".turn .prose")];
  const from = performance.now();
  const key = { key: "Enter", bubbles: true, cancelable: true };
  field.dispatchEvent(new KeyboardEvent("keydown", key));
  let before = from;
  while (performance.now() - from < 5000) {
    const now = await new Promise(requestAnimationFrame);
    if (first === null) {
      if (answers().some((one) => one.textContent.trim())) first = performance.now() - from;
    } else times.push(now - before);
    before = now;
  }
  return [first, times, answers().map((one) => one.textContent.length)];
}"""


async def measure_streams(browser, address):
    """Return the time to the first token and the times between frames, in ms."""
    firsts, frames = [], []
    for _ in range(ROUNDS):
        # A tab that is reloaded goes on with its chat.
        page = await browser.new_page(viewport={"width": 1280, "height": 800})
        await page.goto(address)
        await page.click("#picker-open")
        for place in range(1, 4):
            await page.locator("#picker-list input").nth(place).check()
        await page.keyboard.press("Escape")
        first, times, lengths = await page.evaluate(STREAM)
        if len(lengths) != 4 or min(lengths) < 1000:
            raise SystemExit(f"four answers were to be drawn, of 1000 characters: {lengths}")
        await page.close()
        firsts.append(first)
        frames += times
    return firsts, frames


def print_streams(firsts, frames):
    """Print medians and tails."""
    parts = statistics.quantiles(frames, n=100)
    first = statistics.median(firsts)
    print(f"key press to first token: median {first:.0f} ms, worst {max(firsts):.0f} ms")
    print(
        f"between frames: p50 {parts[49]:.1f}, p95 {parts[94]:.1f}, p99 {parts[98]:.1f}, "
        f"most {max(frames):.1f} ms of {len(frames)}"
    )


async def main(count, streams):
    path = (
        shutil.which("chromium-headless-shell")
        or shutil.which("chromium")
        or shutil.which("google-chrome")
    )
    fast = {"answer": lambda _: TEXT * 40, "tokens_per_second": 200} if streams else {}
    async with async_playwright() as playwright, Emulator(**fast) as emulator:
        browser = await playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        async with AsyncKonko("any-key", emulator.base_url) as client:
            chat = [name for name, model in emulator.models.items() if model.get("is_chat")]
            # What a tab that was closed had asked for goes on for a while.
            models = chat[:4] if streams else ["m"]
            options = RelayOptions(models=models, max_calls_per_identity=100)
            service = RelayService(client, options, auth="open", host="127.0.0.1", page=True)
            app = web.Application()
            add_routes(app, service)
            runner = web.AppRunner(app)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            address = f"http://127.0.0.1:{runner.addresses[0][1]}/"
            if streams:
                print_streams(*await measure_streams(browser, address))
            else:
                page = await browser.new_page(viewport={"width": 1280, "height": 800})
                print_openings(await measure(page, address, count))
            await browser.close()
            await runner.cleanup()


def print_openings(found):
    """Print medians and the worst."""
    for name, times in zip(("drawn", "seen", "all turns"), zip(*found, strict=True), strict=True):
        print(f"{name:10} median {statistics.median(times):6.0f} ms   worst {max(times):6.0f} ms")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--turns", type=int, default=1000, help="of the conversation (default: 1000)"
    )
    parser.add_argument("--streams", action="store_true", help="four answers at once, instead")
    told = parser.parse_args()
    asyncio.run(main(told.turns, told.streams))
