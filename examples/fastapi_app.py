"""A chat backend in FastAPI: answers streamed to browsers, and typed ones, for several customers.

    pip install '.[starlette,prometheus]' fastapi uvicorn
    export KONKO_API_KEY=...
    python examples/fastapi_app.py

Without a key, `konko-async serve` (made-up answers) or `konko-async serve --local` (a real small
model) in another terminal prints what to export instead. Then:

    curl -N http://127.0.0.1:8000/chat -H 'Authorization: Bearer acme-demo' \
        -H 'Content-Type: application/json' -d '{"question": "What is an event loop?"}'
    curl http://127.0.0.1:8000/tickets -H 'Authorization: Bearer acme-demo' \
        -H 'Content-Type: application/json' -d '{"text": "I was charged twice! Ada, May 3"}'

(Tickets are too much for the small model: it is a 502 if an answer does not fit the type.)

Prometheus finds the metrics at /metrics; `examples/grafana-dashboard.json` shows them.

One client serves the whole application; each customer has limits of its own in front of it. On
SIGTERM streams may finish for 10 s; uvicorn then ends by the signal, as it always does.
"""

import argparse
import contextlib
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import uvicorn
from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse, Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel, Field

from konko_async import AsyncKonko, KonkoError, RateLimit
from konko_async.integrations.prometheus import PrometheusObserver
from konko_async.relay import Drain, Tenants, call_keywords, health
from konko_async.relay.starlette_app import (
    DrainMiddleware,
    StreamResponse,
    error_response,
    lifespan,
)

MODEL = os.environ.get("KONKO_MODEL", "codellama/codellama-13b-instruct")
CUSTOMERS = {"acme-demo": "acme", "globex-demo": "globex"}  # yours are in a database
LIMIT = RateLimit(requests_per_minute=60, tokens_per_minute=40_000, max_concurrency=4)
LONGEST = 120.0  # seconds that a caller may ask for by X-Request-Timeout

drain = Drain(10)
metrics = PrometheusObserver()


def make_client() -> AsyncKonko:
    """Return a client whose calls are counted."""
    client = AsyncKonko(observers=[metrics], middleware=[metrics])
    metrics.watch(client)
    return client


@contextlib.asynccontextmanager
async def living(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
    """Open what the application lives on, once; handlers find it in `request.state`."""
    async with lifespan(make_client, drain=drain)(app) as state:
        yield {**state, "tenants": Tenants(state["client"], LIMIT)}


app = FastAPI(lifespan=living)
app.add_middleware(DrainMiddleware, drain=drain)
app.add_exception_handler(KonkoError, error_response)


def customers_client(
    request: Request, token: Annotated[HTTPAuthorizationCredentials, Depends(HTTPBearer())]
) -> AsyncKonko:
    """Return the client that keeps the limits of who asks."""
    customer = CUSTOMERS.get(token.credentials)
    if customer is None:
        raise HTTPException(401, "authentication required", {"WWW-Authenticate": "Bearer"})
    tenants: Tenants = request.state.tenants
    return tenants.client(customer)


Client = Annotated[AsyncKonko, Depends(customers_client)]


class Question(BaseModel):
    """What browsers send: nothing but this reaches the model."""

    question: str = Field(min_length=1, max_length=8000)


@app.post("/chat")
async def chat(request: Request, asked: Question, client: Client) -> StreamResponse:
    """Stream an answer as server-sent events, in OpenAI's chunks."""
    stream = client.chat.completions.stream(
        model=MODEL,
        messages=[{"role": "user", "content": asked.question}],
        max_tokens=1000,
        stream_options={"include_usage": True},  # so that the customer's tokens are counted
        **call_keywords(request.headers, max_timeout=LONGEST),
    )
    return StreamResponse(stream)


@dataclass
class Ticket:
    """What a customer's message comes to."""

    title: str
    severity: Literal["low", "normal", "urgent"]
    wants_refund: bool


class Message(BaseModel):
    """A message of a customer."""

    text: str = Field(min_length=1, max_length=8000)


@app.post("/tickets")
async def tickets(request: Request, message: Message, client: Client) -> Ticket:
    """Turn a message into a ticket; the model's answer is checked against the type."""
    completion = await client.chat.completions.create(
        model=MODEL,
        messages=[
            {"role": "system", "content": "Turn the customer's message into a ticket."},
            {"role": "user", "content": message.text},
        ],
        response_format=Ticket,
        max_tokens=200,
        **call_keywords(request.headers, max_timeout=LONGEST, timeout=30),
    )
    return completion.parsed


@app.get("/readyz")
async def ready(request: Request) -> JSONResponse:
    """Tell the balancer whether to send requests here; the details are for the inside."""
    state = health(request.state.client, active_streams=drain.active, draining=drain.draining)
    return JSONResponse({"status": state.status}, 200 if state.ready else 503)


@app.get("/metrics")
async def scraped() -> Response:
    """Show the metrics; like /readyz, for the inside only."""
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--port", type=int, default=8000)
    uvicorn.run(app, host="127.0.0.1", port=parser.parse_args().port)
