"""Keyword arguments of calls: typed for checkers, shown by signature() and help()."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, TypedDict, TypeVar, get_type_hints

from konko_async._core.config import check_headers, check_query, masked_values
from konko_async._core.not_given import drop_not_given
from konko_async._core.policies import Priority, TimeoutLike
from konko_async._engine.engine import NO_OPTIONS, CallOptions
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
    affinity: an id, such as a conversation's, by which calls go to one of several endpoints.
    """

    timeout: TimeoutLike | None
    priority: Priority | None
    extra_headers: Mapping[str, Any] | None
    extra_query: Mapping[str, Any] | None
    extra_body: Mapping[str, Any] | None
    affinity: str | None


class ChatKeywords(ChatParams, ToolParams, Extras, total=False):
    """All optional keywords of a chat call.

    max_reasks: how often an answer that is not of the type is requested again. Of streams, resume:
    "prefill" (or a server's name): one that is cut is continued by another call;
    continue_on_length: how often one that ended by its limit on tokens is continued.
    """

    max_reasks: int
    resume: str | None
    continue_on_length: int


class ToolKeywords(ChatParams, Extras, total=False):
    """All optional keywords of ``run_tools()``."""

    max_rounds: int
    max_tool_calls: int
    tool_timeout: float | None
    total_timeout: float | None
    max_concurrency: int
    run_in_thread: bool
    max_output: int
    on_error: Literal["message", "raise"]
    before_tool: Approval | None


class CompletionKeywords(CompletionParams, Extras, total=False):
    """All optional keywords of a text completion."""


class EmbeddingKeywords(EmbeddingParams, Extras, total=False):
    """All optional keywords of an embeddings call."""


# From the TypedDict, so that what type checkers accept and what is accepted at run time cannot
# differ.
EXTRAS = frozenset(Extras.__annotations__)


def takes(keywords: type) -> Callable[[F], F]:
    """Show ``**params`` in signature and help() as the keywords that a TypedDict lists."""

    def decorate(function: F) -> F:
        function.__signature__ = _LaterSignature.of(function, keywords)  # type: ignore[attr-defined]  # functions may have one
        return function

    return decorate


class _LaterSignature(inspect.Signature):
    """The signature of a function with keywords, made when somebody looks at it.

    Few do, and to read the types of forty keywords takes a tenth of the import of this package.
    """

    _made_of: tuple[Any, type]

    @classmethod
    def of(cls, function: Any, keywords: type) -> inspect.Signature:
        """Return the signature that a function will have."""
        made = cls.__new__(cls)
        made._made_of = function, keywords  # noqa: SLF001 - of this class; __init__() sets the parameters
        return made

    def __getattr__(self, name: str) -> Any:
        # What the base class keeps has not been set yet.
        if "_made_of" not in self.__dict__:
            raise AttributeError(name)
        function, keywords = self.__dict__.pop("_made_of")
        del function.__signature__
        signature = inspect.signature(function)
        function.__signature__ = self
        fixed = [
            parameter
            for parameter in signature.parameters.values()
            if parameter.kind is not inspect.Parameter.VAR_KEYWORD
        ]
        shown = [
            # None as the default, because a parameter that is None is not sent.
            inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind)
            for key, kind in _annotations(keywords).items()
        ]
        super().__init__([*fixed, *shown], return_annotation=signature.return_annotation)
        return getattr(self, name)


def _annotations(keywords: type) -> dict[str, Any]:
    try:
        return get_type_hints(keywords)
    except NameError:  # names imported for type checkers only: show them as written
        return dict(keywords.__annotations__)


def split_options(params: dict[str, Any]) -> CallOptions:
    """Take the keywords that are ours, and those that say nothing, out of ``params``.

    Raises:
        ConfigurationError: one of them has a wrong type or value.
    """
    # Most calls have no options: they share one instance.
    if not params:
        return NO_OPTIONS
    # Before the look at the names: timeout=NOT_GIVEN is no option.
    drop_not_given(params)
    if EXTRAS.isdisjoint(params):
        return NO_OPTIONS
    found = {name: params.pop(name) for name in EXTRAS & params.keys()}
    for name in ("extra_headers", "extra_body"):
        value = found.get(name)
        if value is not None and not isinstance(value, Mapping):
            raise ConfigurationError(f"{name} must be a mapping, not {type(value).__name__}")
    if "affinity" in found and not isinstance(found["affinity"], str):
        raise ConfigurationError(f"affinity must be a text, not {type(found['affinity']).__name__}")
    if "extra_query" in found:
        # As are the headers below: a key may be among them.
        found["extra_query"] = masked_values(check_query("extra_query", found["extra_query"]))
    if found.get("priority") not in {None, "interactive", "batch"}:
        raise ConfigurationError(
            f'priority must be "interactive" or "batch", not {found["priority"]!r:.40}'
        )
    if found.get("extra_headers"):
        # Any of them may be a credential: none is to be read in a traceback that shows locals.
        found["extra_headers"] = check_headers(found["extra_headers"])
    return CallOptions(**found)
