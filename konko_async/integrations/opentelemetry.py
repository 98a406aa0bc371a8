"""OpenTelemetry: spans of calls and their attempts, metrics, content on request.

Needs the extra ``otel``: ``pip install 'konko-async[otel]'``.
"""

from __future__ import annotations

import asyncio
import json
import logging
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from konko_async import ConfigurationError, Handler, Middleware, Request, Response, __version__
from konko_async.integrations._otel.attributes import (
    answer_attributes,
    endpoint_attributes,
    error_name,
    provider_of,
    request_attributes,
    server_attributes,
)
from konko_async.integrations._otel.instruments import Instruments, Version
from konko_async.integrations._otel.messages import content_of

try:
    from opentelemetry import context, propagate, trace
    from opentelemetry._logs import LogRecord, get_logger
    from opentelemetry.metrics import get_meter
    from opentelemetry.trace import SpanKind, Status, StatusCode
except ImportError:  # pragma: no cover - said in words
    raise ConfigurationError(
        "this needs the extra `otel`: pip install 'konko-async[otel]'"
    ) from None

if TYPE_CHECKING:
    from opentelemetry._logs import LoggerProvider
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import Span, TracerProvider

    from konko_async.integrations._otel.attributes import Names

__all__ = ["OpenTelemetry"]

Content = Literal["none", "event", "span", "both"]

_log = logging.getLogger("konko_async.opentelemetry")
_SCOPE = "konko_async"
_SCHEMA = "https://opentelemetry.io/schemas/1.37.0"
_EVENT = "gen_ai.client.inference.operation.details"
_LONGEST_MESSAGE = 500
_CALL = context.create_key("konko_async-call")


class OpenTelemetry:
    """Traces and measures calls by the GenAI semantic conventions.

    Give it to a client as a middleware: ``AsyncKonko(middleware=[OpenTelemetry()])``. It stands
    outermost wherever it is in the list.

    - A span for each call, named such as ``chat my-model``; that of a stream ends when the stream
      does. ``konko_async.outcome`` is ``ok``, ``error``, ``cancelled`` or ``closed`` (a stream that
      its reader left).
    - Below it a span for each attempt (retries, hedges, fallbacks), by the HTTP conventions. Its
      context goes to the server as the headers that the global propagator writes: ``traceparent``.
    - Metrics: duration, tokens, time to the first chunk and from chunk to chunk; also
      ``konko_async.client.active_calls`` and ``konko_async.client.limiter.wait``.
    - Prompts and answers nowhere, unless ``content`` says so; nor the messages of errors, in which
      servers quote prompts.

    The model list has no span and no metrics; its requests carry the current context.

    Args:
        tracer_provider: default: the global one, as for the others.
        meter_provider: of metrics.
        logger_provider: of events.
        version: of the conventions: ``"1.37"`` as ``opentelemetry-instrumentation-genai-openai``
            1.3b0 has it (``gen_ai.client.operation.duration``, ``gen_ai.client.token.usage``), or
            ``"genai-0.1"`` with the names of the repository ``semantic-conventions-genai``
            (``gen_ai.client.inference.*``).
        content: where prompts and answers go: ``"none"``, ``"event"`` (an event
            ``gen_ai.client.inference.operation.details``), ``"span"``, or ``"both"``. With any but
            the first the message of an error describes the status of its span.
        provider: ``gen_ai.provider.name``. Default: by the server's host; ``konko`` if unknown.
        attempts: whether attempts have spans.
        propagate: whether requests carry the context to the server.
        chunk_times: whether the time from chunk to chunk is measured. With OpenTelemetry's SDK a
            measurement takes about 15 µs, more than all else that is done for a chunk: switch it
            off where one process streams thousands of tokens a second.

    Raises:
        ConfigurationError: ``version`` or ``content`` is none of those.
    """

    def __init__(
        self,
        *,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        logger_provider: LoggerProvider | None = None,
        version: Version = "1.37",
        content: Content = "none",
        provider: str | None = None,
        attempts: bool = True,
        propagate: bool = True,
        chunk_times: bool = True,
    ) -> None:
        if version not in {"1.37", "genai-0.1"}:
            raise ConfigurationError('OpenTelemetry: version must be "1.37" or "genai-0.1"')
        if content not in {"none", "event", "span", "both"}:
            raise ConfigurationError(
                'OpenTelemetry: content must be "none", "event", "span" or "both"'
            )
        about = (_SCOPE, __version__)
        self.tracer = trace.get_tracer(*about, tracer_provider, schema_url=_SCHEMA)
        meter = get_meter(*about, meter_provider, schema_url=_SCHEMA)
        self.instruments = Instruments(meter, version)
        self.logger = get_logger(*about, logger_provider, schema_url=_SCHEMA)
        self.newest = version != "1.37"
        self.on_span = content in {"span", "both"}
        self.on_event = content in {"event", "both"}
        self.content = content != "none"
        self.provider = provider
        self.attempts = attempts
        self.propagates = propagate
        self.chunk_times = chunk_times

    def layers(self, base_url: str) -> tuple[Middleware, Middleware]:
        """Return what goes around each call of a client, and around each attempt."""
        layer = _Layer(self, base_url)
        return layer.call, layer.attempt

    async def __call__(self, request: Request, call_next: Handler) -> Response:
        """Trace a call whose client did not say where it goes."""
        return await _Layer(self, "").call(request, call_next)


