"""Chat completions that a server keeps (``store=True``): retrieve, update, delete."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Unpack
from urllib.parse import quote

from konko_async._core.validation import known_keywords
from konko_async._engine.operations import DELETE_STORED, STORED, UPDATE_STORED
from konko_async.errors import ConfigurationError
from konko_async.resources._base import Resource
from konko_async.resources._lazy import prepared_call
from konko_async.resources._params import EXTRAS, Extras, split_options

if TYPE_CHECKING:
    from konko_async._engine.operations import ApiOperation
    from konko_async.resources._responses import PreparedCall
    from konko_async.wire import ChatCompletion, Deleted

__all__ = ["StoredCompletions"]


class StoredCompletions(Resource):
    """Stored chat completions, a part of ``client.chat.completions``."""

    __slots__ = ()

    async def retrieve(self, completion_id: str, **extras: Unpack[Extras]) -> ChatCompletion:
        """Return a completion that was made with ``store=True``.

        Raises:
            ConfigurationError: not a usable id.
            NotFoundError: there is no such completion, or the server keeps none.
            APIError: as for every call.
        """
        found: ChatCompletion = await self._prepared_retrieve(completion_id, **extras).result()
        return found

    async def update(
        self, completion_id: str, *, metadata: Mapping[str, str] | None, **extras: Unpack[Extras]
    ) -> ChatCompletion:
        """Set the metadata of a stored completion.

        Raises:
            APIError: as for :meth:`retrieve`.
        """
        prepared = self._prepared_update(completion_id, metadata=metadata, **extras)
        found: ChatCompletion = await prepared.result()
        return found

    async def delete(self, completion_id: str, **extras: Unpack[Extras]) -> Deleted:
        """Delete a stored completion.

        Raises:
            APIError: as for :meth:`retrieve`.
        """
        deleted: Deleted = await self._prepared_delete(completion_id, **extras).result()
        return deleted

    def _prepared_retrieve(self, completion_id: str, **extras: Unpack[Extras]) -> PreparedCall:
        return self._stored(STORED, completion_id, None, extras)

    def _prepared_update(
        self, completion_id: str, *, metadata: Mapping[str, str] | None, **extras: Unpack[Extras]
    ) -> PreparedCall:
        return self._stored(UPDATE_STORED, completion_id, {"metadata": metadata}, extras)

    def _prepared_delete(self, completion_id: str, **extras: Unpack[Extras]) -> PreparedCall:
        return self._stored(DELETE_STORED, completion_id, None, extras)

    def _stored(self, endpoint: ApiOperation, name: str, body: Any, extras: Any) -> PreparedCall:
        options = split_options(extras)
        known_keywords("chat.completions", extras, EXTRAS)
        name = str(name)
        if not name:
            raise ConfigurationError(
                f"Expected a non-empty value for `completion_id` but received {name!r:.40}"
            )
        if name in {".", ".."}:
            raise ConfigurationError("completion_id must not be '.' or '..'")
        path = endpoint.path + quote(name, safe="")
        return prepared_call()(
            self._engine(), endpoint, path=path, body=body, options=options, result=_itself
        )


def _itself(answer: Any) -> Any:
    return answer
