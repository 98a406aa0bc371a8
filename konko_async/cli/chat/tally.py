"""Figures of answers: time, tokens, attempts, cost."""

from __future__ import annotations

from dataclasses import dataclass, field

from konko_async import ChatCompletion, KonkoError
from konko_async.batch import Price
from konko_async.cli._number_format import count, duration, money

__all__ = ["ChatAnswer", "Tally", "figures_line", "rate_text"]


@dataclass(slots=True)
class ChatAnswer:
    """One answer, and what is known of it by now.

    Attributes:
        model: that was asked.
        first_token: seconds until the first delta; None if none came.
        seconds: until the end.
        prompt_tokens: None if the server reports none.
        completion_tokens: None if the server reports none.
        deltas: that came: about as many as tokens.
        attempts: that were made.
        price: of the model; None if it is not known.
        error: why it failed, if it did.
        completion: all of it, if it came to its end.
    """

    model: str
    first_token: float | None = None
    seconds: float = 0.0
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    deltas: int = 0
    attempts: int = 0
    price: Price | None = None
    error: KonkoError | None = None
    completion: ChatCompletion | None = None
    parts: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """The text that has arrived."""
        return "".join(self.parts)

    @property
    def counted(self) -> bool:
        """Whether the server reported its tokens; else deltas are counted instead."""
        return self.completion_tokens is not None

    @property
    def tokens(self) -> int:
        """Tokens of the answer."""
        return self.deltas if self.completion_tokens is None else self.completion_tokens

    @property
    def rate(self) -> float | None:
        """Tokens per second after the first; None if there are fewer than two."""
        if self.first_token is None or self.tokens < 2:  # noqa: PLR2004 - one interval
            return None
        # All tokens may arrive with one read: then no time lies between first and last.
        return (self.tokens - 1) / max(self.seconds - self.first_token, 1e-6)

    @property
    def cost(self) -> float | None:
        """The cost of the answer; None where the price or the tokens are not known."""
        if self.price is None or self.prompt_tokens is None or not self.counted:
            return None
        return self.price.cost(self.prompt_tokens, self.tokens)

    @property
    def currency(self) -> str | None:
        """Currency of the cost."""
        return self.price.currency if self.price else None

    @property
    def outcome(self) -> str:
        """How the answer ended: its finish reason, or ``failed`` or ``stopped``."""
        if self.completion is None:
            return "failed" if self.error else "stopped"
        choices = self.completion.choices
        return (choices[0].finish_reason if choices else None) or "ended"


class Tally:
    """The answers so far."""

    def __init__(self) -> None:
        self.answers: list[ChatAnswer] = []

    def add(self, answer: ChatAnswer) -> None:
        """Add an answer to the sums."""
        self.answers.append(answer)

    @property
    def tokens(self) -> int:
        """Tokens of all prompts and answers."""
        return sum((answer.prompt_tokens or 0) + answer.tokens for answer in self.answers)

    @property
    def counted(self) -> bool:
        """Whether the servers reported the tokens of all answers."""
        return all(answer.counted for answer in self.answers)

    @property
    def cost(self) -> tuple[float, str | None] | None:
        """The known costs and their currency; None if there are none, or several currencies."""
        known = [answer for answer in self.answers if answer.cost is not None]
        currencies = {answer.currency for answer in known}
        # Sums over several currencies mean nothing.
        if len(currencies) != 1:
            return None
        return sum(answer.cost or 0.0 for answer in known), currencies.pop()


def rate_text(answer: ChatAnswer) -> str:
    """Return the tokens in a second, as people read them."""
    rate = answer.rate
    if rate is None:
        return "-"
    return count(rate) if rate >= 100 else f"{rate:.3g}"  # noqa: PLR2004 - then digits do not matter


def figures_line(answer: ChatAnswer) -> str:
    """Return the figures of an answer in one line."""
    about = "" if answer.counted else "~"
    parts = []
    if answer.first_token is not None:
        parts.append(f"first token {duration(answer.first_token)}")
    if answer.rate is not None:
        parts.append(f"{about}{rate_text(answer)} tokens/s")
    asked = "" if answer.prompt_tokens is None else f"{count(answer.prompt_tokens)} + "
    parts.append(f"{asked}{about}{count(answer.tokens)} tokens")
    if answer.attempts > 1:
        parts.append(f"{answer.attempts} attempts")
    if answer.cost is not None:
        parts.append(money(answer.cost, answer.currency))
    return ", ".join(parts)
