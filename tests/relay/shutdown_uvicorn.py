"""A Starlette application as users write it; run by test_lifecycle_shutdown.py in a process."""

import contextlib
import sys

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import JSONResponse
from starlette.routing import Route

from konko_async import AsyncKonko
from konko_async.relay import Delivery, Drain
from konko_async.relay.starlette_app import DrainMiddleware, StreamResponse, lifespan

base_url, port, seconds, hold = sys.argv[1:]
ASK = {"model": "m", "messages": [{"role": "user", "content": "Say hello."}]}
drain = Drain(float(seconds), retry_after=3)
inner = lifespan(
    lambda: AsyncKonko("k", base_url=base_url, retry=None), drain=drain, hold_signals=hold == "hold"
)


@contextlib.asynccontextmanager
async def telling(app):
    async with inner(app) as state:
        yield state
    print("closed" if state["client"].closed else "open", flush=True)  # noqa: T201 - what it is for


async def chat(request):
    stream = request.state.client.chat.completions.stream(**ASK)
    return StreamResponse(stream, delivery=Delivery(look=0.05))


async def ready(request):
    return JSONResponse({"draining": drain.draining})


app = Starlette(
    routes=[Route("/chat", chat, methods=["POST"]), Route("/readyz", ready)],
    middleware=[Middleware(DrainMiddleware, drain=drain)],
    lifespan=telling,
)
uvicorn.run(
    app, host="127.0.0.1", port=int(port), log_level="warning", timeout_graceful_shutdown=30
)
