"""``client.models``."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Generator
from typing import Any, Unpack

from konko_async._checks import known_keywords
from konko_async._operations import MODEL, MODELS
from konko_async._transport import model_path
from konko_async.resources._base import Resource
from konko_async.resources._keywords import EXTRAS, Extras, split_options
from konko_async.wire import Model, ModelList

__all__ = ["ModelPage", "Models"]


class ModelPage:
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
        values: Any = extras
        options = split_options(values)
        known_keywords("models.list", values, EXTRAS)

        async def fetch() -> ModelList:
            response, _ = await self._engine().call(
                MODELS, MODELS.path, None, model=None, options=options
            )
            result: ModelList = response.result
            return result

        return ModelPage(fetch)

    async def retrieve(self, model: str, **extras: Unpack[Extras]) -> Model:
        """Return one model.

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
        response, _ = await self._engine().call(MODEL, path, None, model=None, options=options)
        result: Model = response.result
        return result
