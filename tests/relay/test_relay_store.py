"""Stores of streams: the contract, MemoryStore's limits, and readers that come and go at will."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from konko_async.errors import ConfigurationError
from konko_async.relay import (
    HubSource,
    MemoryStore,
    StoreFullError,
    StreamInfo,
    StreamLostError,
    StreamTooLongError,
    check_store,
)
from konko_async.sse import SSEDecoder
from konko_async.testing import jumping_time, run_with_jumping_time


def info(name="s", **more):
    return StreamInfo(id=name, owner="ann", **more)


@jumping_time
async def test_the_memory_store_keeps_to_the_contract():
    await check_store(MemoryStore())


async def test_the_memory_store_keeps_to_the_contract_in_real_time():
    await check_store(MemoryStore(), tick=0.02)


class Forgetful(MemoryStore):
    """Loses the last event of a page."""

    async def append(self, stream_id, payloads):
        return await super().append(stream_id, payloads[:-1] or payloads)


class Deaf(MemoryStore):
    """Tells its writers nothing."""

    async def request_stop(self, stream_id):
        pass


class Open(MemoryStore):
    """Finds streams of others."""

    async def find(self, _, key):
        return await super().find("ann", key)


@pytest.mark.parametrize("broken", [Forgetful, Deaf, Open])
@jumping_time
async def test_the_contract_finds_what_is_wrong(broken):
    with pytest.raises((AssertionError, TimeoutError)):
        await check_store(broken())


@jumping_time
async def test_each_reader_waits_for_as_long_as_it_said():
    """One timer serves all readers that wait for a stream, in whatever order they came."""
    store, clock = MemoryStore(), asyncio.get_running_loop().time
    await store.create(info(), lease=1000)

    async def waited(wait):
        begun = clock()
        page = await store.read("s", 0 if wait < 5 else 1, wait=wait)
        return round(clock() - begun, 6), list(page.payloads)

    async with asyncio.TaskGroup() as group:
        waits = [group.create_task(waited(wait)) for wait in (2, 9, 1, 3, 30, 7)]
        assert await waited(2.5) == (2.5, [])
        await store.append("s", [b"x"])
    # Woken by the event, as those behind it are, which then have nothing to read yet.
    assert [task.result() for task in waits] == [
        (2, []), (2.5, []), (1, []), (2.5, [b"x"]), (2.5, []), (2.5, []),
    ]  # fmt: skip
    assert await waited(6) == (6, [])
    assert await waited(8) == (8, [])


# -- limits ----------------------------------------------------------------------------------------


@jumping_time
async def test_finished_streams_expire_without_a_visitor():
    store = MemoryStore(keep=100)
    await store.create(info(), lease=9)
    await store.append("s", [b"x"])
    await store.finish("s", [])
    await asyncio.sleep(99)
    assert (store.streams, (await store.info("s")).state) == (1, "finished")
    await asyncio.sleep(2)
    assert (store.streams, store.size) == (0, 0)
    assert (await store.info("s")).state == "expired"
    with pytest.raises(StreamLostError):
        await store.read("s", 0, wait=0)
    with pytest.raises(ConfigurationError, match="already"):
        await store.create(info(), lease=9)


@jumping_time
async def test_an_active_stream_does_not_expire():
    store = MemoryStore(keep=1)
    await store.create(info(), lease=10**6)
    await store.append("s", [b"x"])
    await asyncio.sleep(1000)
    assert (await store.read("s", 0, wait=0)).payloads == [b"x"]


@jumping_time
async def test_a_stream_that_grows_too_long():
    store = MemoryStore(max_stream_bytes=1000)
    await store.create(info(), lease=9)
    await store.append("s", [b"x" * 900])
    with pytest.raises(StreamTooLongError):
        await store.append("s", [b"x" * 900])
    await store.finish("s", [b"the end"])  # what says so is kept in any case
    assert (await store.read("s", 0, wait=0)).payloads == [b"x" * 900, b"the end"]


@jumping_time
async def test_the_oldest_finished_stream_makes_room():
    empty = MemoryStore()
    for name in "cd":
        await empty.create(info(name), lease=9)
    store = MemoryStore(max_streams=2, max_bytes=2000 + empty.size)
    for name in "ab":
        await store.create(info(name), lease=9)
    with pytest.raises(StoreFullError):
        await store.create(info("c"), lease=9)
    await store.append("a", [b"x" * 900])
    await store.append("b", [b"x" * 900])
    with pytest.raises(StreamTooLongError, match="together"):
        await store.append("b", [b"x" * 900])
    await store.finish("a", [])
    await store.append("b", [b"x" * 900])
    assert (await store.info("a")).state == "expired"
    await store.create(info("c"), lease=9)
    await store.finish("b", [])
    await store.create(info("d"), lease=9)
    assert (await store.info("b")).state == "expired"
    assert store.streams == 2
    assert store.size == empty.size


@jumping_time
async def test_a_reader_that_waits_when_its_stream_is_thrown_away():
    store = MemoryStore(keep=5)
    await store.create(info(), lease=10**6)
    reading = asyncio.create_task(store.read("s", 0, wait=1000))
    await asyncio.sleep(1)
    await store.finish("s", [])
    assert (await reading).finished


@pytest.mark.parametrize("name", ["keep", "max_streams", "max_stream_bytes", "max_bytes"])
def test_limits_must_be_limits(name):
    with pytest.raises(ConfigurationError):
        MemoryStore(**{name: 0})


# -- readers that come and go ----------------------------------------------------------------------

PAYLOAD = st.binary(max_size=8) | st.sampled_from([b"a\nb", b"\r\n\r\n", b"id: 1", b""])
STEP = st.one_of(
    st.tuples(st.just("append"), st.lists(PAYLOAD, max_size=4)),
    st.tuples(st.just("come"), st.floats(0, 1)),  # back to some place that it has been at
    st.tuples(st.just("run"), st.integers(0, 5)),
    st.tuples(st.just("leave"), st.floats(0, 1)),
)


class Reader:
    """Reads on until it is made to leave; keeps what came after the place it began at."""

    def __init__(self, store, after):
        self.after = after
        self.data = b""
        self.source = HubSource(
            store, info("s-1"), after, fail=lambda _: [b"failed"], stop=lambda _: [b"stopped"]
        )
        self.task = asyncio.create_task(self.read())

    async def read(self):
        while (data := await self.source.read()) is not None:
            self.data += data

    async def leave(self):
        self.task.cancel()
        await asyncio.wait([self.task])
        await self.source.close()

    def events(self):
        return SSEDecoder().feed(self.data)


@settings(max_examples=150, deadline=None)
@given(st.lists(STEP, max_size=25))
def test_any_interleaving_gives_every_reader_exactly_the_log(steps):
    run_with_jumping_time(_interleave(steps))


async def _interleave(steps):
    store = MemoryStore()
    await store.create(info("s-1"), lease=10**6)
    log, readers, left = [], [Reader(store, 0)], []
    for step, value in steps:
        if step == "append":
            assert await store.append("s-1", value) == len(log) + len(value)
            log += value
        elif step == "come":
            readers.append(Reader(store, int(value * len(log))))
        elif step == "leave" and readers:
            reader = readers.pop(int(value * (len(readers) - 1)))
            await reader.leave()
            left.append(reader)
            # It comes back with the last id that it saw, as browsers do.
            seen = reader.events()
            last = int(seen[-1].id.removeprefix("s-1.")) if seen else reader.after
            assert last == reader.after + len(seen)
            readers.append(Reader(store, last))
        for _ in range(value if step == "run" else 1):
            await asyncio.sleep(0)
    await store.finish("s-1", [b"end"])
    log.append(b"end")
    for reader in readers:
        await reader.task
        await reader.source.close()
    for reader in readers + left:
        expected = [
            (
                f"s-1.{number}",
                text.decode("utf-8", "replace").replace("\r\n", "\n").replace("\r", "\n"),
            )
            for number, text in enumerate(log, 1)
        ]
        found = [(event.id, event.data) for event in reader.events()]
        end = reader.after + len(found) if reader in left else len(log)
        assert found == expected[reader.after : end]
    told = await store.watch("s-1", wait=0, lease=1)
    assert told.unread >= 0


# -- caps: each is filled ----------------------------------------------------------------------------


def long_info(number, size=100_000):
    text = "k" * size
    return StreamInfo(id=f"s{number}", owner="o" * 1000, key=text, headers={"x": text})


@jumping_time
async def test_what_is_known_of_streams_counts():
    store = MemoryStore(max_bytes=2_000_000)
    with pytest.raises(StoreFullError):
        for number in range(100):
            await store.create(long_info(number), lease=9)
    assert 1_800_000 < store.size <= 2_000_000
    assert store.streams == 9


@jumping_time
async def test_what_is_remembered_of_streams_is_small_and_bounded():
    store = MemoryStore(keep=1)
    owners = 2_000
    for number in range(12_000):
        name = f"{number:022}"
        owner = "o" * owners
        await store.create(StreamInfo(id=name, owner=owner, key="k" * 128), lease=9)
        await store.finish(name, [b"x"])
        if number % 1000 == 999:
            await asyncio.sleep(2)
    assert store.streams == store.size == 0
    remembered = [await store.info(f"{number:022}") for number in range(12_000)]
    remembered = [info for info in remembered if info is not None]
    assert 0 < sum(len(info.id) + len(info.owner) for info in remembered) <= 4 * 2**20
    assert {(info.key, info.state) for info in remembered} == {(None, "expired")}
    assert (await store.info(f"{11_999:022}")) is not None
    short = MemoryStore(keep=1, max_streams=1)
    for number in range(10_500):
        await short.create(info(f"{number}"), lease=9)
        await short.finish(f"{number}", [])
    found = [await short.info(str(number)) for number in range(10_500)]
    assert sum(one is not None for one in found) == 10_001
