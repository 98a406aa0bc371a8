"""Lists that come in pages: a page, which gives the entries of those after it as well."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from konko_async.wire import Batch, BatchList, FileList, FileObject

__all__ = ["BatchPages", "FilePages", "page_of"]

Next = Callable[[Any, str | None], Any]


# dict: what fetches the next page is no part of a page, and goes with no copy of it.
class FilePages(FileList, dict=True, gc=True):
    """A page of files; iterating over it gives those of the pages after it as well."""

    def __iter__(self) -> Iterator[FileObject]:
        return _entries(self)


class BatchPages(BatchList, dict=True, gc=True):
    """A page of batches; iterating over it gives those of the pages after it as well."""

    def __iter__(self) -> Iterator[Batch]:
        return _entries(self)


_KINDS: dict[type, Any] = {FileList: FilePages, BatchList: BatchPages}


def page_of(page: Any, following: Next) -> Any:
    """Return a page over whose entries, and those after it, one can iterate.

    Args:
        page: the first one.
        following: returns the page after one, given that and the last id of the page before it;
            None where there is none.
    """
    values = {name: getattr(page, name) for name in page.__struct_fields__}
    made = _KINDS[type(page)](**values)
    raw = getattr(page, "_raw", None)
    if raw is not None:
        made._raw = raw  # noqa: SLF001 - the JSON as received goes with the struct
    made._following = following  # noqa: SLF001 - made here
    return made


def _entries(first: Any) -> Iterator[Any]:
    following: Next = getattr(first, "_following", lambda *_: None)
    page, before = first, None
    while page is not None:
        yield from page.data
        page, before = following(page, before), page.data[-1].id if page.data else None
