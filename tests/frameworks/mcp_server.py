"""An MCP server for tests: over stdio, or with a port over streamable HTTP."""

import sys
from pathlib import Path

import anyio
from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import EmbeddedResource, ImageContent, TextResourceContents

server = MCPServer("test server", log_level="ERROR")


@server.tool()
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@server.tool(name="notes.search/all")
def search(text: str, limit: int = 3) -> list[str]:
    """Search the notes."""
    return [f"{text} {number}" for number in range(limit)]


@server.tool()
def fail(reason: str) -> str:
    """Fail."""
    raise ToolError(reason)


@server.tool()
async def hang(path: str) -> str:
    """Never end, and say when it is cancelled."""
    try:
        await anyio.sleep_forever()
    finally:
        Path(path).touch()
    return ""


@server.tool()
def picture() -> list:
    """Return parts of several kinds."""
    text = TextResourceContents(uri="note://one", text="a note")
    return [
        ImageContent(type="image", data="AAAA", mime_type="image/png"),
        EmbeddedResource(type="resource", resource=text),
    ]


@server.tool()
def die() -> str:
    """End the process."""
    import os

    os._exit(3)


if len(sys.argv) > 1:
    server.run("streamable-http", port=int(sys.argv[1]))
else:
    server.run("stdio")
