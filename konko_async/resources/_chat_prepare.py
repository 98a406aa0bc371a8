"""What chat calls have in common: their arguments checked and made ready to be sent."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, Unpack

from konko_async._core.not_given import drop_not_given, is_marker
from konko_async._core.validation import (
    check_messages,
    check_model,
    check_sampling,
    check_stream,
    known_keywords,
)
from konko_async._engine.engine import NO_OPTIONS
from konko_async._engine.operations import CHAT, ApiOperation
from konko_async.errors import ConfigurationError
from konko_async.resources._base import Mapped
from konko_async.resources._lazy import (
    check_strict,
    form_of,
    listed_tools,
    make_stream,
    parse_whole,
    prepared_call,
    take_resumption,
    wire_tools,
)
from konko_async.resources._params import EXTRAS, ChatKeywords, split_options
from konko_async.resources._stored import StoredCompletions
from konko_async.wire import ChatCompletion, ChatMessage, Wire
from konko_async.wire._requests import ChatRequest

if TYPE_CHECKING:
    from konko_async._engine.engine import CallOptions
    from konko_async._structured.response_format import ResponseFormat
    from konko_async.resources._responses import PreparedCall

__all__ = ["Format", "Messages", "PreparedChat", "Tools", "no_model"]


class ModelLike(Protocol):
    """A pydantic model, as openai's results are; known by its method."""

    def model_dump(self) -> dict[str, Any]:
        """Return the fields as a dict."""


Messages = Sequence[Mapping[str, Any] | ChatMessage | Wire | ModelLike]
Tools = Sequence[Callable[..., Any] | Mapping[str, Any]]
Format = Mapping[str, Any] | None  # sent as it is; the answer's text is not parsed
# The parameters of create() that have names of their own never arrive in **params. response_format
# stays, as requests of map() may hold it.
_CHAT_KNOWN = frozenset(ChatRequest.__struct_fields__) - {"model", "messages", "stream"}
_USUAL = _CHAT_KNOWN - {"tools", "tool_choice"}  # what needs no look but at its values


class PreparedChat(Mapped[ChatCompletion], StoredCompletions):
    """Chat calls before they are sent."""

    __slots__ = ()

    _known = _CHAT_KNOWN | EXTRAS | {"model", "messages", "stream", "max_reasks"}

    def _prepare_parse(
        self, model: str, messages: Messages, response_format: Any, params: Any
    ) -> tuple[partial[Any], Any, list[Any]]:
        form = form_of(response_format)
        if form is None and response_format is not None and not is_marker(response_format):
            raise ConfigurationError("parse() takes a type as response_format, not a dict")
        tools = listed_tools(params)
        check_strict(tools)
        return self._prepare(model, messages, params, stream=None, form=form), form, tools

    def _prepared_create(
        self,
        *,
        model: str,
        messages: Messages,
        stream: bool | None = None,
        response_format: Any = None,
        **params: Unpack[ChatKeywords],
    ) -> PreparedCall:
        form = form_of(response_format)
        if form is not None and form.is_model:
            raise no_model()
        opened = self._prepare(model, messages, params, stream=stream, form=form or response_format)

        def result(answer: Any) -> Any:
            if stream:
                return make_stream(answer, form)
            return answer if form is None else form.parse(answer)

        return prepared_call().of(self._engine(), opened, result)

    def _prepared_parse(
        self,
        *,
        model: str,
        messages: Messages,
        response_format: Any = None,
        **params: Unpack[ChatKeywords],
    ) -> PreparedCall:
        prepared, form, tools = self._prepare_parse(model, messages, response_format, params)
        return prepared_call().of(
            self._engine(),
            prepared,
            lambda whole: parse_whole(whole, form, tools, ()),
            helper="chat.completions.parse",
        )

    def _open_stream(
        self, model: str, messages: Messages, params: Any, form: Any, stream: bool | None = True
    ) -> Callable[[], Any]:
        """Return what opens a stream, which may be made of several calls."""
        resumption = None
        if "resume" in params or "continue_on_length" in params:
            resumption = take_resumption(params, form, stream=bool(stream))
        opened = self._prepare(model, messages, params, stream=stream, form=form)
        if resumption is None:
            return opened

        def prepare(asked: Sequence[Any], again: dict[str, Any]) -> Callable[[], Any]:
            return self._prepare(model, asked, again, stream=True, form=form)

        return resumption.opener(opened, self._engine(), messages, prepare)

    def _prepare(
        self,
        model: str,
        messages: Messages,
        params: Any,
        *,
        stream: bool | None,
        form: ResponseFormat[Any] | Format,
    ) -> partial[Any]:
        # Validated by now: wrong arguments are raised by create() and stream(), not when the stream
        # is opened.
        return partial(
            self._call, *self._checked(model, messages, params, stream=stream, form=form)
        )

    def _checked(
        self,
        model: str,
        messages: Messages,
        params: Any,
        *,
        stream: bool | None,
        form: ResponseFormat[Any] | Format,
    ) -> tuple[ApiOperation, ChatRequest, CallOptions]:
        """Return the arguments of ``_call()``."""
        if _USUAL.issuperset(params):
            options = NO_OPTIONS
            drop_not_given(params)
        else:
            # First, as timeout=, extra_body= and the like are not parameters of the API.
            options = split_options(params)
            known_keywords("chat.completions", params, _CHAT_KNOWN)
            if params.get("tools") is not None or callable(params.get("tool_choice")):
                listed_tools(params)
                wire_tools(params)
        check_model(model)
        # Before check_sampling(), which looks for NaN in what the caller wrote; the schema of a
        # type comes after it, as we wrote that ourselves.
        if form is None or is_marker(form):
            check_sampling(params)
        elif isinstance(form, Mapping):
            params["response_format"] = form
            check_sampling(params)
        else:
            check_sampling(params)
            params["response_format"] = form.wire
        stream = check_stream(stream)
        body = ChatRequest(model=model, messages=check_messages(messages), stream=stream, **params)
        return CHAT, body, options


def no_model() -> TypeError:
    """Return the error for a pydantic model; its words are openai's, which draws the same line."""
    return TypeError(
        "You tried to pass a `BaseModel` class to `chat.completions.create()`; You must use "
        "`chat.completions.parse()` instead"
    )
