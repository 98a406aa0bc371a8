"""Streams that outlive connections: one upstream call, readers that come, go and come back."""

# ruff: noqa: SIM117 - a line for each thing that is opened

import asyncio

import pytest
from relay_kit import QUICK, RESUMABLE, chunks_of, events_of, read_until, relaying, text_of

from konko_async.relay import MemoryStore
from konko_async.sse import SSEDecoder
from konko_async.testing import Answer, Emulator, FaultServer, faults

TOKENS = [f"tok{number} " for number in range(20)]
TEXT = "".join(TOKENS)
LONG = Answer.stream(TOKENS)
PLACE = LONG.wire.index(b"tok12") - 60  # within the event, before it


async def get(relay, stream_id, last="", **headers):
    """Come back; returns status and events."""
    headers = {**({"Last-Event-ID": last} if last else {}), **headers}
    async with relay.session.get(f"/v1/streams/{stream_id}", headers=headers) as response:
        data = await response.read()
        return response.status, events_of(data) if response.status == 200 else data


async def some(response, mark):
    """Read until something has come; returns the whole events of it."""
    decoder, events = SSEDecoder(), []
    while not any(mark in event.data for event in events):
        events += decoder.feed(await response.content.readany())
    return events


async def test_every_event_has_its_id():
    async with relaying(FaultServer(LONG)) as relay:
        status, headers, events = await relay.events(headers=RESUMABLE)
        stream_id = headers["X-Stream-Id"]
        assert status == 200
        assert [e.id for e in events] == [f"{stream_id}.{n}" for n in range(1, len(events) + 1)]
        assert text_of(events) == TEXT
        assert len(stream_id) >= 22
        for last in (f"{stream_id}.7", "7"):
            assert await get(relay, stream_id, last) == (200, events[7:])
        assert (await get(relay, stream_id))[1] == events
        async with relay.session.get(f"/v1/streams/{stream_id}?last_event_id=7") as response:
            assert events_of(await response.read()) == events[7:]
        # All of it is known: what an EventSource is told so that it asks no more.
        assert await get(relay, stream_id, events[-1].id) == (204, b"")


@pytest.mark.parametrize("early", [False, True])
async def test_a_reader_that_comes_back_pays_nothing_and_misses_nothing(early):
    server = FaultServer(LONG.stall(PLACE))
    async with relaying(server, open_early=early) as relay:
        async with relay.ask(headers=RESUMABLE) as response:
            stream_id = response.headers["X-Stream-Id"]
            events = await some(response, "tok5")
            await server.wait_for_stall()
            response.close()  # the network is cut
        coming = asyncio.create_task(get(relay, stream_id, events[-1].id))
        await asyncio.sleep(0)
        server.release()
        status, rest = await coming
        assert status == 200
        assert text_of(events + rest) == TEXT
        assert [int(e.id.rpartition(".")[2]) for e in events + rest] == list(
            range(1, len(events + rest) + 1)
        )
        assert len(server.requests) == 1


async def test_any_number_of_readers_of_one_call():
    server = FaultServer(LONG.stall(PLACE))
    async with relaying(server) as relay:
        async with relay.ask(headers=RESUMABLE) as response:
            stream_id = response.headers["X-Stream-Id"]
            others = [asyncio.create_task(get(relay, stream_id, str(n % 5))) for n in range(30)]
            await server.wait_for_stall()
            server.release()
            events = events_of(await response.read())
        for number, other in enumerate(others):
            assert await other == (200, events[number % 5 :])
        assert len(server.requests) == 1
        await relay.service.until_idle()


async def test_nobody_comes_back():
    server = FaultServer(LONG.stall(PLACE))
    async with relaying(server, linger=0.2) as relay:
        async with relay.ask(headers=RESUMABLE) as response:
            stream_id = response.headers["X-Stream-Id"]
            await server.wait_for_stall()
            response.close()
        assert server.connections.open == 1  # it goes on for a while
        await server.wait_until_closed()
        await relay.service.until_idle()
        _, events = await get(relay, stream_id)
        assert chunks_of(events)[-1]["relay"] == {"reason": "abandoned"}


