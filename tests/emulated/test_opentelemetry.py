"""Spans, metrics, content and context, as an OpenTelemetry SDK receives them."""

import asyncio
import json

import pytest
from client_kit import ASK, MODEL, ask, make_client
from opentelemetry import trace
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from konko_async import (
    AsyncKonko,
    ConfigurationError,
    Endpoint,
    Fallback,
    RateLimit,
    RetryPolicy,
)
from konko_async.integrations._otel.attributes import provider_of, server_attributes
from konko_async.integrations.opentelemetry import OpenTelemetry
from konko_async.testing import Answer, Emulator, FaultServer, faults

try:
    from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter as InMemoryLogExporter
except ImportError:
    from opentelemetry.sdk._logs.export import InMemoryLogExporter

FAST = RetryPolicy(max_attempts=3, base_delay=0.001)


class Collected:
    """What an SDK has received."""

    def __init__(self, **options):
        self.spans_out, self.logs_out = InMemorySpanExporter(), InMemoryLogExporter()
        self.tracers, self.logs = TracerProvider(shutdown_on_exit=False), LoggerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self.spans_out))
        self.logs.add_log_record_processor(SimpleLogRecordProcessor(self.logs_out))
        self.reader = InMemoryMetricReader()
        self.meters = MeterProvider([self.reader], shutdown_on_exit=False)
        self.telemetry = OpenTelemetry(
            tracer_provider=self.tracers,
            meter_provider=self.meters,
            logger_provider=self.logs,
            **options,
        )

    @property
    def spans(self):
        return self.spans_out.get_finished_spans()

    @property
    def calls(self):
        return [span for span in self.spans if "gen_ai.operation.name" in span.attributes]

    @property
    def attempts(self):
        return [span for span in self.spans if "http.request.method" in span.attributes]

    @property
    def metrics(self):
        data = self.reader.get_metrics_data()
        found = {}
        for resource in data.resource_metrics if data else ():
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    found[metric.name] = metric
        return found

    def close(self):
        self.tracers.shutdown()
        self.meters.shutdown()
        self.logs.shutdown()


@pytest.fixture
def collect():
    made = []

    def make(**options):
        made.append(Collected(**options))
        return made[-1]

    yield make
    for collected in made:
        collected.close()


def points(metric):
    return list(metric.data.data_points)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_call_and_its_attempt(collect, stream):
    got = collect()
    async with Emulator() as emulator, make_client(emulator, middleware=[got.telemetry]) as client:
        with got.tracers.get_tracer("app").start_as_current_span("page") as page:
            done = await ask(client, stream=stream, temperature=0.5, max_tokens=9, stop="x", n=1)
        port, headers = (
            client.base_url.rpartition(":")[2].split("/")[0],
            emulator.requests[0].headers,
        )
        assert trace.get_current_span() is trace.INVALID_SPAN
    (call,), (attempt,) = got.calls, got.attempts
    assert call.name == f"chat {MODEL}"
    assert call.kind is attempt.kind is trace.SpanKind.CLIENT
    assert call.parent.span_id == page.get_span_context().span_id
    assert attempt.parent.span_id == call.context.span_id
    assert call.start_time <= attempt.start_time <= attempt.end_time <= call.end_time
    said = dict(call.attributes)
    assert said["gen_ai.provider.name"] == "konko"
    assert (said["server.address"], said["server.port"]) == ("127.0.0.1", int(port))
    assert said["gen_ai.request.max_tokens"] == 9
    assert said["gen_ai.request.stop_sequences"] == ("x",)
    assert "gen_ai.request.choice.count" not in said
    assert said["gen_ai.response.finish_reasons"] == ("length",)
    assert said["gen_ai.response.id"] == done.id
    assert said["konko_async.outcome"] == "ok"
    assert said.get("gen_ai.request.stream") is (True if stream else None)
    assert ("gen_ai.usage.input_tokens" in said) is not stream
    assert ("gen_ai.response.time_to_first_chunk" in said) is stream
    assert attempt.attributes["http.response.status_code"] == 200
    # The server sees the attempt, not the call, as its parent.
    version, trace_id, parent, _ = headers["traceparent"].split("-")
    assert (version, int(trace_id, 16)) == ("00", call.context.trace_id)
    assert int(parent, 16) == attempt.context.span_id
    shown = json.dumps([json.loads(span.to_json()) for span in got.spans])
    assert "Say hello" not in shown
    assert done.choices[0].message.content not in shown


async def test_retries_and_a_fallback_are_children_of_one_call(collect):
    got = collect()
    async with Emulator() as first, Emulator() as second:
        first.outage = 503
        other = Fallback(base_url=second.base_url, api_key="k")
        options = {"middleware": [got.telemetry], "retry": FAST, "fallback_models": [other]}
        async with make_client(first, **options) as client:
            await ask(client, stream=True)
    (call,) = got.calls
    assert len(got.attempts) == 4
    assert {span.parent.span_id for span in got.attempts} == {call.context.span_id}
    said = [span.attributes for span in got.attempts]
    assert [a["http.response.status_code"] for a in said] == [503, 503, 503, 200]
    assert [a.get("http.request.resend_count") for a in said] == [None, 1, 2, None]
    assert [a.get("error.type") for a in said] == ["konko_async.InternalServerError"] * 3 + [None]
    assert len({a["server.port"] for a in said}) == 2


