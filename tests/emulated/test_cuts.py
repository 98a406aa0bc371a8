"""Answers cut at every byte: the whole right answer or a typed error, never a silent truncation.

By default a representative part runs; ``KONKO_CUTS=all`` (``make cuts``) runs every byte of every
combination. The number of cut points is printed (``pytest -s``) and kept in the report.
"""

# ruff: noqa: PT017, T201 - outcomes are tallied, whatever they are

import os
from collections import Counter

import pytest
from client_kit import ask, serving, text_of

from konko_async import APIConnectionError, APIError, StreamTruncatedError
from konko_async.testing import Answer, FaultServer

ALL = os.environ.get("KONKO_CUTS") == "all"
TOKENS = ("Hé", "llo, ", "wörld")
TEXT = "".join(TOKENS)
USAGE = {"prompt_tokens": 3, "completion_tokens": 3, "total_tokens": 6}


def answer(kind, framing, gzip):
    if kind == "whole":
        return Answer.whole(TEXT, usage=USAGE, framing=framing, gzip=gzip)
    return Answer.stream(
        TOKENS,
        framing=framing,
        gzip=gzip,
        done=kind != "no-done",
        newline="\r\n" if kind == "crlf" else "\n",
    )


class Tally:
    """Counts what came of each cut; a silent truncation fails at once."""

    def __init__(self):
        self.outcomes = Counter()
        self.silent = 0

    async def add(self, client, *, stream):
        try:
            completion = await ask(client, stream=stream)
        except APIError as error:
            self.outcomes[type(error).__name__] += 1
            allowed = (StreamTruncatedError, APIConnectionError) if stream else APIConnectionError
            assert isinstance(error, allowed), repr(error)
            if error.partial is not None:
                assert isinstance(error, StreamTruncatedError)
                assert TEXT.startswith(text_of(error.partial))
                assert text_of(error.partial)
        else:
            self.outcomes["ok"] += 1
            if text_of(completion) != TEXT:
                self.silent += 1

    def show(self, name):
        points = self.outcomes.total()
        print(
            f"\n{name}: {points} cut points, silent truncations {self.silent}, {dict(self.outcomes)}"
        )


# One of each in full; of the others every 13th byte, so that all run in seconds.
FULL = {
    ("sse", "chunked", False, "fin"),
    ("whole", "length", False, "rst"),
    ("sse", "close", False, "fin"),
}
MATRIX = [
    (kind, framing, gzip, how)
    for kind in ("sse", "crlf", "no-done", "whole")
    for framing in ("chunked", "length", "close")
    for gzip in (False, True)
    for how in ("fin", "rst")
]


@pytest.mark.parametrize(("kind", "framing", "gzip", "how"), MATRIX)
async def test_cut_at_every_byte(kind, framing, gzip, how, record_property):
    full = ALL or (kind, framing, gzip, how) in FULL
    if not full and kind in {"crlf", "no-done"} and framing != "chunked":
        pytest.skip("runs with KONKO_CUTS=all")
    whole = answer(kind, framing, gzip)
    tally = Tally()
    server = FaultServer()
    async with serving(server) as client:
        for at in (*range(0, len(whole), 1 if full else 13), len(whole)):
            server.push(whole.cut(at, how=how))
            await tally.add(client, stream=kind != "whole")
        await server.wait_until_closed()
    tally.show(f"{kind} {framing}{' gzip' if gzip else ''} {how}")
    record_property("cut_points", tally.outcomes.total())
    assert tally.silent == 0
    # The last cut is after the last byte: nothing is missing there.
    assert tally.outcomes["ok"] >= 1


@pytest.mark.parametrize(
    ("kind", "framing", "gzip"),
    [
        ("sse", "chunked", False),
        ("crlf", "close", True),
        ("whole", "chunked", True),
        ("whole", "length", False),
    ],
)
async def test_split_anywhere_reads_the_same(kind, framing, gzip):
    whole = answer(kind, framing, gzip)
    server = FaultServer()
    async with serving(server) as client:
        for size in (1, 2, 3, 5, 7, 11, 64, 251) if not ALL else range(1, len(whole) + 1):
            server.push(whole.split_every(size))
            assert text_of(await ask(client, stream=kind != "whole")) == TEXT


async def test_two_writes_split_at_every_byte():
    whole = answer("crlf", "chunked", gzip=False)
    server = FaultServer()
    async with serving(server) as client:
        for at in range(1, len(whole), 1 if ALL else 3):
            server.push(whole.split([at]))
            assert text_of(await ask(client, stream=True)) == TEXT
