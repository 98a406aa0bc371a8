"""The parts of HTTP of our own, beside aiohttp's on the same input; no sockets here."""

import asyncio
import gzip
import itertools
import sys
from types import SimpleNamespace

import aiohttp
import pytest
from aiohttp import StreamReader
from aiohttp.client_proto import ResponseHandler
from hypothesis import example, given
from hypothesis import strategies as st
from yarl import URL

from konko_async import ConfigurationError
from konko_async._http.aiohttp_internals import Body
from konko_async._http.aiohttp_probe import probe
from konko_async._http.map_exceptions import translate
from konko_async._http.multipart import Multipart, read_source
from konko_async._http.write_batcher import WriteBatcher

LIMIT = 2**16


class Transport(asyncio.Transport):
    """Where aiohttp's protocol is connected to: notes what is asked of it."""

    def __init__(self):
        super().__init__()
        self.reading = True
        self.closing = False
        self.written = []

    def pause_reading(self):
        self.reading = False

    def resume_reading(self):
        self.reading = True

    def is_closing(self):
        return self.closing

    def close(self):
        self.closing = True

    def write(self, data):
        self.written.append(bytes(data))


def connected():
    protocol = ResponseHandler(asyncio.get_running_loop())
    transport = Transport()
    protocol.connection_made(transport)
    return protocol, transport


async def opened(*fields, status=200, ours=True):
    """A protocol that has read the head of an answer, and the answer's body."""
    protocol, transport = connected()
    protocol.set_response_params(read_bufsize=LIMIT, read_until_eof=True)  # as clients do
    protocol.data_received("\r\n".join((f"HTTP/1.1 {status} X", *fields, "", "")).encode())
    _, body = await protocol.read()
    if ours:
        Body.take_over(body)
    return protocol, transport, body


def test_the_installed_aiohttp_is_recognised():
    assert probe().missing == ""
    assert probe().connector
    assert probe().channel


# -- the body --------------------------------------------------------------------------------------

PIECES = st.binary(max_size=40) | st.sampled_from([LIMIT, 3 * LIMIT])
# What is done to a body: a piece fed, a turn of the loop in which it may be read, its reader
# cancelled (which may have been given a piece, and had no turn yet) and followed by another, and
# then what is there taken without waiting.
STEPS = st.lists(PIECES | st.sampled_from(["turn", "cancel", "take"]), max_size=40)


def spelt(piece):
    """A piece, or so many bytes, which an example that failed need not show."""
    return b"x" * piece if isinstance(piece, int) else piece


async def fed(body, steps, *, chunks):
    """Feed a body as aiohttp's parser does, reading in between; what the reads gave."""
    got = []

    async def read():
        while data := await body.readany():
            got.append(data)
        assert await body.readany() == b""  # and again

    reader = asyncio.create_task(read())
    await asyncio.sleep(0)
    for step in steps:
        if step == "turn":
            await asyncio.sleep(0)
        elif step in {"cancel", "take"}:
            reader.cancel()
            await asyncio.wait([reader])
            if step == "take":
                got.append(body.read_nowait())
            reader = asyncio.create_task(read())
            await asyncio.sleep(0)
        else:
            if chunks:
                body.begin_http_chunk_receiving()
            assert not body.feed_data(spelt(step), len(spelt(step)))
            if chunks:
                body.end_http_chunk_receiving()
    body.feed_eof()
    assert body.is_eof()
    await reader
    assert body.at_eof()
    return got


@given(STEPS, st.booleans())
@example([b"", "turn", "take", b"a", b"", "turn", b"b", "take"], True)
@example([b"a", b"b", "cancel", b"c", "turn", b"d", "cancel"], True)
def test_what_is_fed_is_what_is_read(steps, chunks):
    async def run(ours):
        protocol, transport, body = await opened("Transfer-Encoding: chunked", ours=ours)
        assert (type(body) is Body) is ours
        got = await fed(body, steps, chunks=chunks)
        assert transport.reading
        assert body.total_bytes == sum(map(len, got))
        protocol.close()
        return b"".join(got)

    whole = b"".join(spelt(step) for step in steps if not isinstance(step, str))
    assert asyncio.run(run(ours=True)) == whole
    assert asyncio.run(run(ours=False)) == whole