@pytest.mark.parametrize("stream", [False, True])
async def test_spans_and_metrics_name_the_endpoint(collect, stream):
    got = collect()
    async with Emulator() as first, Emulator() as second:
        first.outage = 503
        endpoints = [
            Endpoint(first.base_url, "k", name="east"),
            Endpoint(second.base_url, "k", name="west", priority=1),
        ]
        async with AsyncKonko(
            endpoints=endpoints, middleware=[got.telemetry], retry=FAST, balance="priority"
        ) as client:
            await ask(client, stream=stream)
        ports = [int(server.base_url.split(":")[2].split("/")[0]) for server in (first, second)]
    said = [
        (a.attributes["konko_async.endpoint"], a.attributes["server.port"]) for a in got.attempts
    ]
    assert set(said) == {("east", ports[0]), ("west", ports[1])}
    (call,) = got.calls
    assert (call.attributes["konko_async.endpoint"], call.attributes["server.port"]) == said[-1]
    assert said[-1][0] == "west", "where it was answered"
    metrics = got.metrics
    more = "operation.time_to_first_chunk" if stream else "token.usage"
    for name in ("gen_ai.client.operation.duration", f"gen_ai.client.{more}"):
        for point in points(metrics[name]):
            assert point.attributes["konko_async.endpoint"] == "west"
            assert point.attributes["server.port"] == ports[1]
    waits = {
        p.attributes["konko_async.endpoint"]
        for p in points(metrics["konko_async.client.limiter.wait"])
    }
    assert waits == {"east", "west"}
    (active,) = points(metrics["konko_async.client.active_calls"])
    assert active.value == 0


async def test_a_hedge_and_the_attempt_that_lost(collect):
    got = collect()
    stream = Answer.stream(["Hel", "lo"])
    server = FaultServer(stream.stall(0), stream)
    async with server, make_client(server, middleware=[got.telemetry], hedge_after=0.02) as client:
        await ask(client, stream=True)
    outcomes = sorted(
        (span.attributes.get("konko_async.hedge", False), span.attributes["konko_async.outcome"])
        for span in got.attempts
    )
    assert outcomes == [(False, "cancelled"), (True, "ok")]
    assert all(span.status.is_unset for span in got.spans)


@pytest.mark.parametrize("content", ["none", "event"])
async def test_a_call_that_fails(collect, content):
    got = collect(content=content)
    async with Emulator() as emulator, make_client(emulator, middleware=[got.telemetry]) as client:
        emulator.script(faults.Status(400, message="bad"))
        with pytest.raises(Exception, match="bad"):
            await ask(client, stream=False)
    assert got.spans
    for span in got.spans:
        assert span.status.status_code is trace.StatusCode.ERROR
        # Servers quote prompts in their messages.
        wanted = "HTTP 400: bad" if content == "event" else "konko_async.BadRequestError"
        assert span.status.description == wanted
        assert span.attributes["error.type"] == "konko_async.BadRequestError"
        assert span.attributes["konko_async.outcome"] == "error"
    (point,) = points(got.metrics["gen_ai.client.operation.duration"])
    assert point.attributes["error.type"] == "konko_async.BadRequestError"
    (active,) = points(got.metrics["konko_async.client.active_calls"])
    assert active.value == 0


@pytest.mark.parametrize("end", ["closed", "cancelled", "error"])
async def test_streams_end_by_their_end(collect, end):
    got = collect()
    whole = Answer.stream(["Hel", "lo"])
    place = whole.wire.index(b'"lo"') - 120
    server = FaultServer(whole.cut(place) if end == "error" else whole.stall(place))
    async with server, make_client(server, middleware=[got.telemetry]) as client:
        stream = await client.chat.completions.create(**ASK, stream=True)
        await anext(stream)
        assert not got.spans  # it is still open
        (active,) = points(got.metrics["konko_async.client.active_calls"])
        assert active.value == 1
        if end == "closed":
            await stream.close()
        elif end == "error":
            with pytest.raises(Exception, match=r"cut|ended"):
                await stream.completion()
        else:
            task = asyncio.create_task(stream.completion())
            await server.wait_for_stall()
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
    assert [span.attributes["konko_async.outcome"] for span in got.spans] == [end, end]
    bad = {span.status.status_code is trace.StatusCode.ERROR for span in got.spans}
    assert bad == {end == "error"}


