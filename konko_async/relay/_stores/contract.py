"""Checks that a store of streams keeps to the contract: for authors of stores."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Sequence

from konko_async.relay._errors import StreamLostError
from konko_async.relay._stores.base import Page, StreamInfo, StreamStore

__all__ = ["check_store"]

_LONG = 60.0  # seconds; what is waited for comes long before
# Payloads that a store might change: by its framing, its encoding, or a limit on size.
_AWKWARD = [
    b"",
    b"\0",
    b"a\r\nb\n\n",
    b"id: 7",
    "\u2028é😀".encode(),
    bytes(range(256)),
    b"x" * 70_000,
]


class _Check:
    """One store under test, with what all checks need."""

    def __init__(self, store: StreamStore, tick: float) -> None:
        self.store = store
        self.tick = tick

    async def stream(self, *, key: str | None = None, owner: str = "ann") -> str:
        name = secrets.token_urlsafe(16)
        headers = {"x-format": "1"}
        info = StreamInfo(id=name, owner=owner, key=key, format="openai", headers=headers)
        await self.store.create(info, lease=_LONG)
        return name

    async def all_of(self, stream_id: str, after: int = 0) -> list[bytes]:
        found: list[bytes] = []
        while True:
            page = await self.store.read(stream_id, after + len(found), wait=0)
            _expect(page.first == after + len(found) + 1, "a page tells the number of its first")
            found += page.payloads
            if page.finished or not page.payloads:
                return found


def _expect(holds: bool, what: str) -> None:
    if not holds:
        raise AssertionError(f"the store does not keep to the contract: {what}")


async def _loses(awaitable: Awaitable[object], what: str) -> None:
    try:
        await awaitable
    except StreamLostError:
        return
    raise AssertionError(f"the store does not keep to the contract: {what}")


async def _order(check: _Check) -> None:
    store, name = check.store, await check.stream()
    other = await check.stream()
    _expect(await store.append(name, _AWKWARD[:1]) == 1, "append returns the last number")
    await store.append(other, [b"other"])
    _expect(await store.append(name, []) == 1, "appending nothing changes nothing")
    _expect(
        await store.append(name, _AWKWARD[1:]) == len(_AWKWARD), "numbers go on where they were"
    )
    for after in range(len(_AWKWARD) + 1):
        _expect(await check.all_of(name, after) == _AWKWARD[after:], "what follows is what is read")
    await store.finish(name, [b"last"])
    await store.finish(name, [b"again"])
    _expect(await check.all_of(name) == [*_AWKWARD, b"last"], "a stream is finished once")
    _expect(await check.all_of(other) == [b"other"], "streams are apart")
    await _loses(store.append(name, [b"late"]), "nothing is added after the end")
    page = await store.read(name, len(_AWKWARD) + 1, wait=_LONG)
    _expect(page.finished and not page.payloads, "a finished stream is not waited for")


async def _long(check: _Check) -> None:
    store, name = check.store, await check.stream()
    events = [b"%d" % number for number in range(3000)]
    for start in range(0, len(events), 100):
        await store.append(name, events[start : start + 100])
    await store.finish(name, [])
    _expect(await check.all_of(name) == events, "long streams are read page by page")
    _expect(await check.all_of(name, 2999) == events[2999:], "from anywhere")


async def _waiting(check: _Check) -> None:
    store, name = check.store, await check.stream()
    page = await store.read(name, 0, wait=check.tick)
    _expect(page == Page(1, [], False) or not page.payloads, "a wait in vain is an empty page")
    _expect(not page.finished, "an empty page is no end")

    async def reader() -> list[bytes]:
        found: list[bytes] = []
        while True:
            page = await store.read(name, len(found), wait=_LONG)
            found += page.payloads
            if page.finished:
                return found

    tasks = [asyncio.create_task(reader()) for _ in range(3)]
    # Cancelled in the middle: one reader that leaves must not take a wake-up from the others.
    gone = asyncio.create_task(reader())
    for number in range(5):
        await asyncio.sleep(check.tick / 5)
        await store.append(name, [b"%d" % number])
        if number == 2:  # noqa: PLR2004 - in the middle
            gone.cancel()
    await store.finish(name, [b"end"])
    async with asyncio.timeout(_LONG / 2):
        for found in await asyncio.gather(*tasks):
            _expect(found == [b"0", b"1", b"2", b"3", b"4", b"end"], "all readers get all of it")
    await asyncio.wait([gone])


async def _names(check: _Check) -> None:
    store = check.store
    key = secrets.token_hex(8)
    first = await check.stream(key=key)
    info = await store.info(first)
    _expect(info is not None and info.owner == "ann" and info.key == key, "info knows the owner")
    _expect(info is not None and info.headers == {"x-format": "1"}, "info keeps the headers")
    _expect(info is not None and info.state == "active", "a new stream is active")
    _expect(await store.find("ann", key) == first, "a stream is found by its key")
    _expect(await store.find("bob", key) is None, "only by its owner")
    other = StreamInfo(id=secrets.token_urlsafe(16), owner="bob", key=key)
    _expect(await store.create(other, lease=_LONG) is None, "another owner's key is another one")
    await store.finish(other.id, [])
    info = StreamInfo(id=secrets.token_urlsafe(16), owner="ann", key=key)
    earlier = await store.create(info, lease=_LONG)
    _expect(earlier == first, "create tells which active stream had the key")
    second = info.id
    _expect(await store.find("ann", key) == second, "the latest of a key is found")
    await store.finish(first, [])
    _expect(await store.find("ann", key) == second, "the end of an earlier one changes nothing")
    await store.finish(second, [])
    _expect(await store.find("ann", key) is None, "a finished one is not found")
    info = await store.info(second)
    _expect(info is not None and info.state == "finished", "but known")
    info = StreamInfo(id=secrets.token_urlsafe(16), owner="ann", key=key)
    _expect(await store.create(info, lease=_LONG) is None, "an ended stream has no key")
    await store.finish(info.id, [])
    unknown = secrets.token_urlsafe(16)
    _expect(await store.info(unknown) is None, "what never was is not known")
    _expect(await store.find("ann", unknown) is None, "nor found")
    await _loses(store.read(unknown, 0, wait=0), "what never was cannot be read")
    await _loses(store.append(unknown, [b""]), "nor written")
    # Neither may fail: a reader or a stop can come after the stream has been thrown away.
    await store.leave(unknown, "nobody")
    await store.request_stop(unknown)


async def _stops(check: _Check) -> None:
    store, name = check.store, await check.stream()
    told = await store.watch(name, wait=0, lease=_LONG)
    _expect(not told.stop, "no stop is asked for at first")
    watching = asyncio.create_task(store.watch(name, wait=_LONG, lease=_LONG))
    await asyncio.sleep(check.tick / 5)
    await store.request_stop(name)
    async with asyncio.timeout(_LONG / 2):
        _expect((await watching).stop, "the writer hears of a stop at once")
    _expect((await store.watch(name, wait=_LONG, lease=_LONG)).stop, "and again if it asks again")
    await store.finish(name, [])
    await store.request_stop(name)


async def _presence(check: _Check) -> None:
    store, tick = check.store, check.tick
    name = await check.stream()
    await asyncio.sleep(tick)
    told = await store.watch(name, wait=0, lease=_LONG)
    _expect(told.unread >= tick / 2, "without readers, time runs")
    await store.attend(name, "one", lease=_LONG)
    await store.attend(name, "two", lease=_LONG)
    await store.leave(name, "one")
    await asyncio.sleep(tick)
    told = await store.watch(name, wait=0, lease=_LONG)
    _expect(told.unread == 0, "while one reads, it does not")
    await store.leave(name, "two")
    await asyncio.sleep(tick)
    told = await store.watch(name, wait=0, lease=_LONG)
    # Loose bounds, as the store's server may be slow; it must count from the last leave.
    _expect(tick / 2 <= told.unread < _LONG, "it runs from when the last one left")
    await store.attend(name, "three", lease=tick)
    await asyncio.sleep(3 * tick)
    told = await store.watch(name, wait=0, lease=_LONG)
    _expect(told.unread >= tick, "a reader that died has left when its lease ends")
    await store.finish(name, [])


async def _dead_writer(check: _Check) -> None:
    store, tick = check.store, check.tick
    name = await check.stream()
    await store.append(name, [b"kept"])
    other = secrets.token_urlsafe(16)
    await store.create(StreamInfo(id=other, owner="ann"), lease=tick)
    await store.append(other, [b"kept"])
    await asyncio.sleep(3 * tick)
    _expect(await check.all_of(name) == [b"kept"], "a lease that holds is one")
    page = await store.read(other, 0, wait=0)
    _expect(list(page.payloads) == [b"kept"], "what a dead writer wrote is read")
    await _loses(store.read(other, 1, wait=_LONG), "a dead writer is not waited for")
    await store.finish(name, [])


_CHECKS: Sequence[Callable[[_Check], Awaitable[None]]] = (
    _order, _long, _waiting, _names, _stops, _presence, _dead_writer,
)  # fmt: skip


async def check_store(store: StreamStore, *, tick: float = 0.2) -> None:
    """Check that a store keeps to the contract of :class:`StreamStore`.

    Args:
        store: with limits no lower than MemoryStore's defaults; other streams in it are left alone.
        tick: seconds that the store's server surely needs less than, for anything. Default 0.2.

    Raises:
        AssertionError: it does not; the message says where.
    """
    for check in _CHECKS:
        await check(_Check(store, tick))
