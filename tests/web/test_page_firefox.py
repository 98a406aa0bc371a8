"""The page in Firefox: a short way through what browsers do differently."""

import json
from importlib import resources

import pytest
from firefox_kit import firefox
from web_kit import gated

from konko_async.testing import Answer

pytestmark = pytest.mark.asyncio(loop_scope="session")

RICH = (
    "So \\(x^2\\), and[^1]\n\n```python\nreturn 'x'\n```\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n"
    "$$\\frac{a}{b}$$\n\n[^1]: a note\n"
)
DONE = "document.querySelector('.turn.last .answer').dataset.state === 'done'"
PICTURE = """new Promise((resolve) => {
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [2000, 900];
    canvas.getContext("2d").fillRect(0, 0, 1000, 900);
    canvas.toBlob((blob) => {
        const data = new DataTransfer();
        data.items.add(new File([blob], "photo.jpg", { type: "image/jpeg" }));
        const drop = new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true });
        document.getElementById("question").dispatchEvent(drop);
        resolve();
    }, "image/jpeg");
})"""


def axe():
    package = resources.files("axe_playwright_python")
    found = next(path for path in package.iterdir() if path.name == "axe.min.js")
    return found.read_text(encoding="utf-8")


async def test_a_chat_in_firefox(upstream, address):
    upstream.push(Answer.stream([RICH]), gated(["one ", "two"], 1), Answer.stream(["seen"]))
    async with firefox() as tab:
        await tab.open(address)
        await tab.wait("!document.getElementById('composer').hidden")
        await tab.press("/")  # without a mouse, the page does not put the focus there by itself
        await tab.wait("document.activeElement.id === 'question'")
        await tab.type("Is *this* so?")
        await tab.press("Enter")
        await tab.wait(DONE)
        await tab.wait("document.querySelectorAll('.prose math').length === 2")
        assert await tab.run("document.querySelector('h2.question-text em').textContent") == "this"
        assert await tab.run("document.querySelector('.hl-keyword').textContent") == "return"
        assert await tab.run("document.querySelector('.note-mark').textContent") == "1"
        # A formula is as large as the text around it at least: it is drawn, and not only there.
        assert (
            await tab.run(
                "document.querySelector('.math.block math').getBoundingClientRect().height"
            )
            > 20
        )
        # What is copied is the source; where it is pasted, it can be seen.
        await tab.run(
            "getSelection().selectAllChildren(document.querySelector('.answer .prose p'))"
        )
        await tab.press("Control", "c")
        await tab.run("document.getElementById('question').focus()")
        await tab.press("Control", "v")
        assert (await tab.run("document.getElementById('question').value")).startswith(
            "So \\(x^2\\), and"
        )
        await tab.run("document.getElementById('question').select()")
        # Escape stops; a reload goes on with what is there.
        await tab.type("Go on")
        await tab.press("Enter")
        await tab.wait("document.querySelector('.turn.last .prose').textContent.startsWith('one')")
        await tab.press("Escape")
        await tab.wait("document.querySelector('.turn.last .answer').dataset.state === 'stopped'")
        await tab.reload()
        await tab.wait(
            "document.querySelectorAll('.turn').length === 2 && !document.getElementById('composer').hidden"
        )
        # A picture is made smaller, and sent.
        await tab.run(PICTURE)
        await tab.wait("document.querySelectorAll('#attached img').length === 1")
        await tab.run("document.getElementById('question').focus()")
        await tab.press("Enter")
        await tab.wait(DONE)
        body = json.loads(upstream.requests[-1].body)
        (picture,) = body["messages"][-1]["content"]
        assert picture["image_url"]["url"].startswith("data:image/jpeg;base64,")
        # What axe-core finds; and the panel of settings.
        await tab.run(f"(() => {{ {axe()} }})()")
        find = "axe.run().then((found) => found.violations.map((one) => [one.id, one.help]))"
        assert await tab.run(find) == []
        await tab.run("document.getElementById('open-settings').click()")
        await tab.wait("document.getElementById('settings').open")
        await tab.press("Escape")
        await tab.wait("!document.getElementById('settings').open")
        # A chat is kept from the moment on at which that is wanted, and found again.
        await tab.run("document.getElementById('open-side').click()")
        await tab.run("document.getElementById('keep').click()")
        await tab.wait("document.querySelectorAll('.chat-row').length === 1")
        await tab.run("document.getElementById('side-new').click()")
        await tab.wait("!document.querySelector('.turn')")
        await tab.reload()
        await tab.wait("document.querySelectorAll('.chat-row').length === 1")
        await tab.press("Control", "k")
        await tab.type("go on")
        await tab.wait("document.querySelector('.excerpt')")
        await tab.run("document.querySelector('.chat-open').click()")
        await tab.wait("document.querySelectorAll('.turn').length === 3")
        assert tab.problems == []
