"""Running a relay with its page, and letting its answers end before it does."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import secrets
import socket
import webbrowser
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from ipaddress import ip_address

import click
from aiohttp import web

from konko_async import APIError, AsyncKonko, Model
from konko_async._core.loopback import is_loopback
from konko_async.batch import Price, parse_price
from konko_async.cli._connect import connect
from konko_async.cli._options import Connection
from konko_async.cli._output import clean, note
from konko_async.cli._runner import on_interrupt
from konko_async.relay import PageOptions, RelayOptions, RelayRequest, RelayService
from konko_async.relay.aiohttp_web import add_routes, listening

__all__ = ["relay"]

_INTERRUPTED = 130
_PARTS = ("text", "image_url")
_LOCAL_PARTS = ("text",)  # the packaged model takes no pictures
_PRICES_WAIT = 3.0  # seconds for a list that only the prices are wanted of
_CALLS = 32  # at once; all who have the token are one
# Tried with the packaged model, which has 270 million parameters: it answers these well.
_LOCAL_STARTERS = (
    ("Ask", "What is the capital of Italy?"),
    ("Remember", "Who wrote Romeo and Juliet?"),
    ("Wish", "Write a birthday wish for a friend."),
    ("Name", "Write a slogan for a bakery."),
)
_ABOUT_LOCAL = (
    "{model} runs on this machine: a very small model, for trying out. It is quick and free, "
    "answers simple questions in a sentence, and is often wrong."
)
_NAMES_OF_LOOPBACK = ("localhost", "127.0.0.1", "[::1]")


async def relay(
    connection: Connection,
    *,
    models: Sequence[str],
    host: str,
    port: int,
    allow_remote: bool,
    names: Sequence[str],
    token: bool,
    show: bool,
    drain: float,
) -> int:
    """Serve the page until Ctrl-C, then let what is being answered end.

    Args:
        connection: the model's server.
        models: those that the page offers; none: all chat models of the server.
        host: address to listen on.
        port: 0: any.
        allow_remote: whether ``host`` may be one that others can reach.
        names: further host names that browsers may use.
        token: whether loopback needs a token, too.
        show: whether to open the page in a browser.
        drain: seconds that answers may go on; a second Ctrl-C ends them.

    Returns:
        The exit code.

    Raises:
        KonkoError: the models cannot be listed, or the local model cannot be started.
        click.UsageError: the address cannot be used, or there is no chat model.
    """
    local = is_loopback(host)
    if not local and not allow_remote:
        raise click.UsageError(f"--host {host} is not loopback: others need --allow-remote")
    secret = None if local and not token else secrets.token_urlsafe(24)
    async with connect(connection) as (client, model):
        offered, prices = await _offered(client, models, model, local=connection.local)
        options = RelayOptions(
            models=offered,
            parts=_LOCAL_PARTS if connection.local else _PARTS,
            hosts=_hosts(host, names),
            max_calls_per_identity=_CALLS,
            resumable=True,
            open_early=True,  # the page has the stream's id before the first token, to resume it
            stats=True,
            timeout=connection.timeout,
        )
        service = RelayService(
            client,
            options,
            auth=_asks_for(secret) if secret else "open",
            host=host,
            page=_page(offered, prices, local=connection.local),
        )
        async with _listening(service, host, port) as bound:
            address = f"http://{_shown(host)}:{bound}/"
            _announce(address, secret, offered)
            if show:
                # Without the token: others can read the arguments of a process.
                await asyncio.to_thread(webbrowser.open, address)
            return await _until_interrupted(service, drain)


async def _offered(
    client: AsyncKonko, named: Sequence[str], first: str | None, *, local: bool
) -> tuple[list[str], Mapping[str, Price]]:
    """Return the models to offer, that of the environment first, and the prices that are listed."""
    if local and first and not named:
        return [first], {}
    try:
        # Models that are named are offered whether the server lists them or not.
        async with asyncio.timeout(_PRICES_WAIT if named else None):
            listed = (await client.models.list()).data
    except (APIError, TimeoutError):
        if named or first:  # not every server has a list
            return list(named) or [str(first)], {}
        raise
    return list(named) or _chat_models(listed, first), _prices(listed)


def _chat_models(listed: Sequence[Model], first: str | None) -> list[str]:
    found = [entry.id for entry in listed if entry.is_chat is not False]
    if first:
        found = [first, *(name for name in found if name != first)]
    if not found:
        raise click.UsageError("this server lists no chat model: name one with --model")
    return found


def _prices(listed: Sequence[Model]) -> dict[str, Price]:
    read = {entry.id: parse_price(entry.public_endpoint_pricing) for entry in listed}
    return {name: price for name, price in read.items() if price is not None}


def _page(offered: Sequence[str], prices: Mapping[str, Price], *, local: bool) -> PageOptions:
    if not local:
        return PageOptions(prices=prices)
    return PageOptions(about=_ABOUT_LOCAL.format(model=offered[0]), starters=_LOCAL_STARTERS)


def _hosts(host: str, names: Sequence[str]) -> list[str]:
    """Return the names under which browsers may ask; others are DNS rebinding, or a mistake."""
    hosts = [*_NAMES_OF_LOOPBACK, *names]
    # Bound to all addresses, the relay can be reached by each of this machine's names.
    if _is_any(host):
        own = socket.gethostname()
        hosts += [own, socket.getfqdn(), *_addresses(own)]
    elif not is_loopback(host):
        hosts.append(_bracketed(host))
    return hosts


def _is_any(host: str) -> bool:
    with contextlib.suppress(ValueError):
        return ip_address(host.strip("[]")).is_unspecified
    return not host


def _addresses(name: str) -> list[str]:
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except OSError:
        return []
    # Without the zone of a link-local address (after %), which no browser sends.
    return sorted({_bracketed(str(entry[4][0]).partition("%")[0]) for entry in found})


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


def _shown(host: str) -> str:
    return socket.gethostname() if _is_any(host) else _bracketed(host)


def _asks_for(secret: str) -> Callable[[RelayRequest], Awaitable[str | None]]:
    # As bytes: compare_digest() refuses str outside ASCII, and a header may hold anything.
    expected = f"Bearer {secret}".encode()

    async def check(request: RelayRequest) -> str | None:
        given = request.headers.get("authorization", "").encode()
        return "page" if hmac.compare_digest(given, expected) else None

    return check


@contextlib.asynccontextmanager
async def _listening(service: RelayService, host: str, port: int) -> AsyncIterator[int]:
    """Serve until the end of the block; yields the port."""
    app = web.Application()
    add_routes(app, service)
    # A stack, so that only an OSError of the bind becomes a usage error, and none of the block.
    async with contextlib.AsyncExitStack() as stack:
        try:
            bound = await stack.enter_async_context(listening(app, host.strip("[]"), port))
        except OSError as error:
            place = f"{_bracketed(host)}:{port}"
            raise click.UsageError(f"cannot listen on {place}: {error.strerror}") from None
        yield bound


def _announce(address: str, secret: str | None, models: Sequence[str]) -> None:
    what = models[0] if len(models) == 1 else f"{len(models)} models"
    # The token is in the fragment, which browsers send to nobody: it stays out of logs.
    lines = [f"serving {clean(what)} at", f"  {address}" + (f"#token={secret}" if secret else "")]
    if secret:
        lines.append("Whoever has this address can use your key. It ends with this command.")
    click.echo("\n".join([*lines, "Ctrl-C stops it."]))


async def _until_interrupted(service: RelayService, drain: float) -> int:
    """Wait for Ctrl-C; what is being answered may end, unless there is a second one."""
    first, second = asyncio.Event(), asyncio.Event()

    def interrupted() -> None:
        (second if first.is_set() else first).set()

    with on_interrupt(interrupted):
        try:
            await first.wait()
        finally:  # SIGTERM cancels us
            await _drained(service, drain, second)
    return _INTERRUPTED


async def _drained(service: RelayService, seconds: float, now: asyncio.Event) -> None:
    # First, so that no new question is taken while the others end.
    service.draining = True
    if (count := service.running) and seconds:
        what = "1 answer is" if count == 1 else f"{count} answers are"
        note(f"{what} being written; Ctrl-C ends this now")
    idle = asyncio.ensure_future(service.until_idle())
    ended = asyncio.ensure_future(now.wait())
    try:
        await asyncio.wait({idle, ended}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (idle, ended):
            task.cancel()
        await asyncio.gather(idle, ended, return_exceptions=True)
