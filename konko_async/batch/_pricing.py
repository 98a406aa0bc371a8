"""What a row costs, from the model list's pricing text. What is not known is None, never 0."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Final

import msgspec

from konko_async import AsyncKonko, KonkoError, Model

__all__ = ["Price", "Prices", "fetch_prices", "parse_price"]

_AMOUNT = re.compile(
    r"(?P<currency>[$€£]|usd|eur|gbp)?\s*(?P<amount>\d[\d,]*(?:\.\d+)?|\.\d+)\s*"
    r"(?P<code>usd|eur|gbp|dollars?)?\s*(?:/|per)\s*(?P<count>\d[\d,]*(?:\.\d+)?)?\s*"
    r"(?P<scale>thousand|million|k|m)?\s*(?P<kind>input|prompt|output|completion)?\s*"
    r"(?P<unit>tokens?|hours?|hrs?|h)\b",
    re.IGNORECASE,
)
_SCALES: Final = {"": 1, "k": 1e3, "thousand": 1e3, "m": 1e6, "million": 1e6}
_CURRENCIES: Final = {"$": "USD", "€": "EUR", "£": "GBP", "dollar": "USD", "dollars": "USD"}
_LONGEST: Final = 200  # a price is short; what is longer is prose, and costly to search


class Price(msgspec.Struct, frozen=True):
    """A price.

    Attributes:
        prompt: for one token of the prompt; None where it is not known.
        completion: for one token of the answer; None where it is not known.
        hour: for an hour of a machine, which cannot be laid on rows; None where there is none.
        currency: such as ``USD``; None where the text names none.
    """

    prompt: float | None = None
    completion: float | None = None
    hour: float | None = None
    currency: str | None = "USD"

    def cost(self, prompt_tokens: int, completion_tokens: int) -> float | None:
        """Return what so many tokens cost; None if it is not known."""
        if self.prompt is None or (self.completion is None and completion_tokens):
            return None
        return prompt_tokens * self.prompt + completion_tokens * (self.completion or 0.0)


def parse_price(text: str | None) -> Price | None:
    """Read a price such as ``$0.0003 / 1k tokens``.

    ``$0.50 / 1M input tokens, $1.50 / 1M output tokens`` and ``$2 / hour`` are understood too.

    Returns:
        The price; None where the text cannot be read in full: a guess would be worse.
    """
    if not text or len(text) > _LONGEST:
        return None
    if text.strip().lower() == "free":
        return Price(0.0, 0.0)
    prices: dict[str, float] = {}
    currencies = set()
    for match in _AMOUNT.finditer(text):
        amount = float(match["amount"].replace(",", ""))
        count = float((match["count"] or "1").replace(",", ""))
        size = count * _SCALES[(match["scale"] or "").lower()]
        name = (match["currency"] or match["code"] or "").lower()
        currencies.add(_CURRENCIES.get(name, name.upper()) or None)
        if size <= 0 or not math.isfinite(amount):
            return None
        for part in _parts(match["unit"].lower(), (match["kind"] or "").lower()):
            if part in prices:
                return None
            prices[part] = amount / size
    if not prices or len(currencies) > 1 or _AMOUNT.sub("", text).strip(" ,;+|and"):
        return None
    return Price(**prices, currency=currencies.pop())


def _parts(unit: str, kind: str) -> tuple[str, ...]:
    if unit.startswith("h"):
        return ("hour",)
    if kind in {"input", "prompt"}:
        return ("prompt",)
    return ("completion",) if kind else ("prompt", "completion")


class Prices:
    """The prices of models.

    Args:
        by_model: by model id.

    Attributes:
        currency: of all of them; None if they differ or name none.
    """

    def __init__(self, by_model: Mapping[str, Price] | None = None) -> None:
        self._by_model = dict(by_model or {})
        names = {price.currency for price in self._by_model.values()}
        self.currency = names.pop() if len(names) == 1 else None
        self._mixed = bool(names)

    def cost(self, model: str, prompt_tokens: int, completion_tokens: int) -> float | None:
        """Return what so many tokens of a model cost; None if it is not known."""
        price = self._by_model.get(model)
        # Sums of different currencies would mean nothing.
        if price is None or self._mixed:
            return None
        return price.cost(prompt_tokens, completion_tokens)

    def known(self, model: str) -> bool:
        """Whether a row of this model has a price."""
        return self.cost(model, 1, 1) is not None

    @classmethod
    def of(cls, models: list[Model]) -> Prices:
        """Read the model list: what its public endpoints cost."""
        found = {}
        for model in models:
            price = parse_price(model.public_endpoint_pricing)
            if price is not None:
                found[model.id] = price
        return cls(found)


async def fetch_prices(client: AsyncKonko) -> Prices:
    """Read the server's model list; a server without one, or without prices, has none."""
    try:
        page = await client.models.list()
    except KonkoError:
        return Prices()
    return Prices.of(page.data)
