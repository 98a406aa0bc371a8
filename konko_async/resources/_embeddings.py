"""``client.embeddings``: turns texts into vectors."""

from __future__ import annotations

from collections.abc import Awaitable
from functools import partial
from typing import TYPE_CHECKING, Any, Unpack

from konko_async._core.validation import check_input, check_model, check_sampling, known_keywords
from konko_async._engine.operations import EMBEDDINGS
from konko_async.errors import ConfigurationError
from konko_async.resources._base import Mapped
from konko_async.resources._params import EXTRAS, EmbeddingKeywords, split_options, takes
from konko_async.resources._responses import PreparedCall, raw, streamed
from konko_async.wire import CreateEmbeddingResponse
from konko_async.wire._requests import EmbeddingRequest

if TYPE_CHECKING:
    from konko_async._engine.engine import CallOptions

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
        body, options = self._prepare(model, input, params)
        # Not _call(): the check of verify_models tells chat models from text models, and no others.
        response, _ = await self._engine().call(
            EMBEDDINGS, EMBEDDINGS.path, body, model=model, options=options
        )
        result: CreateEmbeddingResponse = response.result
        return result

    @property
    def with_raw_response(self) -> EmbeddingsWithRawResponse:
        """The same call, returning the HTTP response: headers, status, bytes and ``parse()``."""
        return EmbeddingsWithRawResponse(self)

    @property
    def with_streaming_response(self) -> EmbeddingsWithStreamingResponse:
        """As :attr:`with_raw_response`, by ``async with``; the body is read only on request."""
        return EmbeddingsWithStreamingResponse(self)

    def _prepared_create(
        self,
        *,
        model: str,
        input: str | list[str] | list[int] | list[list[int]],
        **params: Unpack[EmbeddingKeywords],
    ) -> PreparedCall:
        body, options = self._prepare(model, input, params)
        return PreparedCall.of(self._engine(), partial(_itself, EMBEDDINGS, body, options), _itself)

    def _prepare(self, model: str, given: Any, params: Any) -> tuple[EmbeddingRequest, CallOptions]:
        values: Any = params
        options = split_options(values)
        known_keywords("embeddings.create", values, _EMBEDDING_KNOWN)
        check_model(model)
        check_input("input", given)
        check_sampling(values)
        # An explicit None means the default, too. Servers that ignore the option answer with
        # floats, which the decoder accepts as well.
        form = values.setdefault("encoding_format", "base64") or "base64"
        if form not in {"base64", "float"}:
            raise ConfigurationError(
                f'encoding_format must be "base64" or "float", not {form!r:.40}'
            )
        values["encoding_format"] = form
        return EmbeddingRequest(model=model, input=given, **values), options

    def _create(self, **arguments: Any) -> Awaitable[Any]:
        return self.create(**arguments)


def _itself(answer: Any, *_: Any) -> Any:
    return answer


class EmbeddingsWithRawResponse:
    """``client.embeddings.with_raw_response``."""

    __slots__ = ("create",)

    def __init__(self, embeddings: Embeddings) -> None:
        self.create = raw(embeddings._prepared_create)  # noqa: SLF001 - two faces of one thing


class EmbeddingsWithStreamingResponse:
    """``client.embeddings.with_streaming_response``."""

    __slots__ = ("create",)

    def __init__(self, embeddings: Embeddings) -> None:
        self.create = streamed(embeddings._prepared_create)  # noqa: SLF001 - two faces of one thing
