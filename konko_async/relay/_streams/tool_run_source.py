"""Relays a run of tools as frames: the model's answers, calls and results, round by round."""

from __future__ import annotations

from typing import Any

from konko_async import ChatStream
from konko_async.errors import ConfigurationError
from konko_async.relay._formats.base import Format, RunFormat, StreamStats
from konko_async.relay._streams.source import DirectSource, StreamSource
from konko_async.tools import ToolEvent, ToolRun

__all__ = ["ToolRunSource", "source_of"]


class ToolRunSource(DirectSource):
    """A run of ``run_tools()``, directly; leaving it cancels the answer and the tools that run.

    Args:
        run: neither awaited nor iterated over yet.
        format: one for this run alone.

    Attributes:
        headers: the format's.

    Raises:
        ConfigurationError: the format has no method ``tell()``.
    """

    def __init__(self, run: ToolRun[Any], format: Format) -> None:
        # Now rather than at the first event: with open_early, the head of a 200 is out by then.
        if not callable(getattr(format, "tell", None)):
            raise ConfigurationError(
                f"{type(format).__name__} cannot tell of tools: a format for run_tools() needs "
                "the method tell(event) of RunFormat"
            )
        super().__init__(format)
        self._format: RunFormat
        self._run = run
        self._first: ToolEvent | None = None  # arrived, but not written yet
        self._first_at: float | None = None

    @property
    def started(self) -> bool:
        """Whether anything has happened."""
        return self._first_at is not None

    async def _start(self) -> None:
        # open() waits for it, so that a failure before it can still be a status; the first read
        # writes it.
        self._first = await self._happened()

    async def _step(self) -> list[bytes] | None:
        event, self._first = self._first, None
        if event is None:
            event = await self._happened()
        return None if event is None else self._format.tell(event)

    async def _happened(self) -> ToolEvent | None:
        event = await anext(self._run, None)
        if self._first_at is None:
            self._first_at = self._timing.passed()
        return event

    async def _last(self) -> list[bytes]:
        result = self._run.result
        stats = StreamStats(
            time_to_first_token=self._first_at,
            duration=self._timing.passed(),
            usage=result.usage,
        )
        return self._format.end(result.completion, stats)

    async def _leave(self) -> None:
        await self._run.aclose()


def source_of(answer: ChatStream | ToolRun[Any], format: Format) -> DirectSource:
    """Return the source of an answer.

    Raises:
        ConfigurationError: it cannot be relayed.
    """
    if isinstance(answer, ToolRun):
        return ToolRunSource(answer, format)
    if isinstance(answer, ChatStream):
        return StreamSource(answer, format)
    raise ConfigurationError(
        f"a {type(answer).__name__} cannot be relayed: give what chat.completions.stream() or "
        "run_tools() returns"
    )
