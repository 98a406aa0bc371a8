"""``client.embeddings``."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any, Unpack

from konko_async._checks import check_input, check_model, check_sampling, known_keywords
from konko_async._operations import EMBEDDINGS
from konko_async.errors import ConfigurationError
from konko_async.resources._base import Mapped
from konko_async.resources._keywords import EXTRAS, EmbeddingKeywords, split_options, takes
from konko_async.wire import CreateEmbeddingResponse
from konko_async.wire._requests import EmbeddingRequest

__all__ = ["Embeddings"]

_EMBEDDING_KNOWN = frozenset(EmbeddingRequest.__struct_fields__) - {"model", "input"}


class Embeddings(Mapped[CreateEmbeddingResponse]):
    """``POST /embeddings``."""

    __slots__ = ()

    _known = _EMBEDDING_KNOWN | EXTRAS | {"model", "input"}

    @takes(EmbeddingKeywords)
    async def create(
        self,
        *,
        model: str,
        input: str | list[str] | list[int] | list[list[int]],
        **params: Unpack[EmbeddingKeywords],
    ) -> CreateEmbeddingResponse:
        """Turn texts into vectors.

        Args:
            model: the id of an embedding model.
            input: a text, a list of texts, or tokens.
            **params: ``encoding_format`` says how vectors travel ("base64" by default, a quarter
                of the bytes); they arrive as lists of floats either way. ``dimensions``,
                ``user``, and the keywords that every call takes.

        Returns:
            The vectors, ``.data[i].embedding``, with ``.index`` into the input.

        Raises:
            KonkoError: as for chat completions.
        """
        values: Any = params
        options = split_options(values)
        known_keywords("embeddings.create", values, _EMBEDDING_KNOWN)
        check_model(model)
        check_input("input", input)
        check_sampling(values)
        form = values.setdefault("encoding_format", "base64") or "base64"
        if form not in {"base64", "float"}:
            raise ConfigurationError(
                f'encoding_format must be "base64" or "float", not {form!r:.40}'
            )
        values["encoding_format"] = form
        body = EmbeddingRequest(model=model, input=input, **values)
        response, _ = await self._engine().call(
            EMBEDDINGS, EMBEDDINGS.path, body, model=model, options=options
        )
        result: CreateEmbeddingResponse = response.result
        return result

    def _create(self, **arguments: Any) -> Awaitable[Any]:
        return self.create(**arguments)