class Counting(MemoryStore):
    """Tells when its writer has looked after its readers some times."""

    def __init__(self):
        super().__init__()
        self.looks, self.enough = [], asyncio.Event()

    async def watch(self, stream_id, *, wait, lease):
        told = await super().watch(stream_id, wait=wait, lease=lease)
        self.looks.append(told.unread)
        if len(self.looks) == 4:
            self.enough.set()
        return told


async def test_a_reader_keeps_the_stream_going():
    server, store = FaultServer(LONG.stall(PLACE)), Counting()
    async with relaying(server, linger=0.05, service={"store": store}) as relay:
        async with relay.ask(headers=RESUMABLE) as response:
            await store.enough.wait()  # for longer than it would linger
            assert store.looks == [0] * 4
            server.release()
            assert text_of(events_of(await response.read())) == TEXT


async def test_whoever_waits_for_the_first_token_is_no_absentee():
    server, store = FaultServer(LONG.stall(0)), Counting()
    async with relaying(server, linger=0.05, service={"store": store}) as relay:
        asking = asyncio.create_task(relay.events(headers=RESUMABLE))
        await store.enough.wait()
        server.release()
        status, _, events = await asking
        assert (status, text_of(events)) == (200, TEXT)


async def test_whoever_leaves_before_the_first_token_cannot_come_back():
    """Nobody was told the stream's id: the call would be paid for and read by nobody."""
    server = FaultServer(LONG.stall(0))
    async with relaying(server, linger=60) as relay:
        _, writer = await relay.raw(headers=RESUMABLE)
        await server.wait_for_stall()
        writer.close()
        async with asyncio.timeout(60):
            await server.wait_until_closed()
            await relay.service.until_idle()


async def test_unless_it_has_a_name_of_its_own_for_the_stream():
    server = FaultServer(LONG.stall(0))
    question = {"id": "q", "role": "user", "parts": [{"type": "text", "text": "Say hello."}]}
    async with relaying(server, linger=60) as relay:
        body = {"id": "c1", "messages": [question], "trigger": "submit-message"}
        asking = asyncio.create_task(relay.session.post("/api/chat", json=body))
        await server.wait_for_stall()
        asking.cancel()
        async with relay.session.get("/api/chat/c1/stream") as response:
            assert response.status == 200
            server.release()
            events = chunks_of(events_of(await response.read()))
        assert "".join(event.get("delta", "") for event in events) == TEXT
        assert len(server.requests) == 1


@pytest.mark.parametrize("how", ["post", "delete"])
async def test_stop_is_not_a_disconnect(how):
    server = FaultServer(LONG.stall(PLACE))
    async with relaying(server) as relay:
        async with relay.ask(headers=RESUMABLE) as response:
            stream_id = response.headers["X-Stream-Id"]
            other = asyncio.create_task(get(relay, stream_id))
            await server.wait_for_stall()
            path = f"/v1/streams/{stream_id}"
            stopping = (
                relay.session.delete(path)
                if how == "delete"
                else relay.session.post(f"{path}/stop")
            )
            async with stopping as stopped:
                assert stopped.status == 204
            await server.wait_until_closed()
            events = events_of(await response.read())
            assert chunks_of(events)[-1] == {
                "object": "relay.stopped", "choices": [], "relay": {"reason": "stopped"},
            }  # fmt: skip
            assert await other == (200, events)
        async with relay.session.post(f"/v1/streams/{stream_id}/stop") as again:
            assert again.status == 204


async def test_stopped_before_it_began():
    server = FaultServer(LONG.stall(0))
    async with relaying(server, open_early=True) as relay:
        async with relay.ask(headers=RESUMABLE) as response:
            await server.wait_for_stall()
            async with relay.session.post(f"/v1/streams/{response.headers['X-Stream-Id']}/stop"):
                pass
            assert b"relay.stopped" in await response.read()
        await server.wait_until_closed()


