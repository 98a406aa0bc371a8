"""What the load server sends: answers rendered beforehand, and what a client must make of them.

The format of the files is described in server/loadserver.c.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

MODEL = "codellama/codellama-13b-instruct"
WORDS = (
    " the", " empire", " had", " stood", " for", " twelve", " thousand", " years", ",", " and",
    " Seldon", " saw", " its", " fall", " in", " equations", ".", " He", " built", " a",
    " foundation", " at", " the", " edge", " of", " galaxy", ";", " é", "\n", " psycho", "history",
)  # fmt: skip
STAMP = 38  # digits of two times
HEAD = (
    "HTTP/1.1 200 OK\r\nDate: Mon, 01 Jan 2024 00:00:00 GMT\r\nServer: uvicorn\r\n"
    "Content-Type: {kind}\r\nX-Request-Id: req_0123456789abcdef\r\n{rest}\r\n\r\n"
)
BUSY = b'{"error": {"message": "busy", "type": "overloaded", "code": "busy"}}'


@dataclass(frozen=True)
class Scene:
    """One kind of answer.

    Attributes:
        chunks: content chunks of a stream; 0: a whole answer.
        size: bytes of an event of a stream, about; bytes of a whole answer's text.
        write: events in a write (and in one HTTP chunk).
        pace: tokens a second of one stream; 0: as fast as they are taken.
        delay: seconds before the first token.
        stamp: whether the first token is the time of its sending and that of the request's coming.
        fail_gap: n: all but every nth request are refused, with a wait of 1 ms.
        gate: streams wait after their first event until so many have come so far.
    """

    chunks: int = 0
    size: int = 280
    write: int = 1
    pace: float = 0
    delay: float = 0
    stamp: bool = False
    fail_gap: int = 0
    gate: int = 0

    @property
    def name(self) -> str:
        """The script's file name, and the first segment of the path."""
        text = json.dumps(asdict(self), sort_keys=True)
        return f"scene-{hashlib.sha256(text.encode()).hexdigest()[:12]}"

    def expected(self) -> Expected:
        """Return what a client must have read of each answer."""
        text = "".join(self.words()) if self.chunks else whole_text(self.size)
        sha256 = None if self.stamp else hashlib.sha256(text.encode()).hexdigest()
        body = 0 if self.chunks else len(whole(self.size).partition(b"\r\n\r\n")[2])
        return Expected(self.chunks + 2, len(text), sha256, body)

    def words(self) -> list[str]:
        """Return the text of each content chunk."""
        # An event of the usual size carries a word; a bigger one carries many.
        room = self.size - len(event("", self.size))
        words = [
            WORDS[at % len(WORDS)] if room <= 40 else (WORDS[at % len(WORDS)] * room)[:room]
            for at in range(self.chunks)
        ]
        if self.stamp:
            words[0] = "0" * STAMP
        return words

    def write_to(self, folder: Path) -> None:
        """Write the script of the load server, and that of its refusals."""
        pieces = self._stream() if self.chunks else [whole(self.size)]
        gap = round(1e9 * self.write / self.pace) if self.pace else 0
        at = pieces[1].index(b"0" * STAMP) if self.stamp else -1
        head = [gap, round(self.delay * 1e9), at, len(pieces), self.fail_gap, self.gate]
        _save(folder / self.name, head, pieces)
        if self.fail_gap:
            extra = f"Retry-After-Ms: 1\r\nContent-Length: {len(BUSY)}"
            refusal = HEAD.format(kind="application/json", rest=extra).encode() + BUSY
            refusal = refusal.replace(b"200 OK", b"503 Service Unavailable", 1)
            _save(folder / f"{self.name}.busy", [0, 0, -1, 1, 0, 0], [refusal])

    def _stream(self) -> list[bytes]:
        first = {"role": "assistant", "content": ""}
        events = [event(word, self.size) for word in self.words()]
        if not self.stamp:  # the first token is what is timed: nothing goes before it
            events.insert(0, event(first, self.size))
        else:
            events.append(event(first, self.size))
        events.append(event({}, self.size, "stop"))
        writes = [
            b"".join(events[at : at + self.write]) for at in range(0, len(events), self.write)
        ]
        writes[-1] += b"data: [DONE]\n\n"
        framed = [b"%x\r\n%b\r\n" % (len(data), data) for data in writes]
        framed[-1] += b"0\r\n\r\n"
        head = HEAD.format(
            kind="text/event-stream; charset=utf-8", rest="Transfer-Encoding: chunked"
        )
        return [head.encode(), *framed]


@dataclass(frozen=True)
class Expected:
    """What must have come of each answer: chunks in all, the text, bytes of a whole answer."""

    chunks: int
    length: int
    sha256: str | None
    bytes: int


def event(delta: str | dict[str, str], size: int, finish: str | None = None) -> bytes:
    """Render one event as servers do; small ones leave out what may be left out."""
    chunk = {
        "id": "chatcmpl-8f2d6c1be0574a9c9f3e2a1b7c6d5e4f",
        "object": "chat.completion.chunk",
        "created": 1704067200,
        "model": MODEL,
        "system_fingerprint": "fp_44709d6fcb",
        "choices": [{
            "index": 0,
            "delta": {"content": delta} if isinstance(delta, str) else delta,
            "logprobs": None,
            "finish_reason": finish,
        }],
    }  # fmt: skip
    if size < 200:
        chunk = {"id": "c1", "model": "m", "choices": chunk["choices"]}
        del chunk["choices"][0]["logprobs"], chunk["choices"][0]["finish_reason"]
        if finish:
            chunk["choices"][0]["finish_reason"] = finish
    text = json.dumps(chunk, ensure_ascii=False, separators=(",", ":"))
    return b"data: " + text.encode() + b"\n\n"


def whole_text(size: int) -> str:
    """Return the text of a whole answer of about that many bytes."""
    return ("".join(WORDS) * (size // len("".join(WORDS)) + 1))[:size]


def whole(size: int) -> bytes:
    """Render a whole answer."""
    answer = {
        "id": "chatcmpl-8f2d6c1be0574a9c9f3e2a1b7c6d5e4f",
        "object": "chat.completion",
        "created": 1704067200,
        "model": MODEL,
        "choices": [{
            "index": 0,
            "message": {"role": "assistant", "content": whole_text(size)},
            "logprobs": None,
            "finish_reason": "stop",
        }],
        "usage": {"prompt_tokens": 60, "completion_tokens": 250, "total_tokens": 310},
    }  # fmt: skip
    body = json.dumps(answer, ensure_ascii=False).encode()
    head = HEAD.format(kind="application/json", rest=f"Content-Length: {len(body)}")
    return head.encode() + body


def _save(path: Path, head: list[int], pieces: list[bytes]) -> None:
    lines = [" ".join(map(str, head)), " ".join(str(len(piece)) for piece in pieces)]
    path.write_bytes("\n".join(lines).encode() + b"\n" + b"".join(pieces))
