"""Prices of models, also read from the model list; an unknown price is None, never 0."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Final

import msgspec

from konko_async import AsyncKonko, KonkoError, Model
from konko_async.batch._output.answers import Used

__all__ = ["Price", "Prices", "fetch_prices", "parse_price"]

# A model list carries its prices as text for people (``public_endpoint_pricing``), not as numbers.
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
        cached: for one token of the prompt that the server had in its cache; None: as ``prompt``.
        hour: for an hour of a machine, which no row can be charged for; None where there is none.
        currency: such as ``USD``; None where the text names none.
    """

    prompt: float | None = None
    completion: float | None = None
    hour: float | None = None
    currency: str | None = "USD"
    cached: float | None = None

    def cost(
        self, prompt_tokens: int, completion_tokens: int, cached_tokens: int = 0
    ) -> float | None:
        """Return what so many tokens cost; None if it is not known."""
        # Embeddings have no completion tokens: a price for their prompts is all that they need.
        if self.prompt is None or (self.completion is None and completion_tokens):
            return None
        # Servers count cached tokens among the prompt's, so they
        # are taken off before they are priced.
        cached = self.prompt if self.cached is None else self.cached
        prompt = (prompt_tokens - cached_tokens) * self.prompt + cached_tokens * cached
        return prompt + completion_tokens * (self.completion or 0.0)


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
        # "per 0 tokens" would divide by zero, and a number of some 300 digits is read as infinity.
        if size <= 0 or not math.isfinite(amount):
            return None
        for part in _parts(match["unit"].lower(), (match["kind"] or "").lower()):
            # Two prices for the same tokens, such as tiers by length:
            # the text does not say which one counts.
            if part in prices:
                return None
            prices[part] = amount / size
    # Words that are left over may be a condition ("above 128k"): then the price is not known.
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
        by_model: by model id; ``"*"`` is every other model's.

    Attributes:
        currency: of all of them; None if they differ or name none.
    """

    def __init__(self, by_model: Mapping[str, Price] | None = None) -> None:
        self._by_model = dict(by_model or {})
        names = {price.currency for price in self._by_model.values()}
        self.currency = names.pop() if len(names) == 1 else None
        # pop() has emptied the set if there was one currency; what
        # is left means that there are several.
        self._mixed = bool(names)

    def cost(self, model: str, used: Used) -> float | None:
        """Return what a row of a model costs; None if it is not known."""
        price = self._by_model.get(model) or self._by_model.get("*")
        # Sums of different currencies would mean nothing.
        if price is None or self._mixed:
            return None
        return price.cost(used.prompt_tokens, used.completion_tokens, used.cached_tokens)

    def scaled(self, factor: float) -> Prices:
        """Return these prices times a factor; those of machines per hour are left out."""
        return Prices(
            {
                model: Price(
                    None if price.prompt is None else price.prompt * factor,
                    None if price.completion is None else price.completion * factor,
                    currency=price.currency,
                    cached=None if price.cached is None else price.cached * factor,
                )
                for model, price in self._by_model.items()
            }
        )

    def known(self, model: str) -> bool:
        """Whether a row of this model has a price."""
        # One token each way, since cost() is None if either of the two prices is missing.
        return self.cost(model, Used(1, 1)) is not None

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
    # Many servers have no model list. That must not keep a run from starting; with max_cost the run
    # refuses unknown prices itself.
    except KonkoError:
        return Prices()
    return Prices.of(page.data)
