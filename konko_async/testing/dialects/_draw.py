"""Draws random streams from a seed: a server's dialect, an answer, and a cut into reads."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Final

import msgspec

from konko_async.testing.dialects._dialect import DONE, Chunk, ServerDialect, halved
from konko_async.testing.dialects._errors import ERROR_SHAPES
from konko_async.testing.dialects._meaning import Meaning, MeantCall, MeantChoice

__all__ = ["DrawnStream", "cut", "draw", "shrunk"]

# Texts that look like framing, JSON or an error: a client that searches the raw bytes for any of
# them, instead of parsing, is fooled.
_WORDS: Final = (
    "Hello", " there", ", ", "\n", "\n\n", "\r\n", "data: ", "[DONE]", "data: [DONE]\n\n",
    '"', "\\",
    "\\n", "{", "}", '{"error": "no"}', "error", ": ", "null", "ä", "中文", "🙂", "\u2028",
    "\x7f", "\t",
    "0", "</think>", " ",
)  # fmt: skip
_HEAD: Final = {
    "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1700000000, "model": "a/b",
}  # fmt: skip
_REASON: Final = "the model ran out of memory ({})"
_ERRORS_OF_BODIES: Final = (
    "error object", "error text", "object error", "error_code", "base_resp", "errors", "success",
    "detail", "detail text",
)  # fmt: skip
_FINISHES: Final = ("stop", "length", "content_filter")


@dataclass(frozen=True, slots=True)
class DrawnStream:
    """A stream that was drawn.

    Attributes:
        seed: What it was drawn from.
        dialect: How the server writes.
        meaning: What it means to say.
        choices: How many choices were asked for: `n` of the request.
        reads: The body, as the reads of a client bring it.
        error_shape: The shape of the error that it carries; `None` if it carries none.
        complete: Whether the body comes to its end; else the connection breaks after it.
        pauses: Before which reads, by number, the server is silent for how many seconds; never
            longer than 40.
        asked_for_stream: Whether the request says `"stream": true`.
        content_type: What the server says that the body is.
        words: The most words of a text.
    """

    seed: int
    dialect: ServerDialect
    meaning: Meaning
    choices: int
    reads: tuple[bytes, ...] = ()
    error_shape: str | None = None
    complete: bool = True
    pauses: tuple[tuple[int, float], ...] = ()
    asked_for_stream: bool = True
    content_type: str = "text/event-stream"
    words: int = 20

    @property
    def body(self) -> bytes:
        """All of the body."""
        return b"".join(self.reads)


def draw(seed: int, dialect: ServerDialect | None = None, *, words: int = 20) -> DrawnStream:
    """Draw a stream.

    Args:
        seed: The same seed draws the same stream. With another dialect it still draws the same
            answer, and the same fault if there is one.
        dialect: How the server writes; `None` draws that as well.
        words: The most words of a text.
    """
    # Each part has numbers of its own: a change of one leaves the others as they are.
    ways, words_rng, order, noise, edges, luck, kind = (
        random.Random(seed * 8 + number) for number in range(7)
    )
    dialect = dialect or _dialect(ways)
    count = 1 if words_rng.random() < 0.85 else words_rng.randint(2, 3)
    choices = tuple(_choice(words_rng, words) for _ in range(count))
    chunks = _chunks(order, dialect, choices)
    usage = (words_rng.randint(1, 50), _answer_tokens(words_rng, dialect, chunks))
    meaning = Meaning(_as_told(choices, dialect), None if dialect.usage == "none" else usage)
    drawn = DrawnStream(seed, dialect, meaning, count, words=words)
    # Drawn in any case, used or not: the numbers that follow stay the same for a seed.
    fault = luck.random()
    if kind.random() < 0.1:
        drawn = replace(drawn, asked_for_stream=False)
        if kind.random() < 0.8:
            body = dialect.write_whole(_whole(choices, usage))
            return _in_one_piece(drawn, msgspec.json.encode(body), fault, luck)
        fault = 1.0  # an event stream all the same, whole and without an error
    events = dialect.write(chunks, usage, noise)
    if fault < 0.15:
        drawn = _with_error(drawn, events, luck)
    elif fault < 0.3:
        drawn = _broken(drawn, events, luck)
    else:
        drawn = replace(drawn, reads=cut(b"".join(events), edges))
    if drawn.reads and kind.random() < 0.1:
        pause = kind.randrange(len(drawn.reads)), kind.choice((0.5, 7.0, 40.0))
        drawn = replace(drawn, pauses=(pause,))
    return drawn


def cut(body: bytes, rng: random.Random) -> tuple[bytes, ...]:
    """Cut bytes into reads: into few or many, in the middle of events, of lines, of characters."""
    style = rng.random()
    # Whole, at event boundaries, or anywhere: a reader may have a code path of its own for each.
    if style < 0.2 or len(body) < 2:
        return (body,)
    if style < 0.4:
        parts = body.split(b"\n\n")
        return tuple(p for p in [*(part + b"\n\n" for part in parts[:-1]), parts[-1]] if p)
    # Single bytes for short bodies only, or a run over thousands of seeds would take too long.
    size = rng.choice((1, 3, 20, 200, 600)) if len(body) < 400 else rng.choice((30, 200, 600))
    places = {rng.randint(1, len(body) - 1) for _ in range(max(1, len(body) // size))}
    edges = [0, *sorted(places), len(body)]
    return tuple(body[start:end] for start, end in pairwise(edges))


def shrunk(drawn: DrawnStream, fails: Any) -> DrawnStream:
    """Return a smaller stream that fails as well.

    Args:
        drawn: One that fails.
        fails: Whether a stream fails.
    """
    best = drawn
    plain = ServerDialect(name=f"{drawn.dialect.name} of seed {drawn.seed}")
    changed = True
    while changed:
        changed = False
        for smaller in _smaller(best, plain):
            # Greedy: the first smaller stream that still fails is the next to be shrunk, until none
            # does.
            if smaller != best and fails(smaller):
                best, changed = smaller, True
                break
    return best


def _smaller(drawn: DrawnStream, plain: ServerDialect) -> Any:
    """Yield streams that are a little simpler."""
    for words in (1, 2, max(1, drawn.words // 2)):
        if words < drawn.words:
            yield draw(drawn.seed, drawn.dialect, words=words)
    for name in ServerDialect.__slots__:  # one property of the dialect as OpenAI has it
        if name != "name" and getattr(drawn.dialect, name) != getattr(plain, name):
            usual = replace(drawn.dialect, **{name: getattr(plain, name)})
            yield draw(drawn.seed, usual, words=drawn.words)
    reads = drawn.reads
    if len(reads) > 1:
        yield replace(drawn, reads=(b"".join(reads),))
        half = len(reads) // 2
        yield replace(drawn, reads=(b"".join(reads[:half]), *reads[half:]))
        yield replace(drawn, reads=(*reads[:half], b"".join(reads[half:])))


# -- dialects --------------------------------------------------------------------------------------


def _dialect(rng: random.Random) -> ServerDialect:
    """Draw how a server writes; most properties of a server are the usual ones."""

    def one(usual: Any, *others: Any) -> Any:
        return rng.choice(others) if rng.random() < 0.25 else usual

    index = one("right", "zero", "none")
    calls = one("pieces", "whole")
    identity = one("first", "changing", "empty", "none")
    if index == "none" and identity == "changing":
        identity = "first"  # nothing would tell the pieces of two calls apart
    # Without an index, a name is what tells a client that the next call begins.
    names: Any = "first" if index == "none" else one("first", "each")
    gap, done = one(True, False), one("event", "line", "none")
    return ServerDialect(
        name="drawn",
        delta=one("delta", "message", "text"),
        index=one("zero", "one", "counts"),
        role=one("first", "each", "none"),
        # One of the two has to say that the answer is whole.
        finish="last" if done == "none" else one("last", "each", "none"),
        empty_content=one("none", "null", "text"),
        reasoning=one("reasoning_content", "reasoning", "both"),
        tools=calls,
        tool_index=index,
        tool_id=identity,
        tool_name=names,
        signature=one(False, True),
        usage=one(
            "own chunk", "last chunk", "x_groq", "choice", "split", "each", "increments", "none"
        ),
        extra=one({}, {"timings": {"predicted_ms": 1.5}}, {"provider": "Example", "x": None}),
        extra_delta=one({}, {"annotations": [], "audio": None}, {"refusal": None}, {"x": ""}),
        padding=one(False, True),
        ascii=one(False, True),
        halves=one(False, True),
        newline=one("\n", "\r\n", "\r"),
        gap=gap,
        space=one(True, False),
        bom=one(False, True),
        comment=one(None, ": keep-alive", ":"),
        event=one(None, ("ping", '{"type": "ping"}'), ("progress", "50%"), ("ping", ""))
        if gap
        else None,
        done=done,
    )  # fmt: skip


def _as_told(choices: tuple[MeantChoice, ...], dialect: ServerDialect) -> tuple[MeantChoice, ...]:
    """Return the choices as a client can know them: without what the dialect does not send."""
    if dialect.finish == "none":
        choices = tuple(replace(choice, finish_reason=None) for choice in choices)
    if dialect.signature:
        choices = tuple(
            replace(
                choice,
                calls=tuple(replace(c, signature=f"sealed-{c.name}") for c in choice.calls),
            )
            for choice in choices
        )
    return choices


def _answer_tokens(rng: random.Random, dialect: ServerDialect, chunks: list[Chunk]) -> int:
    count = rng.randint(1, 60)
    if dialect.usage != "increments":
        return count
    # One token for each chunk with text, so that the increments add up to the total.
    telling = sum(bool(c["delta"].get("content")) for chunk in chunks for c in chunk["choices"])
    return max(telling, 1)


# -- answers ---------------------------------------------------------------------------------------


def _text(rng: random.Random, most: int) -> str:
    return "".join(rng.choices(_WORDS, k=rng.randint(1, most)))


def _choice(rng: random.Random, words: int) -> MeantChoice:
    kind, few = rng.random(), (words + 1) // 2
    if kind < 0.1:
        return MeantChoice(transcript=_text(rng, few), sound="QUJD" * rng.randint(1, 6))
    reasoning = _text(rng, few) if rng.random() < 0.25 else ""
    details = ("Let me think.", "b3BhcXVl") if rng.random() < 0.05 else ()
    if kind < 0.35:
        calls = tuple(_call(rng) for _ in range(rng.randint(1, 3)))
        text = _text(rng, few) if rng.random() < 0.3 else ""
        return MeantChoice(
            text, reasoning, calls=calls, details=details, finish_reason="tool_calls"
        )
    text = _text(rng, words)
    return MeantChoice(text, reasoning, details=details, finish_reason=rng.choice(_FINISHES))


def _call(rng: random.Random) -> MeantCall:
    given: dict[str, Any] = {
        rng.choice("abc"): rng.choice(('"}{', "x", 1, [], {"a": "\\"})) for _ in range(2)
    }
    return MeantCall(rng.choice(("look", "find", "look_up")), json.dumps(given, ensure_ascii=False))


def _pieces(rng: random.Random, text: str, *, halves: bool = False) -> list[str]:
    """Cut a text into pieces, some of them empty."""
    # Places may be equal or at an end: servers send empty pieces, too.
    places = sorted(rng.randint(0, len(text)) for _ in range(rng.randint(0, 5)))
    edges = [0, *places, len(text)]
    made = [text[start:end] for start, end in pairwise(edges)]
    if halves:
        for place, piece in enumerate(made):
            pair = halved(piece)
            if pair is not None:
                made[place : place + 1] = pair
                break
    return made


def _deltas(
    rng: random.Random, dialect: ServerDialect, choice: MeantChoice
) -> list[dict[str, Any]]:
    """Return a choice as deltas, in order."""
    made: list[dict[str, Any]] = [{"content": ""}] if rng.random() < 0.5 else []
    if choice.details:
        words, sealed = choice.details
        made += [
            {"reasoning_details": [{"type": "text", "index": 0, "text": piece}]}
            for piece in _pieces(rng, words)
        ]
        made.append({"reasoning_details": [{"type": "sealed", "index": 1, "data": sealed}]})
    if choice.reasoning:
        made += [{"reasoning_content": piece} for piece in _pieces(rng, choice.reasoning)]
    if choice.text:
        cuts = _pieces(rng, choice.text, halves=dialect.halves)
        made += [{"content": piece} for piece in cuts]
    if choice.transcript:
        for number, piece in enumerate(_pieces(rng, choice.transcript)):
            made.append(
                {
                    "audio": {"id": "audio_1", "transcript": piece}
                    if not number
                    else {"transcript": piece}
                }
            )
        made += [{"audio": {"data": piece}} for piece in _pieces(rng, choice.sound)]
        made.append({"audio": {"expires_at": 1700000000}})
    made += _call_deltas(rng, dialect, choice.calls)
    made = made or [{"content": ""}]
    made[0] = {"role": "assistant", **made[0]}
    return made


def _call_deltas(
    rng: random.Random, dialect: ServerDialect, calls: tuple[MeantCall, ...]
) -> list[dict[str, Any]]:
    queues = []
    for number, call in enumerate(calls):
        pieces = []
        cuts = _pieces(rng, call.arguments)
        if dialect.tool_id == "changing" and dialect.tool_name == "each":
            # A name, another id and no arguments: that could as well be the next call.
            cuts = [part for part in cuts if part]
        for place, arguments in enumerate(cuts):
            function = {"name": call.name, "arguments": arguments}
            piece: dict[str, Any] = {"index": number, "function": function}
            if not place:
                piece |= {"id": f"call_{number}", "type": "function"}
            pieces.append(piece)
        queues.append(pieces)
    alternate = rng.random() < 0.3
    if alternate and dialect.tells_calls_apart and dialect.tools == "pieces":
        # Shuffled by call: the pieces of each stay in order, and only the calls alternate.
        order = [number for number, queue in enumerate(queues) for _ in queue]
        rng.shuffle(order)
        merged = [queues[number].pop(0) for number in order]
    else:
        merged = [piece for queue in queues for piece in queue]
    if merged and rng.random() < 0.2:
        return [{"tool_calls": merged}]
    return [{"tool_calls": [piece]} for piece in merged]


def _chunks(
    rng: random.Random, dialect: ServerDialect, choices: tuple[MeantChoice, ...]
) -> list[Chunk]:
    """Return an answer as OpenAI would stream it; the choices in any order."""
    queues = []
    for index, choice in enumerate(choices):
        made: list[dict[str, Any]] = [
            {"index": index, "delta": delta, "finish_reason": None}
            for delta in _deltas(rng, dialect, choice)
        ]
        if rng.random() < 0.5:
            made.append({"index": index, "delta": {}, "finish_reason": None})
        made[-1]["finish_reason"] = choice.finish_reason
        queues.append(made)
    # Choices alternate at random, each with its chunks in order, as servers generate them side by
    # side.
    order = [index for index, queue in enumerate(queues) for _ in queue]
    rng.shuffle(order)
    return [{**_HEAD, "choices": [queues[index].pop(0)]} for index in order]


def _whole(choices: tuple[MeantChoice, ...], usage: tuple[int, int]) -> dict[str, Any]:
    """Return an answer as OpenAI sends it unstreamed."""
    prompt, answer = usage
    return {
        **_HEAD,
        "object": "chat.completion",
        "choices": [
            {"index": index, "message": _message(choice), "finish_reason": choice.finish_reason}
            for index, choice in enumerate(choices)
        ],
        "usage": {
            "prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": prompt + answer,
        },
    }  # fmt: skip


def _message(choice: MeantChoice) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": choice.text or None}
    if choice.reasoning:
        message["reasoning_content"] = choice.reasoning
    if choice.transcript:
        message["audio"] = {"id": "a", "transcript": choice.transcript, "data": choice.sound}
    if choice.details:
        words, sealed = choice.details
        message["reasoning_details"] = [
            {"type": "text", "index": 0, "text": words},
            {"type": "sealed", "index": 1, "data": sealed},
        ]
    if choice.calls:
        message["tool_calls"] = [
            {
                "id": f"call_{number}",
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for number, call in enumerate(choice.calls)
        ]
    return message


# -- what goes wrong -------------------------------------------------------------------------------


def _with_error(drawn: DrawnStream, events: list[bytes], rng: random.Random) -> DrawnStream:
    """Put an error into a stream, in any shape and at any place before its end."""
    shape = rng.choice(tuple(ERROR_SHAPES))
    reason = _REASON.format(rng.randint(100, 999))
    end = 1 if drawn.dialect.done != "none" else 0
    # Not after `[DONE]`: a client may have stopped reading there.
    place = rng.randint(0, len(events) - end)
    stop = place if rng.random() < 0.5 else len(events) - end
    told = ERROR_SHAPES[shape](reason)
    after = events[stop:] if rng.random() < 0.5 else []
    if place == 0 and drawn.dialect.bom:
        told = b"\xef\xbb\xbf" + told
    before = events[:place]
    if before and not drawn.dialect.gap:
        before = [*before, b"\n"]  # errors stand alone
    body = b"".join([*before, told, *events[place:stop], *after])
    meaning = replace(drawn.meaning, error=reason)
    return replace(drawn, reads=cut(body, rng), meaning=meaning, error_shape=shape)


def _in_one_piece(drawn: DrawnStream, body: bytes, fault: float, rng: random.Random) -> DrawnStream:
    """Return an answer that is not streamed, with or without a fault."""
    drawn = replace(drawn, content_type="application/json")
    if fault < 0.15:
        shape = rng.choice(_ERRORS_OF_BODIES)
        reason = _REASON.format(rng.randint(100, 999))
        body = ERROR_SHAPES[shape](reason).removeprefix(b"data: ")
        meaning = replace(drawn.meaning, error=reason)
        return replace(drawn, reads=cut(body, rng), meaning=meaning, error_shape=shape)
    if fault < 0.3:
        end = rng.randint(0, len(body) - 1)
        meaning = replace(drawn.meaning, broken=True)
        reads = cut(body[:end], rng) if end else ()
        return replace(drawn, reads=reads, meaning=meaning, complete=False)
    if rng.random() < 0.2:
        # A `[DONE]` behind a whole answer, which a client must not take for a part of the JSON.
        body += DONE if rng.random() < 0.5 else b"\n\n" + DONE
    return replace(drawn, reads=cut(body, rng))


def _broken(drawn: DrawnStream, events: list[bytes], rng: random.Random) -> DrawnStream:
    """Break the connection somewhere in a stream."""
    body = b"".join(events)
    end = rng.randint(0, len(body) - 1)
    # Cut again within the first event: a cut that no client could notice is no test.
    if drawn.dialect.finish == "each" and _looks_whole(events, end):
        end = rng.randint(0, len(events[0]) - 1)
    return replace(
        drawn,
        reads=cut(body[:end], rng) if end else (),
        meaning=replace(drawn.meaning, broken=True),
        complete=False,
    )


def _looks_whole(events: list[bytes], end: int) -> bool:
    """Whether a stream cut here looks complete, so that no client could notice the cut.

    Where each chunk says that the answer is finished, text after the first one that does shows
    that this means nothing. Until then a server that said so once may have meant it.
    """
    come, telling = 0, 0
    for event in events:
        come += len(event)
        if come > end:
            break
        telling += _says(event)
    return telling < 2


def _says(event: bytes) -> bool:
    """Whether an event brings a piece of the answer."""
    # `_HEAD` begins with the id, so this is the chunk, and not an event before it.
    at = event.find(b'{"id"')
    if at < 0:
        return False
    for choice in json.loads(event[at:])["choices"]:
        delta = choice.get("delta") or choice.get("message") or {"content": choice.get("text")}
        if any(delta[name] for name in delta.keys() - {"role", "annotations", "x", "refusal"}):
            return True
    return False
