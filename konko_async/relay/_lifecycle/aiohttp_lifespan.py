"""A client's lifetime and graceful shutdown in an ``aiohttp.web`` application."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import nullcontext
from typing import TYPE_CHECKING, Final

from aiohttp import web

from konko_async import AsyncKonko, KonkoError
from konko_async.relay._http import error_reply
from konko_async.relay._lifecycle.drain import Drain
from konko_async.relay._lifecycle.signals import holding_loop_signals
from konko_async.relay._service import RelayService

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler, Middleware

__all__ = ["CLIENT", "DRAIN", "client_context", "drained", "error_middleware"]

CLIENT: Final = web.AppKey("konko_client", AsyncKonko)
"""Where handlers find the client: ``request.app[CLIENT]``."""

DRAIN: Final = web.AppKey("konko_drain", Drain)
"""Where handlers find the drain: ``request.app[DRAIN]``."""

# A load balancer has to learn from these that the process is alive, and no longer ready.
_ALWAYS_SERVED: Final = ("/healthz", "/readyz")


def client_context(
    client: AsyncKonko | Callable[[], AsyncKonko], *, key: web.AppKey[AsyncKonko] = CLIENT
) -> Callable[[web.Application], AsyncIterator[None]]:
    """Return a ``cleanup_ctx``: one client per application, closed in the end.

    Args:
        client: the client, or what makes it.
        key: where it is found. Default :data:`CLIENT`; give another one for a second client.

    Example:
        >>> app.cleanup_ctx.append(client_context(AsyncKonko))
    """

    async def context(app: web.Application) -> AsyncIterator[None]:
        async with client if isinstance(client, AsyncKonko) else client() as made:
            app[key] = made
            yield

    return context


def drained(
    app: web.Application,
    drain: Drain | None = None,
    *,
    service: RelayService | None = None,
    hold_signals: bool = True,
) -> Drain:
    """Let an application's streams end gracefully when it is shut down.

    The drain runs before all else that is registered for ``on_shutdown``. New requests, but those
    for ``/healthz`` and ``/readyz``, are refused with 503 and ``Retry-After`` meanwhile.

    Args:
        app: not started yet.
        drain: Default ``Drain()``.
        service: a relay's, drained as well.
        hold_signals: under ``web.run_app()``, keep listening until it is drained. Else the server
            stops listening first, and new connections are refused by the system. Default True.

    Returns:
        The drain; handlers find it as ``request.app[DRAIN]``.

    Example:
        >>> app = web.Application()
        >>> drained(app, Drain(20))
    """
    drain = drain or Drain()
    if service is not None:
        drain.add(service)
    app[DRAIN] = drain

    async def run(_: web.Application) -> None:
        await drain.run()

    async def signals(_: web.Application) -> AsyncIterator[None]:
        drain.reopen()
        with (
            holding_loop_signals(drain, _end, instead_of="aiohttp.web_runner")
            if hold_signals
            else nullcontext()
        ):
            yield

    # First: other handlers end what the streams still use. add_routes() registers one that closes
    # the service, and would cut them.
    app.on_shutdown.insert(0, run)
    # At start-up, when web.run_app() has installed its own handlers.
    app.cleanup_ctx.append(signals)
    # Outermost: nothing is spent on a request that is refused.
    app.middlewares.insert(0, _refusing(drain))
    return drain


def _end() -> None:
    """Do what ``web.run_app()`` does on a signal."""
    raise web.GracefulExit


def _refusing(drain: Drain) -> Middleware:
    @web.middleware
    async def refuse(request: web.Request, handler: Handler) -> web.StreamResponse:
        if drain.draining and request.path not in _ALWAYS_SERVED:
            try:
                drain.check()
            except KonkoError as error:
                return _response(error)
        return await handler(request)

    return refuse


@web.middleware
async def error_middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer a failed call with the status and the public error that stand for it.

    Example:
        >>> app = web.Application(middlewares=[error_middleware])
    """
    try:
        return await handler(request)
    except KonkoError as error:
        return _response(error)


def _response(error: KonkoError) -> web.Response:
    reply = error_reply(error)
    return web.Response(status=reply.status, headers=reply.headers, body=reply.body)
