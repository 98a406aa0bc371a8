"""A Starlette application as users write it; run by test_lifecycle_hypercorn.py in a process."""

import logging
import os

from starlette.applications import Starlette
from starlette.routing import Route

from konko_async import AsyncKonko
from konko_async.relay import Delivery, Drain
from konko_async.relay.starlette_app import StreamResponse, lifespan

logging.basicConfig(level=logging.INFO)


async def chat(request):
    messages = [{"role": "user", "content": "Say hello."}]
    stream = request.state.client.chat.completions.stream(model="m", messages=messages)
    return StreamResponse(stream, delivery=Delivery(look=0.05))


def make():
    return AsyncKonko("k", base_url=os.environ["UPSTREAM"], retry=None)


app = Starlette(
    routes=[Route("/chat", chat, methods=["POST"])], lifespan=lifespan(make, drain=Drain(0.5))
)
