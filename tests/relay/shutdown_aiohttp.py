"""An aiohttp application as users write it; run by test_lifecycle_shutdown.py in a process."""

import sys

from aiohttp import web

from konko_async import AsyncKonko
from konko_async.relay import Delivery, Drain
from konko_async.relay.aiohttp_web import CLIENT, client_context, drained, stream_response

base_url, port, seconds, hold = sys.argv[1:]
ASK = {"model": "m", "messages": [{"role": "user", "content": "Say hello."}]}


async def chat(request):
    stream = request.app[CLIENT].chat.completions.stream(**ASK)
    return await stream_response(request, stream, delivery=Delivery(look=0.05))


async def ready(request):
    return web.json_response({"draining": drain.draining})


async def tell_end(app):
    yield
    print("closed" if app[CLIENT].closed else "open", flush=True)  # noqa: T201 - what it is for


app = web.Application()
app.cleanup_ctx.append(tell_end)
app.cleanup_ctx.append(client_context(lambda: AsyncKonko("k", base_url=base_url, retry=None)))
app.router.add_post("/chat", chat)
app.router.add_get("/readyz", ready)
drain = drained(app, Drain(float(seconds), retry_after=3), hold_signals=hold == "hold")
web.run_app(app, host="127.0.0.1", port=int(port), print=None, shutdown_timeout=30)
