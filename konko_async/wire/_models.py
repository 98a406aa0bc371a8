"""The model list, with the metadata that Konko adds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from konko_async.wire._base import Answered, Wire

__all__ = ["Deleted", "Model", "ModelList"]


class Model(Answered, Wire):
    """A model. Servers other than Konko send only the first four fields; the rest is None there.

    Attributes:
        created: Unix seconds.
        is_chat: whether it may be used with chat completions.
        is_text: whether it may be used with text completions.
        max_context_length: tokens of prompt and answer together.
        public_endpoint_pricing: text such as ``$0.0003 / 1k tokens``.
        private_endpoint_pricing: text such as ``$2 / hour``.
    """

    id: str
    created: int | float | None = None
    object: str = "model"
    owned_by: str | None = None
    # None is not False: only Konko says it, and a model of another server may well be of that kind.
    is_chat: bool | None = None
    is_text: bool | None = None
    creator: str | None = None
    creator_logo_url: str | None = None
    name: str | None = None
    description: str | None = None
    category: str | None = None
    censorship: str | None = None
    max_context_length: int | None = None
    license_name: str | None = None
    license_url: str | None = None
    public_endpoint_pricing: str | None = None
    private_endpoint_pricing: str | None = None
    docs_url: str | None = None
    prompt_guide_url: str | None = None
    shutdown_date: str | None = None


class ModelList(Answered, Wire):
    """``data`` holds the models; the whole list comes in one page."""

    # Required, unlike the other fields: an answer without a list is not an empty list.
    data: list[Model]
    object: str = "list"
    first_id: Any = None
    last_id: Any = None
    has_more: bool | None = None

    def __iter__(self) -> Iterator[Model]:
        """Iterate over the models."""
        return iter(self.data)


class Deleted(Answered, Wire):
    """What is said of something that was deleted: a model, a stored completion."""

    id: str = ""
    object: str = ""
    deleted: bool = False
