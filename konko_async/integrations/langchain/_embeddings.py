"""``KonkoEmbeddings``: embeddings for LangChain on this client."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from langchain_core.embeddings import Embeddings
from pydantic import Field

from konko_async.integrations.langchain._base import LangChainConnection

__all__ = ["KonkoEmbeddings"]


class KonkoEmbeddings(LangChainConnection, Embeddings):
    """Embeddings of any server that speaks OpenAI's API, with this client's limits.

    Long lists are cut into requests, several of which are made at once.

    Raises:
        ValueError: pydantic's error: no key, or an option that cannot be used.
    """

    model: str
    """The model's id."""
    dimensions: int | None = None
    """Numbers of a vector, where the server can choose."""
    chunk_size: int = Field(default=512, ge=1)
    """Texts of one request, at most."""
    max_concurrency: int = Field(default=8, ge=1)
    """Requests made at once, at most."""
    model_kwargs: dict[str, Any] = Field(default_factory=dict)
    """Further parameters of the API."""

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """Embed texts, in their order."""
        results = self._clients.current().embeddings.map(self._requests(texts), **self._options)
        async with results:
            return [vector async for each in results for vector in _vectors(each.completion)]

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Embed texts, in their order."""
        results = self._clients.blocking().embeddings.map(
            list(self._requests(texts)), **self._options
        )
        with results:
            return [vector for each in results for vector in _vectors(each.completion)]

    async def aembed_query(self, text: str) -> list[float]:
        """Embed a text."""
        (vector,) = _vectors(
            await self._clients.current().embeddings.create(**self._request([text]))
        )
        return vector

    def embed_query(self, text: str) -> list[float]:
        """Embed a text."""
        (vector,) = _vectors(self._clients.blocking().embeddings.create(**self._request([text])))
        return vector

    @property
    def _options(self) -> dict[str, Any]:
        return {"max_concurrency": self.max_concurrency, "ordered": True, "fail_fast": True}

    def _request(self, texts: list[str]) -> dict[str, Any]:
        request = {"model": self.model, "input": texts, **self.model_kwargs}
        return request if self.dimensions is None else request | {"dimensions": self.dimensions}

    def _requests(self, texts: list[str]) -> Iterator[dict[str, Any]]:
        for start in range(0, len(texts), self.chunk_size):
            yield self._request(texts[start : start + self.chunk_size])


def _vectors(answer: Any) -> list[list[float]]:
    # By their index, as servers may answer in another order.
    return [each.embedding for each in sorted(answer.data, key=lambda each: each.index)]
