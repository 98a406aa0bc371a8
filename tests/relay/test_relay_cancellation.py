"""Cancelled at any step, a request leaves nothing behind: no place, no call, no socket."""

import asyncio
import json

import pytest
from relay_kit import ASK, CHAT, KEY, MODEL

from konko_async import AsyncKonko
from konko_async.relay import ReaderGoneError, RelayOptions, RelayRequest, RelayService, pump
from konko_async.testing import Answer, FaultServer

HELLO = Answer.stream(["Hel", "lo"])


class Browser:
    """Takes what it is given; leaves when it is told to."""

    def __init__(self):
        self.data, self.left = b"", False

    def gone(self):
        return self.left

    async def write(self, frames):
        await asyncio.sleep(0)
        self.data += frames

    async def body(self):
        for piece in (b"{", json.dumps(ASK)[1:].encode()):
            await asyncio.sleep(0)
            yield piece


async def ask(service, browser, headers):
    """What an adapter does with one request."""
    request = RelayRequest(
        method="POST", path=CHAT, body=browser.body, gone=browser.gone, local="127.0.0.1",
        headers={"host": "localhost", "content-type": "application/json", **headers},
    )  # fmt: skip
    reply = await service.handle(request)
    try:
        return await pump(reply.source, browser)
    finally:
        await reply.close()


def steps():
    """0, 1, 2, … and then in ever larger steps: each may be the one that is hit."""
    at = 0
    while True:
        yield at
        at += 1 + at // 12


@pytest.mark.parametrize("resumable", ["0", "1"])
async def test_cancelled_at_any_step(resumable):
    async with FaultServer(default=HELLO) as server, AsyncKonko(KEY, server.base_url) as client:
        service = RelayService(client, RelayOptions(models=[MODEL]), auth="open", host="127.0.0.1")
        cancelled = 0
        for at in steps():
            browser = Browser()
            asking = asyncio.create_task(ask(service, browser, {"x-resumable": resumable}))
            for _ in range(at):
                await asyncio.sleep(0)
            if asking.done():
                assert asking.result() == "done"
                assert browser.data.endswith(b"data: [DONE]\n\n")
                break
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            cancelled += 1
            assert not service.live
            await service.until_idle()  # what is resumable goes on to its end by itself
            assert service.running == 0
            assert sum(lane.in_flight for lane in client.limits.lanes) == 0
        assert cancelled > 10


@pytest.mark.parametrize("resumable", ["0", "1"])
async def test_gone_at_any_step(resumable):
    options = RelayOptions(models=[MODEL], linger=0.05)
    async with FaultServer(default=HELLO) as server, AsyncKonko(KEY, server.base_url) as client:
        service = RelayService(client, options, auth="open", host="127.0.0.1")
        for place in (0, HELLO.wire.index(b'"Hel"') - 60, HELLO.wire.index(b'"lo"') - 60):
            server.push(HELLO.stall(place))
            browser = Browser()
            asking = asyncio.create_task(ask(service, browser, {"x-resumable": resumable}))
            await server.wait_for_stall(1)
            browser.left = True
            try:
                assert await asking == "gone"
            except ReaderGoneError:
                assert not browser.data
            await service.until_idle()
            await server.wait_until_closed()
            assert service.running == 0
