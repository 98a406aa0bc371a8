"""Random answers over real sockets: whatever comes, only our own errors leave, and nothing leaks.

    python tests/fuzz/fuzz_client.py 60          # seconds; prints cases and bytes
    python tests/fuzz/fuzz_client.py 60 --seed 7

Each case takes a plausible answer (streamed or whole, in any framing, with any fault of
``FaultServer``), spoils it by mutations, and asks for it through a client whose options vary too.
A case is fine if the call returns or raises a ``KonkoError`` within its deadlines, the text of an
answer that passed for whole (no byte was changed) is right, and no task, permit or connection is
left over.
"""

# ruff: noqa: PT017, T201 - outcomes are tallied and shown

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import time
import traceback
from collections import Counter

from konko_async import AsyncKonko, KonkoError, RateLimit, RetryPolicy, Timeout
from konko_async.testing import Answer, FaultServer

TEXT = "Héllo, wörld"
TOKENS = ("Hé", "llo, ", "wörld")
MESSAGES = [{"role": "user", "content": "Say hello."}]
SHORT = Timeout(connect=2, first_token=0.3, idle=0.3)
# Pieces that parsers trip over.
SPICE = (
    b"\r\n", b"\n", b"\r", b"\n\n", b"\0", b"\xff", b"\xef\xbb\xbf", b"data:", b"data: ", b"event: error\n",
    b"[DONE]", b'"error":', b'{"error":"x"}', b"null", b"[]", b"{}", b'"', b"{", b"}", b"0\r\n\r\n",
    b"FFFFFFFFFFFFFFFFF\r\n", b"-1\r\n", b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"HTTP/1.1 200 OK\r\n\r\n",
    b"HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n", b"204", b"304", b"999", b"1e999",
    b"99999999999999999999", b"\\ud800", b"\xed\xa0\x80", b": comment\n\n", b"Content-Encoding: br\r\n", b"Content-Encoding: deflate\r\n",
)  # fmt: skip


def plausible(rng: random.Random) -> tuple[Answer, bool]:
    """An answer, and whether it is to be asked for as a stream."""
    stream = rng.random() < 0.6
    options = {"framing": rng.choice(("chunked", "length", "close")), "gzip": rng.random() < 0.2}
    if rng.random() < 0.1:
        status = rng.choice((204, 206, 301, 304, 400, 401, 408, 429, 500, 529))
        return Answer.body(b'{"error":{"message":"x"}}', status=status, **options), stream
    if stream:
        newline = rng.choice(("\n", "\r\n", "\r"))
        return Answer.stream(TOKENS, newline=newline, done=rng.random() < 0.8, **options), True
    return Answer.whole(TEXT, **options), False


def spoiled(rng: random.Random, wire: bytes) -> bytes:
    """The bytes after one to five mutations."""
    data = bytearray(wire)
    for _ in range(rng.randint(1, 5)):
        at = rng.randint(0, len(data))
        match rng.randrange(6):
            case 0:
                data[at:at] = rng.choice(SPICE)
            case 1:
                del data[at : at + rng.randint(1, 40)]
            case 2 if data:
                data[at % len(data)] ^= 1 << rng.randrange(8)
            case 3:
                piece = bytes(data[at : at + rng.randint(1, 80)])
                there = rng.randint(0, len(data))
                data[there:there] = piece
            case 4:
                data[at : at + 3] = rng.choice(SPICE)
            case _:
                data[at:at] = rng.randbytes(rng.randint(1, 20))
    return bytes(data)


class Case:
    """One answer and how it is asked for."""

    def __init__(self, seed: int) -> None:
        rng = random.Random(seed)
        answer, self.stream = plausible(rng)
        self.changed = rng.random() < 0.7
        if self.changed:
            wire = spoiled(rng, answer.wire)
            answer = Answer.raw(wire, closes=rng.random() < 0.8)
        if rng.random() < 0.3 and len(answer):
            answer = answer.cut(rng.randint(0, len(answer)), how=rng.choice(("fin", "rst")))
        if rng.random() < 0.4:
            answer = answer.split_every(rng.choice((1, 2, 3, 7, 20, 100)))
        self.answer = answer
        self.bytes = len(answer)
        self.leave = rng.random() < 0.1
        self.options = {
            "retry": rng.choice(
                (None, RetryPolicy(max_attempts=2, base_delay=0.0, max_retry_after=0))
            ),
            "rate_limit": rng.choice((None, RateLimit(max_concurrency=2, tokens_per_minute=1e9))),
            "hedge_after": rng.choice((None, None, None, 0.001)),
        }

    async def run(self, server: FaultServer) -> str:
        """Return how it ended; raises AssertionError, or what escaped."""
        server.push(self.answer, self.answer)
        client = AsyncKonko(
            "k", server.base_url, timeout=SHORT, circuit_breaker=None, **self.options
        )
        outcome = "ok"
        async with client:
            try:
                async with asyncio.timeout(60):
                    said = await self._ask(client)
            except KonkoError as error:
                outcome = type(error).__name__
                assert error.__cause__ is None or isinstance(error.__cause__, KonkoError)
                assert len(str(error)) < 1000
            else:
                if not (self.changed or self.leave) and said != TEXT:
                    raise AssertionError(f"silent truncation: {said!r}")
            lanes = client.limits.lanes
            assert all(lane.in_flight == 0 for lane in lanes), "a permit is left"
            session = client._engine.transport._session
            assert session is None or not session.connector._acquired, "a connection is left"
        return outcome

    async def _ask(self, client: AsyncKonko) -> str | None:
        ask = {"model": "m", "messages": MESSAGES}
        if not self.stream:
            completion = await client.chat.completions.create(**ask)
            return completion.choices[0].message.content if completion.choices else None
        async with client.chat.completions.stream(**ask) as stream:
            if self.leave:
                return await anext(stream.text(), None)
            completion = await stream.completion()
            return completion.choices[0].message.content


async def fuzz(seconds: float, first_seed: int, *, cases: int | None = None) -> Counter[str]:
    """Run cases for so long (or so many); returns how they ended, and prints the figures."""
    outcomes: Counter[str] = Counter()
    size = 0
    seed = first_seed
    until = time.monotonic() + seconds
    loop = asyncio.get_running_loop()
    unhandled: list[dict[str, object]] = []
    loop.set_exception_handler(lambda _, context: unhandled.append(context))
    while time.monotonic() < until and (cases is None or seed < first_seed + cases):
        case = Case(seed)
        async with FaultServer() as server:
            try:
                outcomes[await case.run(server)] += 1
                assert not unhandled, f"the loop was told of {unhandled}"
            except Exception:
                print(f"seed {seed} failed: {case.answer.wire!r}", file=sys.stderr)
                traceback.print_exc()
                raise
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left, f"seed {seed} left tasks: {left}"
        size += case.bytes
        seed += 1
    loop.set_exception_handler(None)
    print(
        f"{seed - first_seed} cases, {size} bytes, seeds {first_seed}-{seed - 1}: {dict(outcomes)}"
    )
    return outcomes


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("seconds", type=float, nargs="?", default=30.0)
    parser.add_argument("--seed", type=int, default=None)
    chosen = parser.parse_args()
    asyncio.run(
        fuzz(chosen.seconds, random.randrange(10**9) if chosen.seed is None else chosen.seed)
    )
