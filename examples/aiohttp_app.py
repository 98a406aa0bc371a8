"""A chat backend in aiohttp.web: the relay's endpoints and page, and a handler of one's own.

    pip install .
    export KONKO_API_KEY=...
    python examples/aiohttp_app.py

Without a key, `konko-async serve` (made-up answers) or `konko-async serve --local` (a real small
model) in another terminal prints what to export instead. Then open the address that is printed, or:

    curl -N http://127.0.0.1:8080/explain -H 'Authorization: Bearer ada-demo' \
        -H 'Content-Type: application/json' -d '{"topic": "event loops"}'

Browsers never see the key. Answers survive a lost connection and a reload of the page, and are paid
once; `POST /api/chat` is what useChat of the Vercel AI SDK needs. On SIGTERM or Ctrl-C streams may
finish for 10 s, and the exit code is 0.
"""

import argparse
import os
from typing import Annotated

import msgspec
from aiohttp import web

from konko_async import AsyncKonko, RateLimit
from konko_async.relay import (
    Drain,
    RefusalError,
    RelayOptions,
    RelayRequest,
    RelayService,
    Tenants,
    call_keywords,
    health,
)
from konko_async.relay.aiohttp_web import (
    CLIENT,
    DRAIN,
    add_routes,
    client_context,
    drained,
    error_middleware,
    stream_response,
)

MODEL = os.environ.get("KONKO_MODEL", "codellama/codellama-13b-instruct")
USERS = {"ada-demo": "ada", "bob-demo": "bob"}  # yours are in a database
LIMIT = RateLimit(requests_per_minute=30, tokens_per_minute=40_000, max_concurrency=4)
LONGEST = 120.0  # seconds that a browser may ask for by X-Request-Timeout
OPTIONS = RelayOptions(
    models=[MODEL],  # behind a proxy, hosts=[...] has the names under which browsers know it
    max_tokens=1000,
    max_timeout=LONGEST,
    open_early=True,  # these two are for the page: stop before the first token, times and tokens
    stats=True,
)
TENANTS = web.AppKey("tenants", Tenants)


def user_of(authorization: str | None) -> str | None:
    """Return whose token it is, None if it is nobody's."""
    return USERS.get((authorization or "").removeprefix("Bearer "))


async def who(request: RelayRequest) -> str | None:
    """Tell the relay who asks; None refuses."""
    return user_of(request.headers.get("authorization"))


class Topic(msgspec.Struct):
    """What browsers send to `/explain`: nothing but this reaches the model."""

    topic: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]


async def explain(request: web.Request) -> web.StreamResponse:
    """Stream an answer to a question that is half ours."""
    user = user_of(request.headers.get("Authorization"))
    if user is None:
        raise RefusalError(401, "authentication required", type="authentication_error")
    try:
        asked = msgspec.json.decode(await request.read(), type=Topic)
    except msgspec.MsgspecError as error:
        raise RefusalError(400, str(error)) from None
    stream = (
        request.app[TENANTS]
        .client(user)
        .chat.completions.stream(
            model=MODEL,
            messages=[
                {"role": "system", "content": "Explain it to a newcomer, in three sentences."},
                {"role": "user", "content": asked.topic},
            ],
            max_tokens=300,
            stream_options={"include_usage": True},  # so that the user's tokens are counted
            **call_keywords(request.headers, max_timeout=LONGEST),
        )
    )
    return await stream_response(request, stream)


def make_app() -> web.Application:
    """Put the application together: one client, with limits for each user in front of it."""
    app = web.Application(middlewares=[error_middleware])
    client = AsyncKonko()
    app.cleanup_ctx.append(client_context(client))  # closed in the end
    app[TENANTS] = tenants = Tenants(client, LIMIT)

    def state() -> dict[str, object]:
        drain = app[DRAIN]
        told = health(app[CLIENT], active_streams=drain.active, draining=drain.draining)
        return told.as_dict()

    service = RelayService(tenants.client, OPTIONS, auth=who, health=state, page=True)
    add_routes(app, service)  # the page, /v1/chat/completions, /api/chat, /readyz and others
    drained(app, Drain(10), service=service)
    app.router.add_post("/explain", explain)
    return app


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--port", type=int, default=8080)
    port = parser.parse_args().port
    print(f"http://127.0.0.1:{port}/#token={next(iter(USERS))}", flush=True)
    web.run_app(make_app(), host="127.0.0.1", port=port)
