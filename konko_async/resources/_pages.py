"""Lists that come in pages: awaited for one page, iterated over for all entries."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from typing import Any, Generic, TypeVar

import msgspec

from konko_async._core.misuse import AsyncIterableOnly
from konko_async._core.validation import known_keywords
from konko_async._engine.engine import Engine
from konko_async._engine.operations import ApiOperation
from konko_async.errors import ConfigurationError
from konko_async.resources._params import EXTRAS, split_options

__all__ = ["Pages", "page_fetcher"]

P = TypeVar("P")
E = TypeVar("E")


class Pages(AsyncIterableOnly, Generic[P, E]):
    """A list before it is fetched: ``await`` it for its first page, or use ``async for``."""

    __slots__ = ("_fetch",)

    def __init__(self, fetch: Callable[[str | None], Awaitable[P]]) -> None:
        self._fetch = fetch

    def __await__(self) -> Generator[Any, None, P]:
        return self._fetch(None).__await__()

    async def __aiter__(self) -> AsyncIterator[E]:
        page: Any = await self
        before: str | None = None
        while page is not None:
            for entry in page.data:
                yield entry
            page, before = await self.following(page, before), _last(page)

    async def following(self, page: P, before: str | None) -> P | None:
        """Return the page after one; None where there is none.

        Args:
            page: the one.
            before: the last id of the page before it; None: it is the first.
        """
        last = _last(page)
        # Servers without pages send no has_more; one that ignores after= would never end.
        has_more: Any = getattr(page, "has_more", None)
        if not has_more or last is None or last == before:
            return None
        return await self._fetch(last)


def _last(page: Any) -> str | None:
    """Return the id of a page's last entry."""
    return page.data[-1].id if page.data else None


def page_fetcher(
    engine: Callable[[], Engine], endpoint: ApiOperation, query: dict[str, Any], extras: Any
) -> Callable[[str | None], Awaitable[Any]]:
    """Return what fetches the page after an entry; nothing is sent yet.

    Args:
        engine: finds the engine.
        endpoint: the list's.
        query: of its parameters, those that are not None are sent.
        extras: the keywords that every call takes.

    Raises:
        ConfigurationError: one of them cannot be used.
    """
    options = split_options(extras)
    known_keywords(f"{endpoint.name}.list", extras, EXTRAS)
    limit = query.get("limit")
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
        raise ConfigurationError(f"limit must be an integer of at least 1, not {limit!r:.40}")

    async def fetch(after: str | None) -> Any:
        wanted = query if after is None else {**query, "after": after}
        given = {name: str(value) for name, value in wanted.items() if value is not None}
        merged = msgspec.structs.replace(
            options, extra_query={**given, **(options.extra_query or {})}
        )
        response, _ = await engine().call(endpoint, endpoint.path, None, model=None, options=merged)
        return response.result

    return fetch
