"""Structured answers of a real model, held to its schema by llama.cpp's grammar."""

import datetime as dt
import enum
import threading
from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec
import pytest
from msgspec import Meta

from konko_async import AsyncKonko, ResponseFormat
from konko_async.local import LocalServer, available

pytestmark = [
    pytest.mark.local_model,
    pytest.mark.skipif(not available(), reason="the extra `local` is not installed"),
]


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Cat(msgspec.Struct, tag="cat"):
    lives: Annotated[int, Meta(ge=0, le=9)]


class Dog(msgspec.Struct, tag="dog"):
    good: bool


@dataclass
class Size:
    width: Annotated[int, Meta(ge=0, le=99)]
    unit: Literal["cm", "m"] = "cm"


class Thing(msgspec.Struct):
    """A thing in a shop."""

    colour: Colour
    size: Size
    pet: Cat | Dog
    born: dt.date
    pair: tuple[Annotated[int, Meta(ge=0, le=9)], Literal["x"]]
    when: Literal["now"] | None = None


ASK = {
    "messages": [{"role": "user", "content": "Describe a thing as JSON."}],
    "max_tokens": 160,
    # The local model's own stop is the end of a line; JSON may have several.
    "stop": ["<end_of_turn>"],
    "response_format": Thing,
}


@pytest.fixture
async def local():
    async with (
        LocalServer(n_parallel=2) as server,
        AsyncKonko(server.api_key, server.base_url, retry=None) as client,
    ):
        yield client, server.model
    for thread in threading.enumerate():
        if thread.name.startswith("asyncio-waitpid"):
            thread.join(60)


async def test_a_real_model_keeps_to_the_schema(local):
    client, model = local
    async with client.chat.completions.stream(model=model, **ASK) as stream:
        reads = 0
        async for value in stream.partial():
            reads += 1
            assert value.colour in {Colour.RED, Colour.BLUE, msgspec.UNSET}
        final = (await stream.completion()).parsed
    assert reads > 5
    assert 0 <= final.size.width <= 99
    assert msgspec.to_builtins(value) == msgspec.to_builtins(final) | {"pair": list(final.pair)}
    two = ResponseFormat(Annotated[list[Colour], Meta(min_length=1, max_length=2)])
    found = await client.chat.completions.create(model=model, **{**ASK, "response_format": two})
    assert 1 <= len(found.parsed) <= 2
    assert all(type(colour) is Colour for colour in found.parsed)
