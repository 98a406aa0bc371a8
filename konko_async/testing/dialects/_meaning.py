"""Describes what an answer means in any dialect, and checks whether a client understood it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

__all__ = ["Meaning", "MeantCall", "MeantChoice", "understood"]


@dataclass(frozen=True, slots=True)
class MeantCall:
    """A tool call: the function's name, its arguments as JSON, and the thought signature."""

    name: str
    arguments: str
    signature: str = ""


@dataclass(frozen=True, slots=True)
class MeantChoice:
    """One choice of an answer.

    Attributes:
        text: Its text.
        reasoning: What the model thought.
        transcript: Of a spoken answer.
        sound: The sound of a spoken answer, in base64.
        calls: Its tool calls, in order.
        details: `reasoning_details`: the texts and the sealed data of their entries, in order.
        finish_reason: `None` where the server does not report it.
    """

    text: str = ""
    reasoning: str = ""
    transcript: str = ""
    sound: str = ""
    calls: tuple[MeantCall, ...] = ()
    details: tuple[str, ...] = ()
    finish_reason: str | None = "stop"


@dataclass(frozen=True, slots=True)
class Meaning:
    """The content of an answer, which every dialect has to convey.

    Attributes:
        choices: The choices.
        usage: Tokens of the prompt and of the answer; `None` where the server does not report
            them.
        error: The server's own words for why the answer broke off, which a client must hand on;
            `None` where it did not.
        broken: Whether the connection breaks before the answer is complete.
    """

    choices: tuple[MeantChoice, ...] = field(default_factory=tuple)
    usage: tuple[int, int] | None = None
    error: str | None = None
    broken: bool = False

    def problem_with(self, completion: Any) -> str | None:
        """Return how a client's completion differs from what was meant; `None` if it does not."""
        found = understood(completion)
        if len(found.choices) != len(self.choices):
            return f"{len(found.choices)} choices instead of {len(self.choices)}"
        for meant, got in zip(self.choices, found.choices, strict=True):
            for name in MeantChoice.__slots__:
                one, other = getattr(meant, name), getattr(got, name)
                if one != other:
                    return f"{name}: {other!r} instead of {one!r}"
        # One way only: a client may report a usage of its own where the server reports none.
        if self.usage is not None and found.usage != self.usage:
            return f"usage: {found.usage} instead of {self.usage}"
        return None

    def problem_with_partial(self, completion: Any) -> str | None:
        """Return how a partial answer contradicts what was meant; `None` if it does not."""
        if completion is None:
            return None
        for choice in completion.choices:
            if choice.index >= len(self.choices):
                return f"a choice {choice.index}, where {len(self.choices)} were meant"
            meant, got = self.choices[choice.index], _choice(choice)
            for name in ("text", "reasoning", "transcript", "sound"):
                whole, part = getattr(meant, name), getattr(got, name)
                # The connection broke, so the end may be missing; what is there has to be right.
                if not whole.startswith(part):
                    return f"{name}: {part!r} is no beginning of {whole!r}"
            if not _begins(meant.calls, got.calls):
                return f"calls: {got.calls} are no beginning of {meant.calls}"
            if not "".join(meant.details).startswith("".join(got.details)):
                return f"details: {got.details} are no beginning of {meant.details}"
        return None

    def without_usage(self) -> Meaning:
        """The same meaning without its usage, for servers that report none."""
        return replace(self, usage=None)


def _begins(meant: tuple[MeantCall, ...], got: tuple[MeantCall, ...]) -> bool:
    """Whether calls are beginnings of those that were meant, in their order.

    Of calls whose pieces alternate, some may not have begun although later ones have.
    """
    left = iter(meant)
    return all(
        any(
            whole.name.startswith(part.name) and whole.arguments.startswith(part.arguments)
            for whole in left
        )
        for part in got
    )


def understood(completion: Any) -> Meaning:
    """Return what a `ChatCompletion` says, in the terms of a meaning."""
    usage = completion.usage
    return Meaning(
        choices=tuple(map(_choice, completion.choices)),
        usage=None if usage is None else (usage.prompt_tokens, usage.completion_tokens),
    )


def _choice(choice: Any) -> MeantChoice:
    message = choice.message
    audio = getattr(message, "audio", None) or {}
    details = getattr(message, "reasoning_details", None) or ()
    return MeantChoice(
        text=message.content or "",
        # Two names for the same: a server may use either, and clients keep the name they were sent.
        reasoning=message.reasoning_content or message.reasoning or "",
        transcript=audio.get("transcript", ""),
        sound=audio.get("data", ""),
        calls=tuple(map(_call, message.tool_calls or ())),
        details=tuple(entry.get("text") or entry.get("data") or "" for entry in details),
        finish_reason=choice.finish_reason,
    )


def _call(call: Any) -> MeantCall:
    extra = getattr(call, "extra_content", None) or {}
    return MeantCall(
        call.function.name,
        call.function.arguments,
        extra.get("google", {}).get("thought_signature", ""),
    )
