"""The instruments that measure calls, under the names of two versions of the conventions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from opentelemetry.metrics import Histogram, Meter

    from konko_async.integrations._otel.attributes import Names

__all__ = ["Instruments", "Version"]

Version = Literal["1.37", "genai-0.1"]

# The boundaries that the conventions recommend.
_SECONDS: Final = [0.01 * 2**step for step in range(14)]
_TOKENS: Final = [4**step for step in range(14)]


class Instruments:
    """Measures calls.

    Args:
        meter: makes the instruments.
        version: of the conventions.
    """

    def __init__(self, meter: Meter, version: Version) -> None:
        self._meter = meter
        self._newest = version != "1.37"
        kind = "inference" if self._newest else "operation"
        self._first = self._seconds(
            f"gen_ai.client.{kind}.time_to_first_chunk",
            "Time to receive the first chunk of a stream",
        )
        self._each = self._seconds(
            f"gen_ai.client.{kind}.time_per_output_chunk",
            "Time from the end of the previous chunk of a stream to the end of this one",
        )
        self._duration = self._seconds(
            f"gen_ai.client.{kind}.duration", "Duration of a call, to the end of its answer"
        )
        self._embedded = self._duration
        if self._newest:
            self._embedded = self._seconds(
                "gen_ai.client.embeddings.duration", "Duration of an embeddings call"
            )
            self._make_newest_tokens()
        else:
            self._usage = self._tokens("gen_ai.client.token.usage", "Tokens used by a call")
        self.active = meter.create_up_down_counter(
            "konko_async.client.active_calls", "{call}", "Calls that have not ended"
        )
        self.waited = self._seconds(
            "konko_async.client.limiter.wait", "Time that an attempt waited for the local limits"
        )

    def _make_newest_tokens(self) -> None:
        counted = {
            "input_tokens": "Tokens of prompts, those from a cache included",
            "output_tokens": "Tokens of answers, those of reasoning included",
            "cache_read.input_tokens": "Tokens of prompts that came from a cache",
            "reasoning.output_tokens": "Tokens used for reasoning",
        }
        self._counters = {
            name: self._meter.create_counter(
                f"gen_ai.client.inference.usage.{name}", "{token}", text
            )
            for name, text in counted.items()
        }
        self._per_call = {
            name: self._tokens(f"gen_ai.client.inference.operation.{name}", text)
            for name, text in list(counted.items())[:2]
        }
        self._embedded_tokens = self._tokens(
            "gen_ai.client.embeddings.operation.input_tokens", "Tokens embedded by a call"
        )

    def _seconds(self, name: str, description: str) -> Histogram:
        return self._meter.create_histogram(
            name, "s", description, explicit_bucket_boundaries_advisory=_SECONDS
        )

    def _tokens(self, name: str, description: str) -> Histogram:
        return self._meter.create_histogram(
            name, "{token}", description, explicit_bucket_boundaries_advisory=_TOKENS
        )

    def ended(self, seconds: float, attributes: Names, used: Names) -> None:
        """Record the end of a call.

        Args:
            seconds: that it took.
            attributes: of the measurements.
            used: attributes of the span, in which the tokens are.
        """
        embeddings = attributes.get("gen_ai.operation.name") == "embeddings"
        (self._embedded if embeddings else self._duration).record(seconds, attributes)
        names = ("input_tokens", "output_tokens", "cache_read.input_tokens")
        for name in (*names, "reasoning.output_tokens"):
            count = used.get(f"gen_ai.usage.{name}")
            if count is None:
                continue
            if self._newest and embeddings:
                self._embedded_tokens.record(count, attributes)
            elif self._newest:
                self._counters[name].add(count, attributes)
                if name in self._per_call:
                    self._per_call[name].record(count, attributes)
            elif "." not in name:
                kind = {"gen_ai.token.type": name.partition("_")[0]}
                self._usage.record(count, {**attributes, **kind})

    def first_chunk(self, seconds: float, attributes: Names) -> None:
        """Record the time to a stream's first chunk."""
        self._first.record(seconds, attributes)

    def chunks(self, seconds: float, count: int, attributes: Names) -> None:
        """Record chunks that arrived together.

        Args:
            seconds: since the last ones.
            count: how many they are; after the first of them no time has passed.
            attributes: of the measurements.
        """
        for place in range(count):
            self._each.record(0.0 if place else seconds, attributes)
