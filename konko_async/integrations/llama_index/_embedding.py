"""``KonkoEmbedding``: embeddings of LlamaIndex' on this client."""

from __future__ import annotations

from typing import Any

from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import Field

from konko_async.integrations.llama_index._connected import LlamaIndexConnection

__all__ = ["KonkoEmbedding"]


class KonkoEmbedding(LlamaIndexConnection, BaseEmbedding):
    """Embeddings of any server that speaks OpenAI's API, with this client's limits.

    Raises:
        ValueError: pydantic's error: no key, or an option that cannot be used.
    """

    model_name: str
    """The model's id."""
    dimensions: int | None = None
    """Numbers of a vector, where the server can choose."""
    additional_kwargs: dict[str, Any] = Field(default_factory=dict)
    """Further parameters of the API."""

    @classmethod
    def class_name(cls) -> str:
        """Return the name that LlamaIndex serializes."""
        return "KonkoEmbedding"

    def _request(self, texts: list[str]) -> dict[str, Any]:
        request = {"model": self.model_name, "input": texts, **self.additional_kwargs}
        return request if self.dimensions is None else request | {"dimensions": self.dimensions}

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        answer = await self._clients.current().embeddings.create(**self._request(texts))
        return _vectors(answer)

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return _vectors(self._clients.blocking().embeddings.create(**self._request(texts)))

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return (await self._aget_text_embeddings([query]))[0]

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embeddings([query])[0]

    async def _aget_text_embedding(self, text: str) -> list[float]:
        return (await self._aget_text_embeddings([text]))[0]

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._get_text_embeddings([text])[0]


def _vectors(answer: Any) -> list[list[float]]:
    # By their index, as servers may answer in another order.
    return [each.embedding for each in sorted(answer.data, key=lambda each: each.index)]
