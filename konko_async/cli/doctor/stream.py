"""How the server streams: first token, pace, end, and whether something holds events back.

Read without the client, which hides what is looked at here: bytes as they arrive, and ``[DONE]``.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp

from konko_async.cli._number_format import duration, plural
from konko_async.cli._output import redact
from konko_async.cli.doctor.finding import Finding, failed, fine, warned
from konko_async.errors import ResponseDecodeError
from konko_async.sse import ServerSentEvent, SSEDecoder

__all__ = ["check_stream"]

_TOKENS: Final = 48
_LARGEST: Final = 1024 * 1024  # bytes of one event
# Chunks that come together prove nothing if there are few, or if the whole answer was quick.
_ENOUGH: Final = 10
_SLOW: Final = 0.5  # seconds until the first token
_TOGETHER: Final = 0.05  # of that time
_SHOWN: Final = 200  # characters of an error
_ON_THE_WAY: Final = ("via", "server", "cf-ray", "x-cache", "x-served-by", "content-encoding")


@dataclass(slots=True)
class _Seen:
    """What has come of a stream.

    Attributes:
        first: seconds until the first delta.
        last: seconds until the last delta.
        chunks: with a delta.
        reads: in which they came.
        finished: whether there was a finish reason.
        done: whether there was ``[DONE]``.
        usage: whether there was usage.
        error: what the server said instead.
    """

    first: float | None = None
    last: float = 0.0
    chunks: int = 0
    reads: int = 0
    finished: bool = False
    done: bool = False
    usage: bool = False
    error: str | None = None
    headers: dict[str, str] = field(default_factory=dict)

    def take(self, events: list[ServerSentEvent], now: float) -> None:
        """Take in what one read brought."""
        before = self.chunks
        for event in events:
            if event.data.strip() == "[DONE]":
                self.done = True
                continue
            try:
                self._take_chunk(json.loads(event.data), now)
            except (ValueError, AttributeError, TypeError):
                self.error = self.error or f"an event that is not a chunk: {event.data[:_SHOWN]}"
        self.reads += self.chunks > before

    def _take_chunk(self, chunk: dict[str, Any], now: float) -> None:
        if chunk.get("error"):
            self.error = json.dumps(chunk["error"])[:_SHOWN]
            return
        self.usage = self.usage or bool(chunk.get("usage"))
        for choice in chunk.get("choices") or ():
            delta = choice.get("delta") or {}
            if any(delta.get(name) for name in ("content", "reasoning_content", "reasoning")):
                self.first = now if self.first is None else self.first
                self.last = now
                self.chunks += 1
            self.finished = self.finished or bool(choice.get("finish_reason"))


async def check_stream(base_url: str, key: str, model: str, *, seconds: float) -> list[Finding]:
    """Ask for a streamed answer, and look at how it comes."""
    asked = {
        "model": model,
        "messages": [{"role": "user", "content": "Count from 1 to 20."}],
        "max_tokens": _TOKENS,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    headers = {"Authorization": f"Bearer {key}", "Accept": "text/event-stream"}
    seen = _Seen()
    limits = aiohttp.ClientTimeout(total=seconds)
    try:
        async with (
            aiohttp.ClientSession(timeout=limits) as session,
            session.post(
                f"{base_url}/chat/completions", json=asked, headers=headers, allow_redirects=False
            ) as response,
        ):
            seen.headers = {name.lower(): value for name, value in response.headers.items()}
            if response.status != 200:  # noqa: PLR2004 - of HTTP
                text = (await response.text(errors="replace"))[:_SHOWN]
                said = redact(" ".join(text.split()))
                advice = "this server may not stream, or not with stream_options"
                return [failed("stream", f"status {response.status}: {said}", advice)]
            await _read(response, seen)
    except TimeoutError:
        return [_silent(seen, seconds)]
    except (aiohttp.ClientError, ResponseDecodeError) as error:
        return [_cut(seen, error)]
    return _judged(seen)


async def _read(response: aiohttp.ClientResponse, seen: _Seen) -> None:
    decoder = SSEDecoder(max_event_bytes=_LARGEST)
    now = asyncio.get_running_loop().time
    began = now()
    async for data in response.content.iter_any():
        seen.take(decoder.feed(data), now() - began)
    seen.take(decoder.flush(), now() - began)


def _silent(seen: _Seen, seconds: float) -> Finding:
    if seen.first is None:
        return failed(
            "stream",
            f"no token within {seconds:g} s",
            "the server queues or hangs, or a proxy holds the answer back; try a longer --timeout",
        )
    return failed(
        "stream",
        f"the stream stopped after {plural(seen.chunks, 'chunk')} and did not end within "
        f"{seconds:g} s",
        "the server hangs in the middle of answers: Timeout(idle=...) ends such calls",
    )


def _cut(seen: _Seen, error: Exception) -> Finding:
    return failed(
        "stream",
        f"the connection broke after {plural(seen.chunks, 'chunk')} ({type(error).__name__})",
        "a proxy, a load balancer's time limit, or the server ends it; retries cannot mend that",
        chunks=seen.chunks,
    )


def _judged(seen: _Seen) -> list[Finding]:
    """Return the findings on a stream that came to its end."""
    kind = seen.headers.get("content-type", "")
    if seen.error:
        said = redact(seen.error)
        return [failed("stream", f"an error inside the stream: {said}", "see what it says")]
    if "text/event-stream" not in kind:
        return [
            failed(
                "stream",
                f"the answer is {kind or 'of no type'}, and no event stream",
                "the server or a proxy ignores stream=true; whole answers may work",
                content_type=kind,
            )
        ]
    if seen.first is None or not seen.finished:
        found = "it has no text" if seen.first is None else "it ends without a finish reason"
        advice = "answers of this server can be cut without notice; look at a proxy between"
        return [failed("stream", found, advice, chunks=seen.chunks)]
    span = seen.last - seen.first
    pace = (seen.chunks - 1) / span if span > 0 and seen.chunks > 1 else None
    details = {
        "time_to_first_token": seen.first,
        "chunks": seen.chunks,
        "reads": seen.reads,
        "chunks_per_second": pace,
        "done": seen.done,
        "usage": seen.usage,
    }
    told = f"first token after {duration(seen.first)}, {plural(seen.chunks, 'chunk')}"
    told += f", {pace:.0f} a second" if pace else ""
    return [fine("stream", told, **details), *_remarks(seen, span)]


def _remarks(seen: _Seen, span: float) -> list[Finding]:
    found = []
    if not seen.done:
        advice = "nothing breaks; clients that wait for it do"
        found.append(warned("stream_end", "there is no [DONE] at the end", advice))
    if not seen.usage:
        advice = "tokens and costs of streams are estimates with this server"
        found.append(warned("stream_usage", "the stream reports no usage", advice))
    packed = seen.headers.get("content-encoding", "identity")
    if packed != "identity":
        advice = "switch compression off for text/event-stream: it holds events back"
        found.append(warned("stream_encoding", f"the stream is compressed ({packed})", advice))
    assert seen.first is not None  # noqa: S101 - _judged() has looked
    if seen.chunks >= _ENOUGH and seen.first >= _SLOW and span < seen.first * _TOGETHER:
        way = [f"{name}: {seen.headers[name]}" for name in _ON_THE_WAY if name in seen.headers]
        found.append(
            warned(
                "stream_buffering",
                f"all {seen.chunks} chunks came within {duration(span)}, after "
                f"{duration(seen.first)} of silence: something holds the stream back"
                + (f" ({', '.join(way)})" if way else ""),
                "in nginx: proxy_buffering off; elsewhere: no buffering, no compression of "
                "text/event-stream",
            )
        )
    return found
