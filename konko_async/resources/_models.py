"""``client.models``: the server's model list, and single models of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Generator
from typing import TYPE_CHECKING, Any, Unpack

from konko_async._core.misuse import AsyncIterableOnly
from konko_async._core.validation import known_keywords, model_path
from konko_async._engine.operations import DELETE_MODEL, MODEL, MODELS
from konko_async.errors import APIError, APIStatusError
from konko_async.resources._base import Resource
from konko_async.resources._params import EXTRAS, Extras, split_options
from konko_async.resources._responses import PreparedCall, raw, streamed
from konko_async.wire import Deleted, Model, ModelList

if TYPE_CHECKING:
    from konko_async._engine.operations import ApiOperation

__all__ = ["ModelPage", "Models"]

_NO_SUCH_PATH = frozenset({404, 405})  # 404 may also mean: no such model


class ModelPage(AsyncIterableOnly):
    """The result of ``models.list()`` before it is fetched: await it, or iterate over it."""

    __slots__ = ("_fetch",)

    def __init__(self, fetch: Callable[[], Any]) -> None:
        self._fetch = fetch

    def __await__(self) -> Generator[Any, None, ModelList]:
        page: Generator[Any, None, ModelList] = self._fetch().__await__()
        return page

    async def __aiter__(self) -> AsyncIterator[Model]:
        for model in (await self).data:
            yield model


class Models(Resource):
    """``GET /models``."""

    __slots__ = ()

    def list(self, **extras: Unpack[Extras]) -> ModelPage:
        """List the models: ``await`` it for a page with ``.data``, or use ``async for``.

        Raises:
            APIError: as for every call, once it is awaited.
        """
        # Any: keys are popped, which type checkers do not allow for a TypedDict.
        values: Any = extras
        options = split_options(values)
        known_keywords("models.list", values, EXTRAS)

        # Nothing is sent before the page is awaited or iterated over; the keywords are checked at
        # once.
        async def fetch() -> ModelList:
            response, _ = await self._engine().call(
                MODELS, MODELS.path, None, model=None, options=options
            )
            result: ModelList = response.result
            return result

        return ModelPage(fetch)

    async def retrieve(self, model: str, **extras: Unpack[Extras]) -> Model:
        """Return one model; from the list where a server has no path for one (vLLM, llama.cpp).

        Args:
            model: its id; slashes are part of it.
            **extras: the keywords that every call takes.

        Raises:
            ConfigurationError: not a usable id.
            NotFoundError: there is no such model.
            APIError: as for every call.
        """
        values: Any = extras
        options = split_options(values)
        known_keywords("models.retrieve", values, EXTRAS)
        path = model_path(model)
        try:
            response, _ = await self._engine().call(MODEL, path, None, model=None, options=options)
        except APIStatusError as error:
            if error.status_code not in _NO_SUCH_PATH:
                raise
            found = await self._listed(model, options)
            if found is None:
                raise  # the server's own words
            return found
        result: Model = response.result
        return result

    async def delete(self, model: str, **extras: Unpack[Extras]) -> Deleted:
        """Delete a model of one's own, such as a fine-tuned one.

        Raises:
            ConfigurationError: not a usable id.
            APIError: as for every call.
        """
        deleted: Deleted = await self._prepared_delete(model, **extras).result()
        return deleted

    @property
    def with_raw_response(self) -> ModelsWithRawResponse:
        """The same calls, returning the HTTP response: headers, status, bytes and ``parse()``."""
        return ModelsWithRawResponse(self)

    @property
    def with_streaming_response(self) -> ModelsWithStreamingResponse:
        """As :attr:`with_raw_response`, by ``async with``; the body is read only on request."""
        return ModelsWithStreamingResponse(self)

    def _prepared_list(self, **extras: Unpack[Extras]) -> PreparedCall:
        return self._prepared(MODELS, MODELS.path, extras)

    def _prepared_retrieve(self, model: str, **extras: Unpack[Extras]) -> PreparedCall:
        return self._prepared(MODEL, model_path(model), extras)

    def _prepared_delete(self, model: str, **extras: Unpack[Extras]) -> PreparedCall:
        return self._prepared(DELETE_MODEL, model_path(model), extras)

    def _prepared(self, endpoint: ApiOperation, path: str, extras: Any) -> PreparedCall:
        options = split_options(extras)
        known_keywords("models", extras, EXTRAS)
        return PreparedCall(
            self._engine(), endpoint, path=path, body=None, options=options, result=_itself
        )

    async def _listed(self, model: str, options: Any) -> Model | None:
        """Return a model by way of the list; None if it is not in it, or cannot be fetched."""
        try:
            response, _ = await self._engine().call(
                MODELS, MODELS.path, None, model=None, options=options
            )
        except APIError:
            # The caller raises the first error instead: it is about the model that was asked for.
            return None
        page: ModelList = response.result
        return next((listed for listed in page.data if listed.id == model), None)


def _itself(answer: Any) -> Any:
    return answer


class ModelsWithRawResponse:
    """``client.models.with_raw_response``."""

    __slots__ = ("delete", "list", "retrieve")

    def __init__(self, models: Models) -> None:
        self.list = raw(models._prepared_list)  # noqa: SLF001 - two faces of one thing
        self.retrieve = raw(models._prepared_retrieve)  # noqa: SLF001 - two faces of one thing
        self.delete = raw(models._prepared_delete)  # noqa: SLF001 - two faces of one thing


class ModelsWithStreamingResponse:
    """``client.models.with_streaming_response``."""

    __slots__ = ("delete", "list", "retrieve")

    def __init__(self, models: Models) -> None:
        self.list = streamed(models._prepared_list)  # noqa: SLF001 - two faces of one thing
        self.retrieve = streamed(models._prepared_retrieve)  # noqa: SLF001 - two faces of one thing
        self.delete = streamed(models._prepared_delete)  # noqa: SLF001 - two faces of one thing