class _Layer:
    """What is around the calls and attempts of one client.

    Args:
        owner: says what is wanted.
        base_url: where requests go that have no target of their own.
    """

    def __init__(self, owner: OpenTelemetry, base_url: str) -> None:
        self._owner = owner
        self._base_url = base_url
        self._start = {
            "gen_ai.provider.name": owner.provider or provider_of(base_url),
            **server_attributes(base_url),
        }

    async def call(self, request: Request, call_next: Handler) -> Response:
        """Put a span around a call."""
        if request.model is None:
            return await call_next(request)
        traced = _Call(self._owner, request, self._start)
        inside = trace.set_span_in_context(traced.span)
        token = context.attach(context.set_value(_CALL, traced, inside))
        try:
            response = await call_next(request)
        except BaseException as error:
            traced.failed(error)
            raise
        finally:
            context.detach(token)
        traced.answered(response)
        return response

    async def attempt(self, request: Request, call_next: Handler) -> Response:
        """Put a span around an attempt, and its context into the request."""
        owner = self._owner
        if not owner.attempts or request.model is None:
            return await call_next(self._with_context(request))
        target = request.target
        base_url = (None if target is None else target.base_url) or self._base_url
        attributes: Names = {
            "http.request.method": request.operation.method,
            "url.template": request.path,
            "gen_ai.request.model": request.model,
            **server_attributes(base_url),
        }
        if request.attempt > 1:
            attributes["http.request.resend_count"] = request.attempt - 1
        if request.hedge:
            attributes["konko_async.hedge"] = True
        span = owner.tracer.start_span(
            request.operation.method, kind=SpanKind.CLIENT, attributes=attributes
        )
        token = context.attach(trace.set_span_in_context(span))
        try:
            response = await call_next(self._with_context(request))
        except BaseException as error:
            self._waited(request, span)
            _failed(span, error, with_message=owner.content)
            status = getattr(error, "status_code", None)
            if status is not None:
                span.set_attribute("http.response.status_code", status)
            span.end()
            raise
        finally:
            context.detach(token)
        self._waited(request, span)
        span.set_attribute("http.response.status_code", response.status)
        response.on_close(partial(_attempt_ended, span))
        call: Any = context.get_value(_CALL)
        if isinstance(call, _Call):
            call.attempts.append((span, response, endpoint_attributes(request)))
        return response

    def _with_context(self, request: Request) -> Request:
        if not self._owner.propagates:
            return request
        carrier: dict[str, str] = {}
        propagate.inject(carrier)
        return request.replace(headers={**request.headers, **carrier}) if carrier else request

    def _waited(self, request: Request, span: Span) -> None:
        waited, where = request.times.queued, endpoint_attributes(request)
        self._owner.instruments.waited.record(
            waited, {**self._start, "gen_ai.request.model": request.model, **where}
        )
        span.set_attributes(where)
        if waited:
            span.set_attribute("konko_async.limiter.wait", waited)


