"""Reads drawn streams with the client as it is, on pipes in memory, and judges what it understood."""

import asyncio
from collections import Counter

from pipe_loop import run_on_pipes

from konko_async import AsyncKonko, KonkoError, Timeout
from konko_async._streaming.accumulate import ChatAccumulator
from konko_async.sse import SSEDecoder
from konko_async.testing.dialects import ServerDialect, shrunk
from konko_async.wire import ChatCompletionChunk
from konko_async.wire._codec import Codec

ASK = {"model": "a/b", "messages": [{"role": "user", "content": "Say hello."}]}
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nTransfer-Encoding: chunked\r\n\r\n"
CHUNKS = Codec(ChatCompletionChunk)


class DrawnServer(asyncio.Protocol):
    """Answers each request with the stream that is next."""

    def __init__(self, drawn):
        self._drawn, self._received = drawn, b""
        self._paused = set()  # the pauses that are over

    def connection_made(self, transport):
        self._transport = transport

    def data_received(self, data):
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        length = next(
            (int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0
        )  # fmt: skip
        if end and len(body) >= length:
            self._received = b""
            self._answer(self._drawn[0])

    def _answer(self, drawn):
        self._transport.write(HEAD % drawn.content_type.encode())
        self._send(drawn, 0)

    def _send(self, drawn, start):
        """Send reads up to the next pause, and go on after it."""
        write, pauses = self._transport.write, dict(drawn.pauses)
        for number, read in enumerate(drawn.reads[start:], start):
            if number in pauses and number not in self._paused:
                self._paused.add(number)
                loop = asyncio.get_running_loop()
                loop.call_later(pauses[number], self._send, drawn, number)
                return
            write(b"%x\r\n%b\r\n" % (len(read), read))  # each write is a read of the client
        self._paused.clear()
        if drawn.complete:
            write(b"0\r\n\r\n")
        else:
            self._transport.close()


class Judge:
    """Counts what became of drawn streams.

    Attributes:
        counts: by outcome; those that must be 0 are in ``bad``.
        failures: the streams of those, with what was wrong.
    """

    BAD = ("silent loss or invention", "partial that was not said", "foreign exception", "leak",
           "error without the server's reason", "failure of a good stream", "paths disagree")  # fmt: skip

    def __init__(self):
        self.counts = Counter()
        self.failures = []

    @property
    def bad(self):
        return {name: self.counts[name] for name in self.BAD}

    def count(self, drawn, outcome, why=None):
        self.counts[outcome] += 1
        if why is not None:
            self.failures.append((drawn, outcome, why))


def odd(dialect):
    """Return what of a dialect is not as OpenAI has it."""
    usual = ServerDialect()
    names = (name for name in ServerDialect.__slots__ if name != "name")
    return {n: getattr(dialect, n) for n in names if getattr(dialect, n) != getattr(usual, n)}


def report(judged, most=5):
    """Return lines on what failed, each by a small case that fails, too."""
    lines = []
    for drawn, outcome, why in judged.failures[:most]:
        if drawn is None:
            lines.append(f"{outcome}: {why}")
            continue

        def fails(smaller, outcome=outcome):
            again = Judge()
            run_on_pipes(judge([smaller], again))
            return again.counts[outcome] > 0

        small = shrunk(drawn, fails)
        again = Judge()
        run_on_pipes(judge([small], again))
        lines += [
            f"{outcome}, seed {drawn.seed}: {again.failures[0][2] if again.failures else why}",
            f"  {odd(small.dialect)}, error: {small.error_shape}, complete: {small.complete}",
            f"  {list(small.reads)}",
        ]
    return lines


async def read(client, drawn):
    """Return what a client makes of a stream: its completion, or its exception."""
    options = {"n": drawn.choices} if drawn.choices > 1 else {}
    try:
        if not drawn.asked_for_stream:
            return await client.chat.completions.create(**ASK, **options)
        async with client.chat.completions.stream(**ASK, **options) as stream:
            return await stream.completion()
    except Exception as error:
        return error


def verdict(drawn, found):
    """Return the outcome of a stream, and what is wrong with it, if anything."""
    meaning = drawn.meaning
    if not isinstance(found, Exception):
        if meaning.broken:  # behind the finish reason nothing matters but the usage
            meaning = meaning.without_usage()
        problem = meaning.error or meaning.problem_with(found)
        return ("silent loss or invention" if problem else "understood"), problem
    if not isinstance(found, KonkoError):
        return "foreign exception", repr(found)
    problem = meaning.problem_with_partial(getattr(found, "partial", None))
    if problem is not None:
        return "partial that was not said", problem
    told = f"{type(found).__name__}: {found}"
    if meaning.error is not None:
        missing = meaning.error not in str(found)
        return ("error without the server's reason", told) if missing else ("error", None)
    return ("break noticed", None) if meaning.broken else ("failure of a good stream", told)


def plainly(drawn):
    """Return what a stream says, read event by event with no short way at all."""
    decoder, accumulated = SSEDecoder(), ChatAccumulator(drawn.choices)
    for event in [*decoder.feed(drawn.body), *decoder.flush()]:
        if event.event == "message" and event.data.startswith("{"):
            accumulated.add([CHUNKS.decode(event.data)])
    return accumulated.result()


def is_standard(drawn):
    """Whether a stream keeps to the letter of what the plain way reads."""
    dialect, fine = drawn.dialect, drawn.meaning.error is None and drawn.complete
    return fine and dialect.gap and not dialect.halves and drawn.asked_for_stream


async def judge(streams, judged):
    """Read streams one after the other over one client."""
    loop = asyncio.get_running_loop()
    next_one = [None]
    server = await loop.create_server(lambda: DrawnServer(next_one), "127.0.0.1", 0)
    base_url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    options = {"retry": None, "circuit_breaker": None, "timeout": Timeout(first_token=60, idle=60)}
    async with AsyncKonko("sk-test-0123456789", base_url, **options) as client:
        for drawn in streams:
            next_one[0] = drawn
            found = await read(client, drawn)
            outcome, why = verdict(drawn, found)
            if outcome == "understood" and is_standard(drawn):
                plain = plainly(drawn)
                plain.request_id = found.request_id
                if plain != found:
                    outcome, why = "paths disagree", f"{plain} instead of {found}"
            held = sum(lane.in_flight for lane in client.limits.lanes)
            if held:
                outcome, why = "leak", f"{held} slots are held"
            judged.count(drawn, outcome, why)
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        if tasks:
            judged.count(None, "leak", repr(tasks))
    server.close()
    await server.wait_closed()
