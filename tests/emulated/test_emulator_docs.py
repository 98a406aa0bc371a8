"""What docs/how-to/testing.md shows, run."""

import asyncio
import dataclasses
import re
from pathlib import Path

import pytest

import konko_async
from konko_async.testing import Emulator, faults

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "testing.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
HELLO = {
    "model": "codellama/codellama-13b-instruct",
    "messages": [{"role": "user", "content": "Hello there"}],
    "temperature": 0.1,
}


def block(words):
    [found] = [code for code in BLOCKS if words in code]
    return found


async def call(base_url, api_key):
    async with konko_async.AsyncKonko(base_url=base_url, api_key=api_key) as client:
        return await client.chat.completions.create(**HELLO)


async def run(code, names):
    """Run a block that may hold `await` outside of functions."""
    lines = "\n".join(f"    {line}" for line in code.splitlines())
    exec(f"async def block():\n{lines}\n", names)  # noqa: S102 - our own page
    return await names["block"]()


async def test_the_first_example():
    async def my_summary(client, text):
        return (await client.chat.completions.create(**HELLO)).choices[0].message.content

    names = {"my_summary": my_summary}
    exec(block("test_my_summary_survives"), names)  # noqa: S102 - our own page
    await names["test_my_summary_survives_a_busy_server"]()


async def test_the_fixture_example(konko_emulator):
    names = {"my_application": call}
    exec(block("test_my_application"), names)  # noqa: S102 - our own page
    await names["test_my_application"](konko_emulator)


@pytest.mark.parametrize("code", block("Emulator(answer=").splitlines())
async def test_own_answers(code):
    async with eval(code, {"Emulator": Emulator}) as emulator:  # noqa: S307 - our own page
        message = (await call(emulator.base_url, "k")).choices[0].message
    assert message.content or message.tool_calls


async def test_the_log_example():
    async with Emulator() as emulator:

        async def my_application():
            async with konko_async.AsyncKonko(
                base_url=emulator.base_url, api_key=emulator.api_key
            ) as client:
                stream = await client.chat.completions.create(**HELLO, stream=True)
                await stream.completion()

        names = {"my_application": my_application, "emulator": emulator}
        await run(block("chunks_sent == 2"), names | {"asyncio": asyncio, "faults": faults})


async def test_the_script_example():
    async with Emulator() as emulator:
        await run(block("emulator.outage"), {"emulator": emulator, "faults": faults})
        assert emulator.scripted == 6
        assert emulator.outage == faults.Status(503)


def test_every_fault_is_in_the_table():
    for name in ("Status", "Redirect", "Delay", "Stall", "Cut", "ErrorInStream", "MalformedJSON",
                 "InvalidUTF8", "WrongContentType", "EmptyBody", "GzipBomb", "Quirks"):  # fmt: skip
        assert name in faults.__all__
        assert f"| `{name}(" in PAGE
        assert f"| `{name}(" in faults.Fault.__doc__
    for field in dataclasses.fields(faults.Quirks):
        assert field.name in PAGE
