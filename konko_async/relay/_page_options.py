"""What the chat page gets to know of its relay: limits, prices, what the models are good for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from konko_async import Priced
from konko_async.errors import ConfigurationError
from konko_async.relay._policy import RelayOptions

__all__ = ["PageOptions", "page_settings"]

_MOST_STARTERS = 8
_DOLLARS = "USD"


class PageOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What the chat page shows beside the answers.

    Attributes:
        prices: of models, by the names that browsers use; ``"*"`` is every other model's. Such as
            ``{"my-model": konko_async.batch.Price(prompt=2e-7, completion=6e-7)}``. The page shows
            what an answer cost beside its tokens. Default: none.
        about: a line about the models, shown above the starters. Default None.
        starters: questions to begin with, ``(kind, question)`` each; None, the default: those of
            the page; an empty list: none.

    Raises:
        ConfigurationError: a starter is not a pair of texts, or there are more than 8.
    """

    prices: Mapping[str, Priced] = {}
    about: str | None = None
    starters: Sequence[tuple[str, str]] | None = None

    def __post_init__(self) -> None:
        starters = () if self.starters is None else self.starters
        if len(starters) > _MOST_STARTERS:
            raise ConfigurationError(f"starters: at most {_MOST_STARTERS}")
        for starter in starters:
            match starter:
                case [str(), str()]:
                    continue
            raise ConfigurationError("starters must be pairs of a kind and a question")


def page_settings(options: RelayOptions, page: PageOptions) -> dict[str, Any]:
    """Return what the page gets to know, as JSON values.

    Args:
        options: of the relay; what the page refuses or hides, the relay would refuse.
        page: of the page.
    """
    return {
        "max_body": options.max_body,
        "max_messages": options.max_messages,
        "max_tokens": options.max_tokens,
        "params": sorted(options.params),
        "parts": sorted(options.parts),
        "roles": sorted(options.roles),
        "prices": {model: _per_token(price) for model, price in page.prices.items()},
        "about": page.about,
        "starters": None if page.starters is None else [list(pair) for pair in page.starters],
    }


def _per_token(price: Priced) -> dict[str, float | str | None]:
    # A price is asked for, not read: its own way of counting cached tokens is kept.
    return {
        "prompt": price.cost(1, 0),
        "completion": price.cost(0, 1),
        "cached": price.cost(1, 0, 1),
        "currency": getattr(price, "currency", _DOLLARS),
    }
