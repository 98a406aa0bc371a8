"""Prompts of a benchmark: random text of a given length, or the lines of a file."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Self

import msgspec

from konko_async import AsyncKonko, ConfigurationError

__all__ = ["Prompt", "RandomPrompts", "calibrated", "read_dataset"]

# Frequent and short: nearly every tokenizer has one token for each of these, its space included.
_TEXT: Final = (
    "about after again air all also always and animal answer any area ask away back because before "
    "best better between big black blue body book both boy bring build call came can car care "
    "carry city close cold come could country day did different do down each early earth eat end "
    "enough even every eye face fact family far father feel few find fire first five follow food "
    "for four free friend from full game gave get girl give go gold good great green group grow "
    "half hand hard have head hear heart help here high hold home horse hour house how idea keep"
)
_WORDS: Final = _TEXT.split()


class Prompt(msgspec.Struct, frozen=True):
    """One prompt of a benchmark.

    Attributes:
        messages: the conversation.
        input_tokens: how long it is meant to be; None: unknown until the server reports it.
        output_tokens: maximum output tokens; None: those of the plan.
    """

    messages: list[Any]
    input_tokens: int | None = None
    output_tokens: int | None = None


class RandomPrompts(Iterator[Prompt]):
    """Prompts of random words without end; no two are alike, so that no cache has seen them.

    Args:
        input_tokens: of each, as the server counts them.
        seed: the same one gives the same prompts.
        tokens_per_word: of the server's tokenizer; see :func:`calibrated`.
        overhead: tokens that the server adds to a message, such as its chat template.
    """

    def __init__(
        self,
        input_tokens: int,
        *,
        seed: int = 0,
        tokens_per_word: float = 1.0,
        overhead: float = 0.0,
    ) -> None:
        self.input_tokens = input_tokens
        self.tokens_per_word = tokens_per_word
        self.overhead = overhead
        self._source = random.Random(seed)  # noqa: S311 - no secret

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Prompt:
        # What the server adds itself (its chat template) is part of the length.
        words = max(round((self.input_tokens - self.overhead) / self.tokens_per_word), 1)
        return Prompt(_words(self._source, words), self.input_tokens)


def _words(source: random.Random, number: int) -> list[Any]:
    text = " ".join(source.choices(_WORDS, k=number))
    return [{"role": "user", "content": text}]


async def calibrated(
    client: AsyncKonko, model: str, input_tokens: int, *, seed: int = 0
) -> tuple[RandomPrompts, bool]:
    """Make random prompts of so many tokens, as the server's own tokenizer counts.

    Two short calls measure the tokens of a word, and those that the server adds to a prompt.

    Args:
        client: whose server is measured.
        model: its model's id.
        input_tokens: of each prompt.
        seed: of the words.

    Returns:
        The prompts, and whether the server reported tokens; if not, a word counts as one.

    Raises:
        KonkoError: a call failed.
    """
    counted: list[int] = []
    for text in (_TEXT, f"{_TEXT} {_TEXT}"):  # each word as often: as in the mean of all prompts
        # One output token: only the count of the prompt's tokens is wanted.
        answer = await client.chat.completions.create(
            model=model, messages=[{"role": "user", "content": text}], max_tokens=1
        )
        if answer.usage is None or answer.usage.prompt_tokens <= 0:
            return RandomPrompts(input_tokens, seed=seed), False
        counted.append(answer.usage.prompt_tokens)
    # Two lengths give a line: its slope is tokens per word, its intercept what the server adds.
    once, twice = counted
    per_word = (twice - once) / len(_WORDS)
    # A server that reports the same count for both lengths does not count at all.
    if per_word <= 0:
        return RandomPrompts(input_tokens, seed=seed), False
    overhead = max(2.0 * once - twice, 0.0)
    return (
        RandomPrompts(input_tokens, seed=seed, tokens_per_word=per_word, overhead=overhead),
        True,
    )


def read_dataset(path: str | Path) -> list[Prompt]:
    """Read prompts from JSON lines.

    A line is an object with ``prompt``, a text, or ``messages``, a conversation; and with
    optionally ``output_tokens``, the maximum output tokens (vLLM's custom dataset).

    Raises:
        ConfigurationError: the file cannot be read, has no line, or one that is not of that form.
    """
    try:
        # Bytes: str.splitlines() also splits at U+2028 and others, which JSON strings may hold.
        lines = Path(path).read_bytes().splitlines()
    except OSError as error:
        raise ConfigurationError(f"the dataset {path} cannot be read: {error.strerror}") from None
    found = [_prompt(line, f"{path}:{at}") for at, line in enumerate(lines, 1) if line.strip()]
    if not found:
        raise ConfigurationError(f"the dataset {path} has no lines")
    return found


def _prompt(line: bytes, where: str) -> Prompt:
    try:
        row = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise ConfigurationError(f"{where}: not JSON") from None
    row = row if isinstance(row, dict) else {}
    text, messages, length = row.get("prompt"), row.get("messages"), row.get("output_tokens")
    if isinstance(text, str) and messages is None:
        messages = [{"role": "user", "content": text}]
    if not (isinstance(messages, list) and messages and all(isinstance(m, dict) for m in messages)):
        raise ConfigurationError(f'{where}: needs "prompt", a text, or "messages", a conversation')
    if length is not None and (type(length) is not int or length < 1):
        raise ConfigurationError(f'{where}: "output_tokens" must be a number of at least 1')
    return Prompt(messages, None, length)