def framed(pieces, framing, *, zipped):
    """Fields and bytes of a body in which each piece is a chunk of HTTP's."""
    fields = ["Content-Encoding: gzip"] if zipped else []
    if zipped:
        data = gzip.compress(b"".join(pieces))
        pieces = [data[at : at + 50] for at in range(0, len(data), 50)]
    if framing == "chunked":
        wire = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces if piece)
        return [*fields, "Transfer-Encoding: chunked"], wire + b"0\r\n\r\n"
    data = b"".join(pieces)
    return ([*fields, f"Content-Length: {len(data)}"] if framing == "length" else fields), data


def cut(wire, sizes):
    """The wire in reads of these sizes, over and over."""
    at, turn, parts = 0, 0, []
    while at < len(wire):
        size = sizes[turn % len(sizes)]
        parts.append(wire[at : at + size])
        at, turn = at + size, turn + 1
    return parts


@given(
    st.lists(PIECES, max_size=8),
    st.sampled_from(["chunked", "length", "close"]),
    st.booleans(),
    st.lists(st.integers(1, 2000) | st.just(LIMIT), min_size=1, max_size=4),
    st.lists(st.booleans(), min_size=1, max_size=4),
)
@example([b"x"] * 200, "chunked", False, [100], [False])
@example([40 * LIMIT], "chunked", True, [LIMIT], [False])  # far more than it weighs
def test_through_the_parser_it_reads_as_aiohttps_own(pieces, framing, zipped, sizes, turns):
    """The head alone, then the body in any reads, while somebody reads it now and then."""

    pieces = list(map(spelt, pieces))

    async def run(ours, *takes):
        fields, wire = framed(pieces, framing, zipped=zipped)
        protocol, transport, body = await opened(*fields, ours=ours)
        got, takes = [], itertools.cycle(takes or [False])

        def take(data):
            if not next(takes):
                return data
            got.append(data)
            return None

        async def read():
            while data := await (body.readany_or(take) if ours else body.readany()):
                got.append(data)

        reader = asyncio.create_task(read())
        for turn, part in enumerate(cut(wire, [max(size, len(wire) // 300) for size in sizes])):
            while not transport.reading:  # as a paused transport gives nothing
                await asyncio.sleep(0)
            protocol.data_received(part)
            if turns[turn % len(turns)]:
                await asyncio.sleep(0)
        if framing == "close":
            while not transport.reading:
                await asyncio.sleep(0)
            protocol.connection_lost(None)
        await asyncio.wait_for(reader, 30)
        protocol.close()
        return b"".join(got), body.is_eof(), body.total_bytes, body.exception()

    whole = b"".join(pieces)
    assert asyncio.run(run(ours=True)) == (whole, True, len(whole), None)
    assert asyncio.run(run(True, *turns)) == (whole, True, len(whole), None)
    assert asyncio.run(run(ours=False)) == (whole, True, len(whole), None)


async def test_it_is_paused_where_nobody_reads():
    protocol, transport, body = await opened("Content-Length: 100000000")
    fed = 0
    while transport.reading:
        protocol.data_received(bytes(1000))
        fed += 1000
    assert body.get_read_buffer_limits()[1] - 5000 < fed <= body.get_read_buffer_limits()[1] + 1000
    assert await body.readany() == bytes(fed)
    assert transport.reading
    protocol.close()


async def test_chunks_of_a_byte_weigh_what_their_objects_do():
    """Counted by their data, a hundred thousand little objects would be kept before a pause."""
    protocol, transport, body = await opened("Transfer-Encoding: chunked")
    chunks = 0
    while transport.reading:
        protocol.data_received(b"1\r\nx\r\n" * 50)
        chunks += 50
        assert chunks < 100_000
    assert sum(map(sys.getsizeof, body._buffer)) <= 2 * body.get_read_buffer_limits()[1]
    seen = len(await body.readany())
    while seen < chunks:  # aiohttp's newer parsers keep what came after the pause
        seen += len(await body.readany())
    assert seen == chunks
    assert transport.reading
    protocol.close()


async def test_of_nothing_fed_there_is_nothing_to_take():
    protocol, _, body = await opened("Transfer-Encoding: chunked")
    assert body.read_nowait() == b""
    body.feed_data(b"")
    assert body.read_nowait() == b""
    assert not body.at_eof()
    body.feed_data(b"a")
    body.feed_data(b"b")
    body.feed_eof()
    assert body.is_eof()
    assert not body.at_eof()
    assert body.read_nowait() == b"ab"
    assert body.at_eof()
    assert body.read_nowait() == b""
    protocol.close()


async def waiting(body):
    """A task that waits for a body."""
    task = asyncio.create_task(body.readany())
    await asyncio.sleep(0)
    assert not task.done()
    return task


async def test_a_failure_wakes_the_reader_and_stays():
    protocol, _, body = await opened("Transfer-Encoding: chunked")
    reader = await waiting(body)
    body.set_exception(ValueError("put in"))
    with pytest.raises(ValueError, match="put in"):
        await reader
    with pytest.raises(ValueError, match="put in"):
        await body.readany()
    with pytest.raises(ValueError, match="put in"):
        body.read_nowait()
    protocol.close()


async def test_a_failure_comes_before_what_had_come():
    protocol, _, body = await opened("Transfer-Encoding: chunked")
    body.feed_data(b"kept")
    body.set_exception(ValueError("put in"))
    with pytest.raises(ValueError, match="put in"):
        await body.readany()
    assert b"".join(body._buffer) == b"kept"  # what Answer.leftover() takes
    protocol.close()


@pytest.mark.parametrize("error", [None, ConnectionResetError("reset")])
async def test_a_lost_connection_wakes_the_reader(error):
    protocol, _, body = await opened("Transfer-Encoding: chunked")
    reader = await waiting(body)
    protocol.connection_lost(error)
    with pytest.raises(aiohttp.ClientPayloadError):
        await reader


async def test_a_read_after_the_connection_was_lost_does_not_wait():
    protocol, _, body = await opened("Transfer-Encoding: chunked")
    protocol._payload = None  # aiohttp forgot it
    protocol.connection_lost(None)
    with pytest.raises(RuntimeError, match="closed"):
        await body.readany()


async def test_after_a_cancelled_read_nothing_is_lost():
    protocol, _, body = await opened("Transfer-Encoding: chunked")
    for piece in (b"one", b"two"):
        reader = await waiting(body)
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader
        assert body._waiter is None
        body.feed_data(piece)
        body.feed_data(piece)
        assert await body.readany() == piece * 2
    # Cancelled in the turn in which something comes.
    reader = await waiting(body)
    body.feed_data(b"three")
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    assert await body.readany() == b"three"
    # And fed in the turn in which it was cancelled.
    reader = await waiting(body)
    reader.cancel()
    body.feed_data(b"four")
    body.feed_eof()
    with pytest.raises(asyncio.CancelledError):
        await reader
    assert await body.readany() == b"four"
    assert await body.readany() == b""
    protocol.close()


async def test_an_empty_body_stays_aiohttps():
    """That object is shared by all of them."""
    protocol, _, body = await opened(status=204)
    assert type(body) not in {Body, StreamReader}
    assert await body.readany() == b""
    assert body.read_nowait() == b""
    protocol.close()
    protocol, _, body = await opened("Content-Length: 0")  # one of its own, which has ended
    assert body.at_eof()
    assert await body.readany() == b""
    protocol.close()


async def test_one_that_is_taken_over_late_keeps_what_had_come():
    protocol, _, body = await opened("Transfer-Encoding: chunked", ours=False)
    protocol.data_received(b"1\r\na\r\n1\r\nb\r\n")
    Body.take_over(body)
    Body.take_over(body)
    protocol.data_received(b"1\r\nc\r\n0\r\n\r\n")
    assert await body.readany() == b"abc"
    assert await body.readany() == b""
    protocol.close()


async def test_one_that_was_paused_before_it_was_taken_over_is_resumed():
    protocol, transport, body = await opened("Transfer-Encoding: chunked", ours=False)
    sent = 0
    while transport.reading:
        protocol.data_received(b"3e8\r\n" + bytes(1000) + b"\r\n")
        sent += 1000
    Body.take_over(body)
    seen = 0
    while seen < sent:
        seen += len(await body.readany())
    assert transport.reading
    protocol.close()


async def test_all_of_it_can_be_read_at_once():
    """By aiohttp's own way, for whoever calls ``response.read()``."""
    protocol, _, body = await opened("Content-Length: 6")
    reader = asyncio.create_task(body.read())
    await asyncio.sleep(0)
    for piece in (b"ab", b"cd", b"ef"):
        protocol.data_received(piece)
        await asyncio.sleep(0)
    assert await reader == b"abcdef"
    protocol.close()


# -- writes ----------------------------------------------------------------------------------------


async def test_of_one_turn_the_first_is_written_at_once_and_the_others_after_it():
    outbox = WriteBatcher(asyncio.get_running_loop())
    one, two = Transport(), Transport()
    for turn in (b"a", b"b"):
        outbox.write(one, turn + b"1")
        outbox.write(two, turn + b"2")
        outbox.write(one, turn + b"3")
        outbox.write(two, turn + b"4")
        assert (one.written[-1], len(one.written)) == (turn + b"1", 1 if turn == b"a" else 3)
        await asyncio.sleep(0)
        assert one.written[-2:] == [turn + b"1", turn + b"3"]
        assert two.written[-2:] == [turn + b"2", turn + b"4"]
    await asyncio.sleep(0)
    outbox.write(two, b"later")
    assert two.written[-1] == b"later"
    await asyncio.sleep(0)
    assert len(one.written) + len(two.written) == 9


async def test_what_is_closed_meanwhile_is_left_out(caplog):
    outbox = WriteBatcher(asyncio.get_running_loop())
    first, closed, last = Transport(), Transport(), Transport()
    for transport in (first, closed, last):
        outbox.write(transport, b"data")
    closed.close()
    await asyncio.sleep(0)
    assert (first.written, closed.written, last.written) == ([b"data"], [], [b"data"])
    assert not caplog.records


def test_errors_of_aiohttp_that_are_none_of_the_usual_ones():
    found = translate(aiohttp.InvalidURL(URL("http://x")), "host")
    assert isinstance(found, ConfigurationError)
    request = SimpleNamespace(real_url=URL("http://x"), url=URL("http://x"))
    odd = aiohttp.ClientResponseError(request, (), status=0, message="never heard of it")
    found = translate(odd, "host")
    assert "its answer is malformed" in str(found)
    assert found.retryable
    assert translate(found, "host") is found


async def test_a_file_that_becomes_shorter_while_it_is_sent_is_refused(tmp_path):
    path = tmp_path / "in.jsonl"
    path.write_bytes(b"x" * 600_000)
    source = read_source(path)
    body = Multipart({"purpose": "batch"}, "file", source)
    assert repr(source) == "<UploadSource 'in.jsonl', 600000 bytes>"
    assert repr(body) == f"<Multipart {body.length} bytes>"
    with pytest.raises(ConfigurationError, match="became shorter while it was uploaded"):
        async for _ in body.chunks():
            path.write_bytes(b"x")
