"""Reads JSON lines: one document per line."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from konko_async.documents._document import Document, DocumentError

__all__ = ["jsonl_documents"]

_TEXTS = ("text", "content", "body", "document", "article", "markdown")
_TITLES = ("title", "name", "heading")
_IDS = ("custom_id", "id", "url", "path")


def jsonl_documents(
    text: str, name: str, field: str | None, encoding: str
) -> Iterator[Document | DocumentError]:
    """Yield the document of each line: a JSON string, or an object with a field of text.

    Args:
        text: the content of the file.
        name: of the file.
        field: the field that holds the text; None: the first of the usual ones.
        encoding: of the file.
    """
    # Not `splitlines()`, which also cuts at U+2028 and the like; JSON strings may hold them as they
    # are.
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        place = f"{name}#{number}"
        try:
            yield _document(msgspec.json.decode(line), place, field, encoding)
        # RecursionError: a line of ten thousand brackets is one bad line, not the end of the file.
        except (msgspec.DecodeError, RecursionError) as error:
            yield DocumentError(f"{place} is not JSON: {error}", name=place, code="broken")
        except DocumentError as error:
            yield error


def _document(value: Any, place: str, field: str | None, encoding: str) -> Document:
    if isinstance(value, str):
        value = {"text": value}
    if not isinstance(value, dict):
        raise DocumentError(f"{place} is neither text nor an object", name=place, code="broken")
    found = _first(value, _TEXTS if field is None else (field,))
    if found is None:
        wanted = field or ", ".join(_TEXTS)
        raise DocumentError(f"{place} has no text in {wanted}", name=place, code="broken")
    if not found.strip():
        raise DocumentError(f"{place} is empty", name=place, code="empty")
    own = _first(value, _IDS)
    return Document(
        name=f"{place} ({own})" if own else place,
        text=found,
        format="jsonl",
        title=_first(value, _TITLES),
        encoding=encoding,
    )


def _first(value: dict[str, Any], fields: tuple[str, ...]) -> str | None:
    texts = (value.get(field) for field in fields)
    return next((text for text in texts if isinstance(text, str)), None)
