"""OpenTelemetry's own instrumentation of `openai` and ours: the same names for the same calls.

Needs opentelemetry-instrumentation-genai-openai, openai and opentelemetry-sdk.
"""

import pytest

from konko_async import AsyncKonko
from konko_async.integrations.opentelemetry import OpenTelemetry
from konko_async.testing import Emulator, faults

theirs = pytest.importorskip(
    "opentelemetry.instrumentation.genai.openai",
    reason="needs opentelemetry-instrumentation-genai-openai",
)
openai = pytest.importorskip("openai")
pytest.importorskip("opentelemetry.sdk", reason="needs opentelemetry-sdk")

from opentelemetry.sdk.metrics import MeterProvider  # noqa: E402 - after the skips
from opentelemetry.sdk.metrics.export import InMemoryMetricReader  # noqa: E402
from opentelemetry.sdk.trace import TracerProvider  # noqa: E402
from opentelemetry.sdk.trace.export import SimpleSpanProcessor  # noqa: E402
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter  # noqa: E402

MODEL = "codellama/codellama-13b-instruct"
OURS = "konko_async."  # what only we say stands under a name of ours


async def script(client, emulator):
    """The calls of one application; any client that speaks as openai's does."""
    ask = {"model": MODEL, "messages": [{"role": "user", "content": "Say hello."}]}
    create = client.chat.completions.create
    await create(**ask)
    await create(
        **ask, temperature=0.1, top_p=0.9, max_tokens=7, seed=3, n=2, stop=["a", "b"],
        presence_penalty=0.1, frequency_penalty=0.2, response_format={"type": "json_object"},
    )  # fmt: skip
    tool = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
    await create(**ask, tools=[tool], max_completion_tokens=50)
    for more in ({}, {"stream_options": {"include_usage": True}, "n": 2}):
        stream = await create(**ask, stream=True, **more)
        async for _ in stream:
            pass
    await client.embeddings.create(model="thenlper/gte-base", input="Hello")
    await client.embeddings.create(
        model="thenlper/gte-base", input=["a", "b"], encoding_format="float", dimensions=8
    )
    emulator.script(faults.Status(400, message="no"))
    with pytest.raises(Exception, match="no"):
        await create(**ask)
    emulator.script(faults.Status(404, message="gone"))
    with pytest.raises(Exception, match="gone"):
        await client.embeddings.create(model="thenlper/gte-base", input="Hello")


class Seen:
    """What one run sends to a collector."""

    def __init__(self):
        self.exporter = InMemorySpanExporter()
        self.tracers = TracerProvider(shutdown_on_exit=False)
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.reader = InMemoryMetricReader()
        self.meters = MeterProvider([self.reader], shutdown_on_exit=False)

    def spans(self):
        """Name, kind, status and attribute keys of the spans of calls, in their order."""
        return [
            (span.name, span.kind, span.status.status_code, _keys(span.attributes))
            for span in self.exporter.get_finished_spans()
            if "gen_ai.operation.name" in span.attributes
        ]

    def metrics(self):
        """Of each metric: kind, unit, boundaries, and the attribute keys of its points."""
        found = {}
        for resource in self.reader.get_metrics_data().resource_metrics:
            for metric in (m for scope in resource.scope_metrics for m in scope.metrics):
                if not metric.name.startswith(OURS):
                    data = metric.data.data_points
                    bounds = {getattr(point, "explicit_bounds", None) for point in data}
                    keys = sorted({tuple(_keys(point.attributes)) for point in data})
                    found[metric.name] = type(metric.data), metric.unit, bounds, keys
        return found

    def close(self):
        self.tracers.shutdown()
        self.meters.shutdown()


def _keys(attributes):
    return sorted(name for name in attributes if not name.startswith(OURS))


@pytest.fixture
async def both():
    """What their instrumentor and ours say of one script."""
    seen = [Seen(), Seen()]
    instrumentor = theirs.OpenAIInstrumentor()
    instrumentor.instrument(tracer_provider=seen[0].tracers, meter_provider=seen[0].meters)
    try:
        async with (
            Emulator() as emulator,
            openai.AsyncOpenAI(api_key="k", base_url=emulator.base_url, max_retries=0) as client,
        ):
            await script(client, emulator)
    finally:
        instrumentor.uninstrument()
    telemetry = OpenTelemetry(tracer_provider=seen[1].tracers, meter_provider=seen[1].meters)
    async with (
        Emulator() as emulator,
        AsyncKonko("k", emulator.base_url, retry=None, middleware=[telemetry]) as client,
    ):
        await script(client, emulator)
    yield seen
    for one in seen:
        one.close()


async def test_spans_have_the_same_names_and_keys(both):
    expected, found = (one.spans() for one in both)
    assert len(expected) == 9
    assert found == expected


async def test_metrics_have_the_same_names_units_and_keys(both):
    expected, found = (one.metrics() for one in both)
    assert len(expected) == 4
    assert found == expected


async def test_values_are_the_same_where_they_can_be(both):
    expected, found = (
        [dict(s.attributes) for s in one.exporter.get_finished_spans()
         if "gen_ai.operation.name" in s.attributes]
        for one in both
    )  # fmt: skip
    free = {
        "gen_ai.provider.name", "server.port", "gen_ai.response.id", "error.type",
        "gen_ai.response.time_to_first_chunk",
    }  # fmt: skip
    for theirs_said, ours_said in zip(expected, found, strict=True):
        for name in set(theirs_said) - free:
            assert ours_said[name] == theirs_said[name], name