@pytest.mark.parametrize("fault", [faults.Cut(5), faults.ErrorInStream(5)])
async def test_a_failure_is_part_of_the_log(fault):
    emulator = Emulator(answer=lambda _: TOKENS)
    async with relaying(emulator) as relay:
        emulator.script(fault)
        _, headers, events = await relay.events(headers=RESUMABLE)
        assert chunks_of(events)[-1]["error"]["type"] in {"stream_truncated", "upstream_error"}
        assert await get(relay, headers["X-Stream-Id"], "2") == (200, events[2:])


async def test_a_failure_before_the_first_delta_is_a_status():
    emulator = Emulator()
    async with relaying(emulator) as relay:
        emulator.script(faults.Status(503))
        status, headers, _ = await relay.events(headers=RESUMABLE)
        assert status == 503
        assert "X-Stream-Id" not in headers
        await relay.service.until_idle()


async def test_an_answer_longer_than_is_kept():
    store = MemoryStore(max_stream_bytes=2000)
    async with relaying(FaultServer(LONG.split_every(400)), service={"store": store}) as relay:
        _, _, events = await relay.events(headers=RESUMABLE)
        assert chunks_of(events)[-1]["error"]["type"] == "too_long"
        assert "tok0" in events[1].data


async def test_streams_that_are_gone_or_never_were():
    store = MemoryStore(keep=0.05)
    async with relaying(FaultServer(LONG), service={"store": store}) as relay:
        _, headers, events = await relay.events(headers=RESUMABLE)
        while store.streams:
            await asyncio.sleep(0.01)
        assert (await get(relay, headers["X-Stream-Id"], events[3].id))[0] == 410
        assert (await get(relay, "unknown"))[0] == 404
        for bad in ("x", "other.3", "-1", "9" * 40, "٣"):
            async with relay.session.get(
                f"/v1/streams/{headers['X-Stream-Id']}", params={"last_event_id": bad}
            ) as response:
                assert response.status == 400


async def test_only_the_owner_may_read_and_stop():
    async def auth(request):
        return request.headers.get("authorization")

    server = FaultServer(LONG.stall(PLACE))
    async with relaying(server, service={"auth": auth}) as relay:
        ann, bob = ({**RESUMABLE, "Authorization": name} for name in ("ann", "bob"))
        async with relay.ask(headers=ann) as response:
            stream_id = response.headers["X-Stream-Id"]
            await server.wait_for_stall()
            assert (await get(relay, stream_id, **bob))[0] == 404
            assert (await get(relay, stream_id))[0] == 401
            async with relay.session.delete(f"/v1/streams/{stream_id}", headers=bob) as refused:
                assert refused.status == 404
            async with relay.session.get("/api/chat/c1/stream", headers=bob) as refused:
                assert refused.status == 204
            server.release()
            events = events_of(await response.read())
            assert text_of(events) == TEXT
            assert await get(relay, stream_id, **ann) == (200, events)


async def test_a_shutdown_is_part_of_the_log():
    server = FaultServer(LONG.stall(PLACE))
    async with relaying(server) as relay:
        async with relay.ask(headers=RESUMABLE) as response:
            await server.wait_for_stall()
            await relay.service.close()
            events = events_of(await response.read())
            assert chunks_of(events)[-1]["relay"] == {"reason": "shutdown"}
        await server.wait_until_closed()
        await relay.service.until_idle()
        assert (await get(relay, response.headers["X-Stream-Id"])) == (200, events)


async def test_a_slow_reader_holds_nobody_up():
    emulator = Emulator(answer=lambda _: ["x" * 1000] * 3000)
    async with relaying(emulator) as relay:
        reader, writer = await relay.raw(headers=RESUMABLE)
        head = await read_until(reader, b"\r\n\r\n")
        stream_id = head.split(b"X-Stream-Id: ")[1].split(b"\r\n")[0].decode()
        status, events = await get(relay, stream_id)  # the other one takes nothing meanwhile
        assert status == 200
        assert text_of(events) == "x" * 3_000_000
        assert len(emulator.requests) == 1
        writer.transport.abort()
        await relay.service.until_idle()