class _Call:
    """One call: its span, and what is measured of it."""

    __slots__ = (
        "_arrived", "_chunks", "_dims", "_loop", "_owner", "_params", "_started", "_where",
        "attempts", "span",
    )  # fmt: skip

    def __init__(self, owner: OpenTelemetry, request: Request, start: Names) -> None:
        self._owner = owner
        self._dims = {
            "gen_ai.operation.name": request.operation.name,
            "gen_ai.request.model": request.model,
            **start,
        }
        self._loop = asyncio.get_running_loop()
        self._started = self._loop.time()
        self.span = owner.tracer.start_span(
            f"{request.operation.name} {request.model}",
            kind=SpanKind.CLIENT,
            attributes=self._dims,
        )
        about = request_attributes(request.params, stream=request.stream, newest=owner.newest)
        self.span.set_attributes(about)
        # Kept only where it is wanted: prompts may be long, and streams open for long.
        self._params = request.params if owner.on_span or owner.on_event else None
        self._chunks = 0
        self._arrived = 0.0
        self._where: Names = {}  # the endpoint that answered, where there are several
        # Those that were answered, and where.
        self.attempts: list[tuple[Span, Response, Names]] = []
        owner.instruments.active.add(1, self._dims)

    def failed(self, error: BaseException) -> None:
        """End the span of a call that got no answer."""
        name = _failed(self.span, error, with_message=self._owner.content)
        measured = {"error.type": name} if name else {}
        self._end(None, measured)

    def answered(self, response: Response) -> None:
        """End the span, or have it ended when the stream ends."""
        reader = response.stream
        self._where = next((where for _, answer, where in self.attempts if answer is response), {})
        if reader is not None:
            self._opened(response, reader)
        response.on_close(self._ended)

    def _opened(self, response: Response, reader: Any) -> None:
        now = response.first_token_at
        self._arrived = self._loop.time() if now is None else now
        seconds = self._arrived - self._started
        self.span.set_attribute("gen_ai.response.time_to_first_chunk", seconds)
        dims = self._with_model(reader)
        self._owner.instruments.first_chunk(seconds, dims)
        if self._owner.chunk_times:
            self._chunks = 1
            reader.watch(partial(self._read, reader))

    def _with_model(self, reader: Any) -> Names:
        model = reader.accumulated.model
        dims = {**self._dims, **self._where}
        return {**dims, "gen_ai.response.model": model} if model else dims

    def _read(self, reader: Any, when: float) -> None:
        """Measure the chunks that the last read brought."""
        count = reader.decoder.chunks - self._chunks
        if count > 0:
            waited = max(when - self._arrived, 0.0)
            self._owner.instruments.chunks(waited, count, self._with_model(reader))
            self._chunks += count
            self._arrived = when

    def _ended(self, response: Response) -> None:
        for span, answer, _ in self.attempts:
            if answer is response:
                _attempt_ended(span, response)  # a child ends before its parent
        self.attempts.clear()
        reader = response.stream
        result = response.result if reader is None else reader.accumulated.result()
        measured: Names = {}
        if response.outcome == "error":
            name = error_name(response.error_type or "KonkoError")
            measured["error.type"] = name
            self.span.set_status(Status(StatusCode.ERROR, name))
        self.span.set_attribute("konko_async.outcome", response.outcome)
        self._end(result, measured, stream=reader is not None)

    def _end(self, result: Any, measured: Names, *, stream: bool = False) -> None:
        owner = self._owner
        found, dims = ({}, {}) if result is None else answer_attributes(result, stream=stream)
        dims = {**self._dims, **self._where, **dims, **measured}
        self.span.set_attributes({**found, **self._where, **measured})
        if self._params is not None:
            self._write_content(result, found)
        owner.instruments.active.add(-1, self._dims)
        owner.instruments.ended(self._loop.time() - self._started, dims, found)
        self.span.end()

    def _write_content(self, result: Any, found: Names) -> None:
        owner, params = self._owner, self._params
        self._params = None
        try:
            content = content_of(params, result)
            if owner.on_span:
                for name, value in content.items():
                    self.span.set_attribute(name, json.dumps(value, ensure_ascii=False))
            if owner.on_event:
                owner.logger.emit(
                    LogRecord(
                        event_name=_EVENT,
                        attributes={**self._dims, **found, **content},
                        context=trace.set_span_in_context(self.span),
                    )
                )
        except Exception:  # noqa: BLE001 - what cannot be written down must not break the call
            _log.exception("the content of a call could not be recorded")


def _failed(span: Span, error: BaseException, *, with_message: bool) -> str | None:
    """Note on a span what went wrong; returns the error's name, None for a cancellation.

    Args:
        span: of the call or attempt.
        error: what it raised.
        with_message: whether its message may be recorded. Servers quote prompts in them.
    """
    if isinstance(error, asyncio.CancelledError):
        span.set_attribute("konko_async.outcome", "cancelled")
        return None
    name = error_name(error)
    text = str(getattr(error, "message", error))[:_LONGEST_MESSAGE]
    span.set_status(Status(StatusCode.ERROR, text if with_message else name))
    span.set_attributes({"error.type": name, "konko_async.outcome": "error"})
    return name


def _attempt_ended(span: Span, response: Response) -> None:
    if not span.is_recording():  # it has ended, with its call
        return
    span.set_attribute("konko_async.outcome", response.outcome)
    if response.outcome == "error":
        name = error_name(response.error_type or "KonkoError")
        span.set_status(Status(StatusCode.ERROR, name))
        span.set_attribute("error.type", name)
    span.end()
