"""The keywords of calls: typed for checkers, shown by signature() and help()."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, TypedDict, TypeVar, get_type_hints

from konko_async._engine import NO_OPTIONS, CallOptions
from konko_async._options import Priority, Timeout
from konko_async._secret import masked
from konko_async._settings import check_headers
from konko_async.errors import ConfigurationError
from konko_async.wire._requests import (
    ChatParams,
    CompletionParams,
    EmbeddingParams,
    ToolParams,
)

if TYPE_CHECKING:
    from konko_async.tools._calls import Approval

__all__ = [
    "EXTRAS",
    "ChatKeywords",
    "CompletionKeywords",
    "EmbeddingKeywords",
    "Extras",
    "ToolKeywords",
    "split_options",
    "takes",
]

F = TypeVar("F", bound=Callable[..., Any])


class Extras(TypedDict, total=False):
    """Keywords that every call takes.

    timeout: seconds for the whole call, or a Timeout. priority: "interactive" (default) or
    "batch". extra_headers, extra_query, extra_body: sent beside the call's own; extra_body wins.
    """

    timeout: float | Timeout | None
    priority: Priority | None
    extra_headers: Mapping[str, str] | None
    extra_query: Mapping[str, str] | None
    extra_body: Mapping[str, Any] | None


class ChatKeywords(ChatParams, ToolParams, Extras, total=False):
    """All optional keywords of a chat call."""


class ToolKeywords(ChatParams, Extras, total=False):
    """All optional keywords of ``run_tools()``."""

    max_rounds: int
    max_tool_calls: int
    tool_timeout: float | None
    total_timeout: float | None
    max_concurrency: int
    run_in_thread: bool
    on_error: Literal["message", "raise"]
    before_tool: Approval | None


class CompletionKeywords(CompletionParams, Extras, total=False):
    """All optional keywords of a text completion."""


class EmbeddingKeywords(EmbeddingParams, Extras, total=False):
    """All optional keywords of an embeddings call."""


EXTRAS = frozenset(Extras.__annotations__)


def takes(keywords: type) -> Callable[[F], F]:
    """Show ``**params`` in signature and help() as the keywords that a TypedDict lists."""

    def decorate(function: F) -> F:
        signature = inspect.signature(function)
        fixed = [
            parameter
            for parameter in signature.parameters.values()
            if parameter.kind is not inspect.Parameter.VAR_KEYWORD
        ]
        shown = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind)
            for name, kind in _annotations(keywords).items()
        ]
        function.__signature__ = signature.replace(  # type: ignore[attr-defined]
            parameters=[*fixed, *shown]
        )
        return function

    return decorate


def _annotations(keywords: type) -> dict[str, Any]:
    try:
        return get_type_hints(keywords)
    except NameError:  # names imported for type checkers only: show them as written
        return dict(keywords.__annotations__)


def split_options(params: dict[str, Any]) -> CallOptions:
    """Take the keywords that are ours out of ``params``.

    Raises:
        ConfigurationError: one of them has a wrong type or value.
    """
    if EXTRAS.isdisjoint(params):
        return NO_OPTIONS
    found = {name: params.pop(name) for name in EXTRAS & params.keys()}
    for name in ("extra_headers", "extra_query", "extra_body"):
        value = found.get(name)
        if value is not None and not isinstance(value, Mapping):
            raise ConfigurationError(f"{name} must be a mapping, not {type(value).__name__}")
    for name, value in (found.get("extra_query") or {}).items():
        if not isinstance(name, str) or isinstance(value, bool):
            raise ConfigurationError(f"extra_query: {name!r:.40} needs a text or a number")
        if not isinstance(value, (str, int, float)):
            raise ConfigurationError(
                f"extra_query: {name!r:.40} is a {type(value).__name__}, not a text or a number"
            )
    if found.get("priority") not in {None, "interactive", "batch"}:
        raise ConfigurationError(
            f'priority must be "interactive" or "batch", not {found["priority"]!r:.40}'
        )
    if found.get("extra_headers"):
        # Any of them may be a credential: none is to be read in a traceback that shows locals.
        checked = check_headers(found["extra_headers"])
        found["extra_headers"] = {name: masked(value) for name, value in checked.items()}
    return CallOptions(**found)
