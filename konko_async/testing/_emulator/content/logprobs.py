"""Log probabilities that look like a model's; a pure function of the tokens."""

from typing import Any
from zlib import crc32

from konko_async.testing._emulator.content.text import WORDS


def chat_logprobs(tokens: list[str], top: int) -> dict[str, Any]:
    """The `logprobs` of a chat choice or chunk."""
    return {"content": [_entry(token, top) for token in tokens], "refusal": None}


def completion_logprobs(tokens: list[str], top: int, offset: int = 0) -> dict[str, Any]:
    """The `logprobs` of a text completion choice or chunk; `offset` characters came before it."""
    offsets = []
    for token in tokens:
        offsets.append(offset)
        offset += len(token)
    return {
        "tokens": tokens,
        "token_logprobs": [_logprob(token) for token in tokens],
        "top_logprobs": [dict(_alternatives(token, top)) for token in tokens] if top else None,
        "text_offset": offsets,
    }


def _logprob(token: str) -> float:
    # From the token alone: streamed or whole, and in any chunk, it has the same value. 700 at most
    # keeps it above -0.7, a likely token; alternatives are one and more below.
    return -(crc32(token.encode()) % 700) / 1000


def _alternatives(token: str, top: int) -> list[tuple[str, float]]:
    """The likeliest tokens in the place of this one: itself first."""
    first = crc32(token.encode())
    words = [f" {WORDS[(first + step) % len(WORDS)]}" for step in range(top + 1)]
    others = [word for word in words if word != token][: top - 1]
    likeliest = _logprob(token)
    return [(token, likeliest), *((w, likeliest - 1 - rank) for rank, w in enumerate(others))]


def _entry(token: str, top: int) -> dict[str, Any]:
    alternatives = _alternatives(token, top) if top else []
    return {
        **_one(token, _logprob(token)),
        "top_logprobs": [_one(word, logprob) for word, logprob in alternatives],
    }


def _one(token: str, logprob: float) -> dict[str, Any]:
    return {"token": token, "logprob": logprob, "bytes": list(token.encode())}
