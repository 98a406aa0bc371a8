"""Rewrites an answer as a server of another dialect writes it."""

import random

import msgspec

from konko_async.testing._emulator.reply import DONE, Reply, decode_event
from konko_async.testing.dialects import ServerDialect


def speak(dialect: ServerDialect, reply: Reply, rng: random.Random) -> None:
    """Rewrite a chat answer in place; its meaning stays the same.

    Args:
        dialect: How it is to be written.
        reply: As OpenAI writes it.
        rng: What is random about it.
    """
    if not reply.sse:
        body = dialect.write_whole(msgspec.json.decode(reply.body))
        reply.steps[:] = [msgspec.json.encode(body)]
        return
    reply.make()
    # The dialect writes the end of the stream itself, and the usage chunk in its own way.
    steps = [step for step in reply.steps if isinstance(step, bytes) and step != DONE]
    chunks = [chunk for chunk in map(decode_event, steps) if chunk["choices"]]
    # OpenAI reports the usage on request only; servers that put it elsewhere always report it.
    asked = len(chunks) < len(steps)
    usage = None
    if reply.usage is not None and (asked or dialect.usage != "own chunk"):
        usage = reply.usage["prompt_tokens"], reply.usage["completion_tokens"]
    for chunk in chunks:
        chunk.pop("usage", None)
    before = len(reply.steps)
    reply.steps[:] = dialect.write(chunks, usage, rng)
    # A dialect adds or drops events near the end mostly (usage, `[DONE]`); those leave together.
    reply.tail = max(reply.tail + len(reply.steps) - before, 1)
