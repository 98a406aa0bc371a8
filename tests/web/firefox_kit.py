"""Firefox, by the protocol that it speaks itself (WebDriver BiDi): no driver is needed."""

import asyncio
import contextlib
import json
import re
import shutil
import tempfile

import aiohttp
import pytest

PATIENCE = 40  # s
KEYS = {
    "Enter": "\ue007",
    "Escape": "\ue00c",
    "Tab": "\ue004",
    "Control": "\ue009",
    "Shift": "\ue008",
}
_LISTENING = re.compile(rb"WebDriver BiDi listening on (ws://\S+)")


def path():
    """Return Firefox's path; skips where there is none."""
    found = shutil.which("firefox-esr") or shutil.which("firefox")
    if found is None:
        pytest.skip("no Firefox: apt-get install firefox-esr")
    return found


@contextlib.asynccontextmanager
async def firefox():
    """Run Firefox without a window; yields its only tab."""
    executable = path()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = await asyncio.create_subprocess_exec(
            *(executable, "--headless", "--no-remote", "--profile", profile),
            *("--remote-debugging-port", "0", "about:blank"),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            address = await asyncio.wait_for(_address(process), PATIENCE)
            rest = asyncio.create_task(process.stderr.read())  # else a full pipe would stop it
            async with (
                aiohttp.ClientSession() as session,
                session.ws_connect(f"{address}/session", max_msg_size=0) as socket,
            ):
                yield await Tab.first(socket)
                await socket.send_json({"id": 0, "method": "browser.close", "params": {}})
                await asyncio.wait_for(process.wait(), PATIENCE)
            await rest
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


async def _address(process):
    async for line in process.stderr:
        if found := _LISTENING.search(line):
            return found[1].decode()
    raise RuntimeError("Firefox ended before it listened")


class Tab:
    """A tab; ``problems`` are what its console and its scripts complained of."""

    def __init__(self, socket):
        self._socket = socket
        self._count = 0
        self.problems = []

    @classmethod
    async def first(cls, socket):
        tab = cls(socket)
        await tab.call("session.new", capabilities={})
        await tab.call("session.subscribe", events=["log.entryAdded"])
        tree = await tab.call("browsingContext.getTree")
        tab.context = tree["contexts"][0]["context"]
        return tab

    async def call(self, method, **params):
        self._count += 1
        await self._socket.send_json({"id": self._count, "method": method, "params": params})
        while True:
            told = json.loads(await self._socket.receive_str(timeout=PATIENCE + 10))
            if told.get("method") == "log.entryAdded" and told["params"]["level"] == "error":
                self.problems.append(told["params"]["text"])
            if told.get("id") == self._count:
                assert told["type"] == "success", told
                return told["result"]

    async def open(self, address):
        await self.call("browsingContext.activate", context=self.context)
        await self.call(
            "browsingContext.navigate", context=self.context, url=address, wait="complete"
        )

    async def reload(self):
        await self.call("browsingContext.reload", context=self.context, wait="complete")

    async def run(self, script):
        """Return what an expression comes to, or a promise of it: a JSON value."""
        result = await self.call(
            "script.evaluate",
            expression=f"Promise.resolve({script}).then((value) => JSON.stringify(value ?? null))",
            target={"context": self.context},
            awaitPromise=True,
        )
        assert result["type"] == "success", result["exceptionDetails"]["text"]
        return json.loads(result["result"]["value"])

    async def wait(self, condition):
        """Wait until an expression is true."""
        script = f"""new Promise((resolve) => {{
            const end = Date.now() + {PATIENCE} * 1000;
            const look = () => {{
                let found = false;
                try {{ found = {condition}; }} catch {{ }}
                if (found || Date.now() > end) resolve(Boolean(found));
                else setTimeout(look, 30);
            }};
            look();
        }})"""
        assert await self.run(script), condition

    async def press(self, *keys):
        """Press keys one after another; all but the last are held, if there are several."""
        *held, last = [KEYS.get(key, key) for key in keys]
        actions = [{"type": "keyDown", "value": key} for key in (*held, last)]
        actions += [{"type": "keyUp", "value": key} for key in (last, *reversed(held))]
        await self._perform(actions)

    async def type(self, text):
        kinds = ("keyDown", "keyUp")
        await self._perform([{"type": kind, "value": one} for one in text for kind in kinds])

    async def _perform(self, actions):
        keyboard = {"type": "key", "id": "keyboard", "actions": actions}
        await self.call("input.performActions", context=self.context, actions=[keyboard])