@pytest.mark.parametrize("version", ["1.37", "genai-0.1"])
async def test_metrics(collect, version):
    got = collect(version=version)
    limit = RateLimit(max_concurrency=1)
    options = {"middleware": [got.telemetry], "rate_limit": limit}
    async with Emulator() as emulator, make_client(emulator, **options) as client:
        usage = {"stream_options": {"include_usage": True}}
        await asyncio.gather(
            ask(client, stream=True, **usage), ask(client, stream=True, **usage),
            client.embeddings.create(model="thenlper/gte-base", input="Hi"),
        )  # fmt: skip
        chunks = sum(record.chunks_sent for record in emulator.requests)
    metrics = {name: (metric.unit, points(metric)) for name, metric in got.metrics.items()}
    ours = {"konko_async.client.active_calls", "konko_async.client.limiter.wait"}
    if version == "1.37":
        kind, tokens = "operation", {"gen_ai.client.token.usage"}
        embeddings = set()
    else:
        kind = "inference"
        tokens = {
            f"gen_ai.client.inference.{part}.{name}_tokens"
            for part in ("usage", "operation")
            for name in ("input", "output")
        }
        embeddings = {
            "gen_ai.client.embeddings.duration",
            "gen_ai.client.embeddings.operation.input_tokens",
        }
    names = ("duration", "time_to_first_chunk", "time_per_output_chunk")
    seconds = {f"gen_ai.client.{kind}.{name}" for name in names}
    assert set(metrics) == ours | seconds | tokens | embeddings
    assert {metrics[name][0] for name in seconds} == {"s"}
    assert {metrics[name][0] for name in tokens} == {"{token}"}
    (first,) = metrics[f"gen_ai.client.{kind}.time_to_first_chunk"][1]
    assert first.count == 2
    (each,) = metrics[f"gen_ai.client.{kind}.time_per_output_chunk"][1]
    assert each.count == chunks - 2  # each but the first of both
    assert each.attributes["gen_ai.response.model"] == MODEL
    waits = metrics["konko_async.client.limiter.wait"][1]
    assert sum(point.count for point in waits) == 3


@pytest.mark.parametrize("content", ["none", "event", "span", "both"])
async def test_content_only_on_request(collect, content):
    got = collect(content=content)
    tool = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
    call = {"tool_calls": [{"name": "look", "arguments": {"at": "it"}}]}
    async with (
        Emulator(answer=lambda _: call) as emulator,
        make_client(emulator, middleware=[got.telemetry]) as client,
    ):
        await ask(client, stream=True, tools=[tool])
    (span,) = got.calls
    logs = [item.log_record for item in got.logs_out.get_finished_logs()]
    on_span = {name for name in span.attributes if name.endswith((".messages", ".definitions"))}
    assert bool(on_span) == (content in {"span", "both"})
    assert bool(logs) == (content in {"event", "both"})
    if on_span:
        (asked,) = json.loads(span.attributes["gen_ai.input.messages"])
        assert asked == {"role": "user", "parts": [{"type": "text", "content": "Say hello."}]}
        (said,) = json.loads(span.attributes["gen_ai.output.messages"])
        (part,) = said["parts"]
        assert (part["type"], part["name"], part["arguments"]) == (
            "tool_call",
            "look",
            {"at": "it"},
        )
        assert said["finish_reason"] == "tool_call"
    if logs:
        (log,) = logs
        assert log.event_name == "gen_ai.client.inference.operation.details"
        assert log.span_id == span.context.span_id
        assert log.attributes["gen_ai.input.messages"]


async def test_what_can_be_switched_off(collect):
    got = collect(attempts=False, propagate=False, chunk_times=False, provider="mine")
    async with Emulator() as emulator, make_client(emulator, middleware=[got.telemetry]) as client:
        await ask(client, stream=True)
        await client.models.list()
        assert not any("traceparent" in record.headers for record in emulator.requests)
    (span,) = got.spans
    assert span.attributes["gen_ai.provider.name"] == "mine"
    assert "gen_ai.client.operation.time_per_output_chunk" not in got.metrics


@pytest.mark.parametrize("wrong", [{"version": "2"}, {"content": "all"}])
def test_bad_arguments(wrong):
    with pytest.raises(ConfigurationError):
        OpenTelemetry(**wrong)


@pytest.mark.parametrize(
    ("url", "provider", "server"),
    [
        ("https://api.konko.ai/v1", "konko", {"server.address": "api.konko.ai"}),
        ("https://api.openai.com:443/v1", "openai", {"server.address": "api.openai.com"}),
        ("https://eu.api.x.ai/v1", "x_ai", {"server.address": "eu.api.x.ai"}),
        ("https://notx.ai/v1", "konko", {"server.address": "notx.ai"}),
        ("http://h:80/v1", "konko", {"server.address": "h"}),
        ("http://[::1]:8080/v1", "konko", {"server.address": "::1", "server.port": 8080}),
        ("", "konko", {}),
    ],
)
def test_servers_and_providers(url, provider, server):
    assert (provider_of(url), server_attributes(url)) == (provider, server)