async def test_the_whole_service_may_be_resumable():
    async with relaying(FaultServer(LONG), resumable=True) as relay:
        _, headers, _ = await relay.events()
        assert "X-Stream-Id" in headers
        _, headers, _ = await relay.events(headers={"X-Resumable": "0"})
        assert "X-Stream-Id" not in headers


async def test_a_reader_that_comes_back_to_another_process():
    """Two services that know of each other by their store only."""
    server, store = FaultServer(LONG.stall(PLACE)), MemoryStore()
    async with (
        relaying(server, service={"store": store}) as one,
        relaying(FaultServer(LONG), service={"store": store}) as other,
    ):
        async with one.ask(headers=RESUMABLE) as response:
            stream_id = response.headers["X-Stream-Id"]
            events = await some(response, "tok5")
            await server.wait_for_stall()
            coming = asyncio.create_task(get(other, stream_id, events[-1].id))
            shut = asyncio.create_task(get(other, stream_id, "1"))
            while len(other.service.live) < 2:
                await asyncio.sleep(0)
            # That process ends: its readers are told, but the stream goes on in this one.
            await other.service.close()
            for task in (coming, shut):
                status, rest = await task
                assert status == 200
                assert chunks_of(rest)[-1]["relay"] == {"reason": "shutdown"}
            assert server.connections.open == 1
            other.service.draining = False
            coming = asyncio.create_task(get(other, stream_id, events[-1].id))
            async with other.session.post(f"/v1/streams/{stream_id}/stop"):
                pass
            await server.wait_until_closed()
            assert chunks_of((await coming)[1])[-1]["relay"] == {"reason": "stopped"}


class Failing(MemoryStore):
    """A store whose server fails now and then."""

    def __init__(self, broken):
        super().__init__()
        self.broken = broken

    async def append(self, stream_id, payloads):
        if self.broken == "append" and payloads:
            raise ConnectionError("redis at 10.0.0.1")
        return await super().append(stream_id, payloads)

    async def read(self, stream_id, after, *, wait):
        if self.broken == "read":
            raise ConnectionError("redis at 10.0.0.1")
        return await super().read(stream_id, after, wait=wait)

    async def watch(self, stream_id, *, wait, lease):
        if self.broken == "watch":
            self.broken = ""
            raise ConnectionError("redis at 10.0.0.1")
        return await super().watch(stream_id, wait=wait, lease=lease)

    async def leave(self, stream_id, reader):
        if self.broken == "leave":
            raise ConnectionError("redis at 10.0.0.1")
        await super().leave(stream_id, reader)

    async def create(self, info, *, lease):
        if self.broken == "create":
            raise ConnectionError("redis at 10.0.0.1")
        await super().create(info, lease=lease)


@pytest.mark.parametrize("broken", ["append", "create", "read", "leave", "watch"])
async def test_a_store_that_fails(broken, caplog):
    """Whatever a store does, its reader in this process gets the answer."""
    async with relaying(FaultServer(LONG), service={"store": Failing(broken)}) as relay:
        async with relay.ask(headers=RESUMABLE) as response:
            data = await response.read()
            assert response.status == 200
            assert b"10.0.0.1" not in data
        assert text_of(events_of(data)) == TEXT
        await relay.service.close()
        assert relay.service.running == 0
    assert "10.0.0.1" not in caplog.text


async def test_the_delivery_of_a_resumed_stream_is_watched_too():
    server = FaultServer(LONG.stall(PLACE))
    async with relaying(server, linger=0.1, delivery=QUICK) as relay:
        async with relay.ask(headers=RESUMABLE) as response:
            stream_id = response.headers["X-Stream-Id"]
            await server.wait_for_stall()
            async with relay.session.get(f"/v1/streams/{stream_id}") as other:
                await some(other, "tok5")
                response.close()
                other.close()
        await server.wait_until_closed()
