"""What the tests of the client over sockets share."""

import asyncio
from contextlib import asynccontextmanager

from konko_async import AsyncKonko, Timeout

MODEL = "codellama/codellama-13b-instruct"
MESSAGES = [{"role": "user", "content": "Say hello."}]
ASK = {"model": MODEL, "messages": MESSAGES}
KEY = "sk-test-0123456789"
# Longer than anything here takes; a test that gets near it has hung.
PATIENT = Timeout(connect=60, first_token=60, idle=60)

# For scripts under `-X dev` that must print nothing: asyncio then tells of every step that took a
# tenth of a second, which is the machine's affair.
QUIET = """
import logging
logging.getLogger("asyncio").addFilter(lambda record: not record.msg.startswith("Executing"))
"""


def make_client(server, **options):
    """A client of ``server``, without retries and breaker unless they are asked for."""
    defaults = {"api_key": KEY, "retry": None, "circuit_breaker": None, "timeout": PATIENT}
    return AsyncKonko(base_url=server.base_url, **{**defaults, **options})


@asynccontextmanager
async def serving(server, **options):
    """Start a server and a client of it; the client is closed first."""
    async with server, make_client(server, **options) as client:
        yield client


async def ask(client, *, stream, **more):
    """One chat call, read to its end."""
    if not stream:
        return await client.chat.completions.create(**ASK, **more)
    async with client.chat.completions.stream(**ASK, **more) as opened:
        return await opened.completion()


def text_of(completion):
    return None if completion is None else completion.choices[0].message.content or ""


def in_flight(client):
    return sum(lane.in_flight for lane in client.limits.lanes)


def others():
    """Tasks beside the one that asks, and those of the fault server's connections."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    servers = ("Connection._serve", "_accept_connection2")
    return {task for task in tasks if not any(name in repr(task.get_coro()) for name in servers)}


def pooled(client):
    """Connections in the client's pool: (idle, in use)."""
    session = client._engine.transport._session
    if session is None:
        return 0, 0
    connector = session.connector
    return sum(map(len, connector._conns.values())), len(connector._acquired)
