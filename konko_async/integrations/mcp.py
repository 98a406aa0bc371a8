"""The tools of MCP servers for ``run_tools()`` (extra ``mcp``).

    async with mcp_tools("https://example.org/mcp") as tools:
        run = client.chat.completions.run_tools(model=MODEL, messages=messages, tools=tools)
        print((await run).completion.choices[0].message.content)

Specification: https://modelcontextprotocol.io/specification, "Tools". See docs/how-to/mcp.md.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

from konko_async.errors import ConfigurationError, KonkoError
from konko_async.tools import Tool

try:
    from mcp import Client, StdioServerParameters, stdio_client
except ImportError as error:  # pragma: no cover - said in words
    raise ConfigurationError(
        f"this needs the extra `mcp` ({error}): pip install 'konko-async[mcp]'"
    ) from None

__all__ = ["MCPToolError", "list_mcp_tools", "mcp_tools"]

# MCP allows dots, slashes and 128 characters; the chat API, 64 of these.
_REFUSED: Final = re.compile(r"[^a-zA-Z0-9_-]")
_MAX_NAME: Final = 64
_MAX_PAGES: Final = 1000  # a server whose list has no end would be read forever


class MCPToolError(KonkoError):
    """An MCP server says that a call of one of its tools failed; the model gets its message."""


@asynccontextmanager
async def mcp_tools(
    server: Any,
    *,
    only: Collection[str] | None = None,
    prefix: str = "",
    timeout: float | None = None,  # noqa: ASYNC109 - of each call, which run_tools() sees to
) -> AsyncIterator[list[Tool]]:
    """Connect to an MCP server, and give its tools as ``run_tools()`` takes them.

    Args:
        server: the URL of a streamable-HTTP server; the command of a stdio server, as a list of
            its words (or ``mcp.StdioServerParameters``); or whatever else ``mcp.Client`` takes.
        only: the names of the tools that are wanted, as the server has them. Default: all.
        prefix: put before their names, so that those of several servers do not clash.
        timeout: seconds that a call may take. Default: the ``tool_timeout`` of the run.

    Yields:
        The tools, for as long as the connection is open. What a call returns goes to the model as
        text; an error that the server reports is raised, and dealt with as ``on_error`` of the run
        says. A call that is cancelled, or takes too long, is cancelled on the server.

    Raises:
        ConfigurationError: ``server`` is none, a wanted tool is not there, or a tool has no name
            that the chat API could take.
        mcp.MCPError: the server refuses the connection, or breaks it off.
    """
    # In a task of its own: what is raised in the user's block would leave mcp's task groups as an
    # ExceptionGroup.
    loop = asyncio.get_running_loop()
    opened, leave = loop.create_future(), asyncio.Event()
    holder = loop.create_task(_hold(Client(_server(server)), opened, leave))
    try:
        client = await opened
        yield await list_mcp_tools(client, only=only, prefix=prefix, timeout=timeout)
    finally:
        leave.set()
        if not opened.done() or opened.cancelled():  # left while it was being opened
            holder.cancel()
        await asyncio.shield(asyncio.gather(holder, return_exceptions=True))


async def _hold(client: Client, opened: asyncio.Future[Client], leave: asyncio.Event) -> None:
    """Keep a connection open until it is to be left; what fails after that concerns nobody."""
    try:
        async with client as entered:
            if not opened.done():
                opened.set_result(entered)
            await leave.wait()
    except BaseException as error:
        if opened.done():
            raise
        opened.set_exception(_alone(error))


def _alone(error: BaseException) -> BaseException:
    """Return the one error of groups of one, which is what users can catch."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def _server(server: Any) -> Any:
    if isinstance(server, (list, tuple)):
        if not server or not all(isinstance(word, str) for word in server):
            raise ConfigurationError("the command of an MCP server is a list of its words")
        server = StdioServerParameters(command=server[0], args=list(server[1:]))
    if isinstance(server, StdioServerParameters):
        return stdio_client(server)  # as a transport: mcp 2.0 takes no parameters
    if isinstance(server, str) and not server.startswith(("http://", "https://")):
        raise ConfigurationError(
            f"an MCP server is a URL, or its command as a list of words, not {server!r:.60}"
        )
    return server


async def list_mcp_tools(
    session: Any,
    *,
    only: Collection[str] | None = None,
    prefix: str = "",
    timeout: float | None = None,  # noqa: ASYNC109 - of each call, which run_tools() sees to
) -> list[Tool]:
    """Return the tools of a connection that is open already.

    Args:
        session: an ``mcp.Client`` or ``mcp.ClientSession``.
        only: as for :func:`mcp_tools`.
        prefix: as for :func:`mcp_tools`.
        timeout: as for :func:`mcp_tools`.

    Raises:
        ConfigurationError: a wanted tool is not there.
    """
    listed = await _listed(session)
    if only is not None:
        missing = set(only) - {tool.name for tool in listed}
        if missing:
            known = ", ".join(sorted(tool.name for tool in listed)) or "none"
            raise ConfigurationError(
                f"the MCP server has no tool {', '.join(sorted(missing))}; it has: {known:.500}"
            )
        listed = [tool for tool in listed if tool.name in only]
    names = _shown_names([prefix + tool.name for tool in listed])
    return [
        Tool(
            _caller(session, tool.name),
            name=name,
            description=tool.description or tool.title or "",
            parameters=_schema(tool.input_schema),
            timeout=timeout,
        )
        for tool, name in zip(listed, names, strict=True)
    ]


async def _listed(session: Any) -> list[Any]:
    """Return what the server lists, page by page."""
    found: list[Any] = []
    cursor: str | None = None
    for _ in range(_MAX_PAGES):
        # A session takes its parameters as a value, a client the cursor itself.
        page = await (session.list_tools(cursor=cursor) if cursor else session.list_tools())
        found += page.tools
        cursor = page.next_cursor
        if not cursor:
            return found
    raise KonkoError(f"the MCP server's list of tools has no end: {_MAX_PAGES} pages were read")


def _schema(given: Any) -> dict[str, Any]:
    """Return a tool's schema; servers of models refuse objects that name no properties."""
    return {"type": "object", "properties": {}, **(given or {})}


def _shown_names(names: Sequence[str]) -> list[str]:
    """Return names that the chat API takes, no two of them the same."""
    found: list[str] = []
    for name in names:
        plain = _REFUSED.sub("_", name)[:_MAX_NAME] or "tool"
        shown, number = plain, 2
        while shown in found:
            shown = f"{plain[: _MAX_NAME - 4]}_{number}"
            number += 1
        found.append(shown)
    return found


def _caller(session: Any, name: str) -> Callable[..., Any]:
    async def call(**arguments: Any) -> Any:
        result = await session.call_tool(name, arguments)
        texts = [_text(part) for part in result.content]
        if result.is_error:
            raise MCPToolError("\n".join(texts) or f"the tool {name} failed, and does not say why")
        # Servers say the same as text, as not every client knows structured content.
        if not texts and result.structured_content is not None:
            return result.structured_content
        return "\n".join(texts)

    return call


def _text(part: Any) -> str:
    """Return a part of a result as text; of what is none, what it is."""
    if part.type == "text":
        return str(part.text)
    if part.type == "resource":
        inner = part.resource
        return str(getattr(inner, "text", None) or f"[{inner.uri}: not text]")
    if part.type == "resource_link":
        return f"[{part.name}: {part.uri}]"
    size = len(getattr(part, "data", "") or "") * 3 // 4  # base64
    return f"[{getattr(part, 'mime_type', None) or part.type}, {size} bytes: not shown]"
