"""A chat backend for production: FastAPI, streams and limits in Redis, figures for Prometheus.

    REDIS_URL=redis://... KONKO_API_KEY=... APP_TOKENS=secret:ann uvicorn app:app --port 8001

Any number of these, behind nginx.conf. up.py starts all of it on one machine.
"""

import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Response
from prometheus_client import CONTENT_TYPE_LATEST, Gauge, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from konko_async import AsyncKonko, RateLimit
from konko_async.integrations.prometheus import PrometheusObserver
from konko_async.integrations.redis import RedisStore
from konko_async.integrations.redis_streams import RedisStreamStore
from konko_async.relay import Drain, RelayOptions, RelayRequest, RelayService, health
from konko_async.relay.starlette_app import DrainMiddleware, lifespan, routes

REDIS = os.environ.get("REDIS_URL", "redis://localhost:6379/0")
MODELS = os.environ.get("MODELS", "codellama/codellama-13b-instruct").split(",")
# token:user,token:user. Yours are in a database, or in an identity provider.
TOKENS = dict(pair.split(":", 1) for pair in os.environ.get("APP_TOKENS", "").split(",") if pair)
HOSTS = os.environ.get("APP_HOSTS", "localhost,127.0.0.1").split(",")  # as browsers name you

logging.basicConfig(level=logging.WARNING)  # why a store is away, which call failed
STREAMS = Gauge("app_streams", "Streams that are being read here")
figures = PrometheusObserver()

# One client per process; all processes keep one limit together, in Redis.
client = AsyncKonko(
    rate_limit=RateLimit(
        requests_per_minute=int(os.environ.get("REQUESTS_PER_MINUTE", "6000")),
        store=RedisStore(REDIS, namespace="app-limits"),
    ),
    observers=[figures],
    middleware=[figures],
)
figures.watch(client)
drain = Drain(30)  # systemd's TimeoutStopSec and Docker's stop_grace_period: 40
# A busy machine is no outage: better a first token that waits than an answer nobody can resume.
store = RedisStreamStore(REDIS, namespace="app-streams", keep=300, timeout=3)


async def identify(request: RelayRequest) -> str | None:
    """Return who asks; None is a 401."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return TOKENS.get(token) if scheme.lower() == "bearer" else None


def state() -> dict[str, Any]:
    """Return what /readyz shows to those who are known."""
    return health(client, active_streams=drain.active, draining=drain.draining).as_dict()


service = RelayService(
    client,
    RelayOptions(models=MODELS, hosts=HOSTS, resumable=True, max_tokens=2000),
    auth=identify,
    store=store,
    health=state,
)


@asynccontextmanager
async def living(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
    """Drain on SIGTERM, then close the client and the connections to Redis."""
    async with lifespan(client, service=service, drain=drain)(app) as shared:
        yield shared
    await store.close()


class WorkerName:
    """Says which process answered: what one wants to know first when something is odd.

    Plain ASGI: Starlette's BaseHTTPMiddleware logs a RuntimeError for each browser that leaves
    before its answer begins.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""

        async def named(message: Message) -> None:
            """Add the header to the head of the answer."""
            if message["type"] == "http.response.start":
                worker = (b"x-worker", str(os.getpid()).encode())
                message["headers"] = [*message["headers"], worker]
            await send(message)

        await self._app(scope, receive, named)


app = FastAPI(lifespan=living)
app.add_middleware(DrainMiddleware, drain=drain)
app.add_middleware(WorkerName)
app.routes.extend(routes(service))


@app.get("/metrics")
async def metrics() -> Response:
    """Figures for Prometheus; nginx.conf keeps the outside away from them."""
    STREAMS.set(drain.active)
    return Response(generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})
