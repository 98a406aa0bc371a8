"""The tools of real MCP servers, in processes of their own, over stdio and streamable HTTP."""

import asyncio
import re
import shutil
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from framework_kit import KEY, MODEL
from lazy_module import LazyModule, needs
from ports import free_port

from konko_async import AsyncKonko, ConfigurationError, ToolFailedError
from konko_async.testing import Emulator, answer_from_prompt

mcp = LazyModule("mcp")
ours = LazyModule("konko_async.integrations.mcp")

pytestmark = needs("mcp")
SERVER = [sys.executable, str(Path(__file__).parent / "mcp_server.py")]


@asynccontextmanager
async def serving():
    """A streamable-HTTP server; gives its URL."""
    port = free_port()
    process = subprocess.Popen([*SERVER, str(port)], stderr=subprocess.DEVNULL)
    try:
        async with asyncio.timeout(60):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                    break
                except OSError:
                    await asyncio.sleep(0.05)
        writer.close()
        await writer.wait_closed()
        yield f"http://127.0.0.1:{port}/mcp"
    finally:
        process.terminate()
        await asyncio.to_thread(process.wait)


@asynccontextmanager
async def asking():
    async with Emulator(answer=answer_from_prompt) as server, AsyncKonko(KEY, server.base_url) as c:

        def ask(question, tools, **options):
            messages = [{"role": "user", "content": question}]
            return c.chat.completions.run_tools(
                model=MODEL, messages=messages, tools=tools, **options
            )

        ask.server = server
        yield ask


async def check(server, tmp_path):
    async with asking() as ask, ours.mcp_tools(server, prefix="x_") as tools:
        shown = {tool.name: tool.wire["function"] for tool in tools}
        assert set(shown) == {
            "x_add",
            "x_notes_search_all",
            "x_fail",
            "x_hang",
            "x_picture",
            "x_die",
        }
        assert shown["x_add"]["description"] == "Add two numbers."
        assert set(shown["x_add"]["parameters"]["properties"]) == {"a", "b"}
        result = await ask("What is x_add of 3 and 4?", tools)
        assert [(call.error, call.output) for call in result.calls] == [(None, "7")]
        assert result.completion.choices[0].message.content
        result = await ask("Use x_notes_search_all for 'milk'", tools)
        assert "milk 0" in result.calls[0].output
        result = await ask("x_picture, please", tools)
        assert result.calls[0].output == "[image/png, 3 bytes: not shown]\na note"
        # The model gets what the server says of an error, and the run goes on.
        result = await ask("Let x_fail say 'no milk'", tools)
        assert isinstance(result.calls[0].error, ours.MCPToolError)
        assert "no milk" in result.calls[0].output
        with pytest.raises(ToolFailedError, match="MCPToolError"):
            await ask("Let x_fail say 'no milk'", tools, on_error="raise")
        await check_trouble(ask, tools, tmp_path / "cancelled")


async def check_trouble(ask, tools, mark):
    """Time limits cancel a call on the server; a server that dies is an error of the tool."""
    result = await ask(f"x_hang, and touch '{mark}'", tools, tool_timeout=0.3)
    assert isinstance(result.calls[0].error, TimeoutError)
    async with asyncio.timeout(30):
        while not mark.exists():
            await asyncio.sleep(0.05)
    result = await ask("x_die, please", tools)
    assert result.calls[0].error is not None
    assert result.completion.choices[0].message.content


async def test_stdio(tmp_path):
    await check(SERVER, tmp_path)


async def test_the_three_lines_of_the_page(tmp_path, monkeypatch):
    page = Path(__file__).parents[2] / "docs" / "how-to" / "mcp.md"
    (text,) = re.findall(
        r"^```python\n(.*?)^```$", page.read_text("utf-8"), re.MULTILINE | re.DOTALL
    )
    shutil.copy(SERVER[1], tmp_path / "server.py")
    monkeypatch.chdir(tmp_path)
    async with Emulator(answer=answer_from_prompt) as server:
        monkeypatch.setenv("KONKO_API_KEY", KEY)
        monkeypatch.setenv("KONKO_BASE_URL", server.base_url)
        names = {"MODEL": MODEL}
        exec(text, names)  # noqa: S102 - our own page
        assert await names["ask"]("What is add of 3 and 4?")
        assert server.requests[0].body["tools"]


async def test_streamable_http(tmp_path):
    async with serving() as url:
        await check(url, tmp_path)


async def test_what_cannot_be_used_is_said():
    for wrong in ("server.py", [], [1]):
        with pytest.raises(ConfigurationError, match="MCP server"):
            async with ours.mcp_tools(wrong):
                pass
    async with mcp.Client(_two_of_a_name()) as session:
        with pytest.raises(ConfigurationError, match=r"no tool missing; it has: a\.b, a/b, empty"):
            await ours.list_mcp_tools(session, only=["missing"])
        tools = await ours.list_mcp_tools(session)
        assert [tool.name for tool in tools] == ["a_b", "a_b_2", "empty"]
        assert await tools[1].function() == "slash"
        assert tools[2].wire["function"]["parameters"]["properties"] == {}


def _two_of_a_name():
    from mcp.server.mcpserver import MCPServer

    server = MCPServer("two")
    for name, said in (("a.b", "dot"), ("a/b", "slash"), ("empty", "")):
        _add(server, name, said)
    return server


def _add(server, name, said):
    async def tool() -> str:
        return said

    server.tool(name=name)(tool)


async def test_what_is_raised_inside_comes_out_as_it_is():
    with pytest.raises(LookupError, match="mine"):
        async with ours.mcp_tools(_two_of_a_name()):
            raise LookupError("mine")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05), ours.mcp_tools(["sleep", "60"]):
            pass
    with pytest.raises(OSError, match="no-such"):
        async with ours.mcp_tools(["/no-such-program"]):
            pass
