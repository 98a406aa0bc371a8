"""``client.batches``: batches that the server runs, over an uploaded file, at its own pace."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Unpack

import msgspec

from konko_async._core.not_given import drop_not_given
from konko_async._core.validation import known_keywords
from konko_async._engine.file_operations import BATCH, BATCH_CANCEL, BATCH_CREATE, BATCHES
from konko_async._engine.operations import ApiOperation
from konko_async._http.paths import id_path
from konko_async.errors import ConfigurationError
from konko_async.resources._base import Resource
from konko_async.resources._pages import Pages, page_fetcher
from konko_async.resources._params import EXTRAS, Extras, split_options
from konko_async.wire import Batch, BatchList

__all__ = ["Batches"]


class BatchPages(Pages[BatchList, Batch]):
    """The batches, page by page: ``await`` it for the first one, or use ``async for``."""

    __slots__ = ()


class Batches(Resource):
    """``/batches``."""

    __slots__ = ()

    async def create(
        self,
        *,
        input_file_id: str,
        endpoint: str,
        completion_window: Literal["24h"] | str = "24h",  # noqa: PYI051 - the value that is known, for editors
        metadata: Mapping[str, str] | None = None,
        **extras: Unpack[Extras],
    ) -> Batch:
        """Have the server answer the requests of an uploaded file.

        Args:
            input_file_id: of a file with the purpose ``batch``: lines in OpenAI's batch format.
            endpoint: of all of them, such as ``/v1/chat/completions``.
            completion_window: the time in which it is to end. Default, and OpenAI's only one:
                ``24h``.
            metadata: up to 16 texts to be kept with it.
            **extras: the keywords that every call takes.

        Raises:
            ConfigurationError: an argument is wrong.
            APIError: as for every call.
        """
        values: Any = extras
        options = split_options(values)
        known_keywords("batches.create", values, EXTRAS)
        body: dict[str, Any] = {
            "input_file_id": input_file_id,
            "endpoint": endpoint,
            "completion_window": completion_window,
            "metadata": metadata,
        }
        drop_not_given(body)
        for name in ("input_file_id", "endpoint", "completion_window"):
            if not isinstance(body.get(name), str) or not body[name]:
                raise ConfigurationError(f"{name} must be a text that is not empty")
        found = {name: value for name, value in body.items() if value is not None}
        found |= options.extra_body or {}
        response, _ = await self._engine().call(
            BATCH_CREATE,
            BATCH_CREATE.path,
            found,
            model=None,
            options=msgspec.structs.replace(options, extra_body=None),
        )
        result: Batch = response.result
        return result

    async def retrieve(self, batch_id: str, **extras: Unpack[Extras]) -> Batch:
        """Return how a batch is going.

        Raises:
            ConfigurationError: not an id.
            NotFoundError: there is no such batch.
            APIError: as for every call.
        """
        return await self._about(BATCH, "batches.retrieve", batch_id, extras)

    async def cancel(self, batch_id: str, **extras: Unpack[Extras]) -> Batch:
        """Cancel a batch: what is answered stays; it ends within minutes.

        Raises:
            ConfigurationError: not an id.
            NotFoundError: there is no such batch.
            APIError: as for every call.
        """
        return await self._about(BATCH_CANCEL, "batches.cancel", batch_id, extras, "/cancel")

    async def _about(
        self, endpoint: ApiOperation, name: str, batch_id: str, extras: Any, after: str = ""
    ) -> Batch:
        options = split_options(extras)
        known_keywords(name, extras, EXTRAS)
        path = id_path("/batches/", "batch_id", batch_id, after)
        response, _ = await self._engine().call(endpoint, path, None, model=None, options=options)
        result: Batch = response.result
        return result

    def list(
        self, *, after: str | None = None, limit: int | None = None, **extras: Unpack[Extras]
    ) -> BatchPages:
        """List the batches, newest first: ``await`` it for a page, or ``async for`` for all.

        Args:
            after: the id of the batch before the first one.
            limit: batches in a page.
            **extras: the keywords that every call takes.

        Raises:
            ConfigurationError: an argument is wrong.
            APIError: as for every call, once it is awaited.
        """
        query: Any = {"after": after, "limit": limit}
        drop_not_given(query)
        return BatchPages(page_fetcher(self._engine, BATCHES, query, extras))
