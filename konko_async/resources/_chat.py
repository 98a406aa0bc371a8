"""``client.chat.completions``."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Unpack, overload

from konko_async._checks import (
    check_messages,
    check_model,
    check_sampling,
    check_stream,
    known_keywords,
)
from konko_async._fanout import MapResults, Requests, fan_out
from konko_async._operations import CHAT
from konko_async._stream import ChatStream
from konko_async.errors import ConfigurationError
from konko_async.resources._base import EngineGetter, Mapped
from konko_async.resources._keywords import (
    EXTRAS,
    ChatKeywords,
    ToolKeywords,
    split_options,
    takes,
)
from konko_async.resources._late import (
    form_of,
    make_stream,
    read_answer,
    wire_tools,
    with_usage,
)
from konko_async.wire import ChatCompletion, ChatMessage, ParsedChatCompletion, Wire
from konko_async.wire._requests import ChatRequest

if TYPE_CHECKING:
    from konko_async._parsed_stream import ParsedChatStream
    from konko_async._structured import ResponseFormat
    from konko_async.tools import ToolRun

__all__ = ["Chat", "ChatCompletions"]

T = TypeVar("T")

Messages = Sequence[Mapping[str, Any] | ChatMessage | Wire]
Tools = Sequence[Callable[..., Any] | Mapping[str, Any]]
Format = Mapping[str, Any] | None  # of an answer whose text is left as it is
_CHAT_KNOWN = frozenset(ChatRequest.__struct_fields__) - {"model", "messages", "stream"}


class ChatCompletions(Mapped[ChatCompletion]):
    """``POST /chat/completions``."""

    __slots__ = ()

    _known = _CHAT_KNOWN | EXTRAS | {"model", "messages", "stream"}

    @overload
    async def create(
        self,
        *,
        model: str,
        messages: Messages,
        stream: Literal[False] = False,
        response_format: Format = None,
        **params: Unpack[ChatKeywords],
    ) -> ChatCompletion: ...

    @overload
    async def create(
        self,
        *,
        model: str,
        messages: Messages,
        stream: Literal[True],
        response_format: Format = None,
        **params: Unpack[ChatKeywords],
    ) -> ChatStream: ...

    @overload
    async def create(
        self,
        *,
        model: str,
        messages: Messages,
        stream: Literal[False] = False,
        response_format: type[T] | ResponseFormat[T],
        **params: Unpack[ChatKeywords],
    ) -> ParsedChatCompletion[T]: ...

    @overload
    async def create(
        self,
        *,
        model: str,
        messages: Messages,
        stream: Literal[True],
        response_format: type[T] | ResponseFormat[T],
        **params: Unpack[ChatKeywords],
    ) -> ParsedChatStream[T]: ...

    @overload
    async def create(
        self,
        *,
        model: str,
        messages: Messages,
        stream: bool,
        response_format: Format | type[Any] | ResponseFormat[Any] = None,
        **params: Unpack[ChatKeywords],
    ) -> ChatCompletion | ChatStream: ...

    @takes(ChatKeywords)
    async def create(
        self,
        *,
        model: str,
        messages: Messages,
        stream: bool = False,
        response_format: Any = None,
        **params: Unpack[ChatKeywords],
    ) -> ChatCompletion | ChatStream:
        """Answer a conversation.

        Args:
            model: the model's id.
            messages: the whole conversation, as dicts or structs; the model remembers nothing.
            stream: False: return the whole answer; True: return a stream, open at its first
                token.
            response_format: a type that the answer's text is to be the JSON of (a msgspec.Struct,
                a dataclass, a TypedDict, ``list[...]``) or a ResponseFormat; or a dict, which is
                sent as it is.
            **params: the API's optional parameters, by its names; None is not sent. ``tools`` may
                hold Python functions. And ``timeout=``, ``priority=``, ``extra_headers=``,
                ``extra_query=``, ``extra_body=``.

        Returns:
            A ChatCompletion; with ``stream=True`` a ChatStream. With a type, those that have the
            value too: ``completion.parsed``, ``stream.partial()``.

        Raises:
            ConfigurationError: an argument is wrong; nothing was sent.
            RateLimitTimeoutError: the local limits cannot admit the call in time.
            CircuitOpenError: the server has been failing; nothing was sent.
            StructuredOutputError: the answer is not of the type; it is in ``.completion``.
            APIError: what the server or the network did, after all attempts.
        """
        form = form_of(response_format)
        opened = self._prepare(model, messages, params, stream=stream, form=form or response_format)
        if stream:
            return await make_stream(opened, form)._open()  # noqa: SLF001 - create() returns it open
        response, call = await opened()
        result: ChatCompletion = response.result
        return result if form is None else read_answer(form, result, call)

    @overload
    def stream(
        self,
        *,
        model: str,
        messages: Messages,
        response_format: Format = None,
        **params: Unpack[ChatKeywords],
    ) -> ChatStream: ...

    @overload
    def stream(
        self,
        *,
        model: str,
        messages: Messages,
        response_format: type[T] | ResponseFormat[T],
        **params: Unpack[ChatKeywords],
    ) -> ParsedChatStream[T]: ...

    @takes(ChatKeywords)
    def stream(
        self,
        *,
        model: str,
        messages: Messages,
        response_format: Any = None,
        **params: Unpack[ChatKeywords],
    ) -> ChatStream:
        """Answer a conversation piece by piece; use it with ``async with``.

        Args:
            model: the model's id.
            messages: the whole conversation.
            response_format: as for :meth:`create`.
            **params: as for :meth:`create`.

        Returns:
            A ChatStream that is opened by ``async with``, or on first use; with a type for a
            ``response_format``, a ParsedChatStream.

        Raises:
            ConfigurationError: an argument is wrong; nothing was sent.
        """
        form = form_of(response_format)
        opened = self._prepare(model, messages, params, stream=True, form=form or response_format)
        return make_stream(opened, form)

    @overload
    def map(
        self,
        requests: Requests,
        *,
        response_format: None = None,
        max_concurrency: int = 256,
        ordered: bool = False,
        window: int | None = None,
        fail_fast: bool = False,
    ) -> MapResults[ChatCompletion]: ...

    @overload
    def map(
        self,
        requests: Requests,
        *,
        response_format: type[T] | ResponseFormat[T],
        max_concurrency: int = 256,
        ordered: bool = False,
        window: int | None = None,
        fail_fast: bool = False,
    ) -> MapResults[ParsedChatCompletion[T]]: ...

    def map(
        self, requests: Requests, *, response_format: Any = None, **options: Any
    ) -> MapResults[Any]:
        """Make a call for each request, many at once, in bounded memory.

        Args:
            requests: an iterable or async iterable of dicts of :meth:`create` arguments; read
                lazily, as results are taken.
            response_format: a type or ResponseFormat that all answers are to have; an answer that
                has not is a result with its StructuredOutputError.
            **options: ``max_concurrency`` (256), ``ordered`` (False), ``window`` and ``fail_fast``
                (False), as for the other resources.

        Returns:
            An async iterator of results with ``index``, ``request``, ``completion`` and ``error``.
            Leaving it early cancels what is in flight. Calls have the priority "batch" unless a
            request says otherwise.

        Raises:
            ConfigurationError: an argument cannot be used.
        """
        if response_format is None:
            return super().map(requests, **options)
        form = form_of(response_format)
        if form is None:
            raise ConfigurationError(
                "map() takes a type as response_format; a dict goes into each request"
            )
        call = functools.partial(self._create, response_format=form)
        known = self._known - {"response_format"}  # whose own would have another type
        return fan_out(call, requests, known=known, **{**_MAP_OPTIONS, **options})

    @overload
    def run_tools(
        self,
        *,
        model: str,
        messages: Messages,
        tools: Tools,
        response_format: Format = None,
        **params: Unpack[ToolKeywords],
    ) -> ToolRun[ChatCompletion]: ...

    @overload
    def run_tools(
        self,
        *,
        model: str,
        messages: Messages,
        tools: Tools,
        response_format: type[T] | ResponseFormat[T],
        **params: Unpack[ToolKeywords],
    ) -> ToolRun[ParsedChatCompletion[T]]: ...

    @takes(ToolKeywords)
    def run_tools(
        self,
        *,
        model: str,
        messages: Messages,
        tools: Tools,
        response_format: Any = None,
        **params: Unpack[ToolKeywords],
    ) -> ToolRun[Any]:
        """Let the model call Python functions until it is done.

        ``await`` it for the result, or iterate over it for events: text as it comes, tools that
        start and finish. What tools raise, and calls that make no sense, is told to the model.

        Args:
            model: the model's id.
            messages: the conversation so far; it is not changed.
            tools: functions, sync or async, or Tools.
            response_format: as for :meth:`create`; the last answer has the value.
            **params: as for :meth:`create`, and: ``max_rounds`` (10) answers of the model and
                ``max_tool_calls`` (100) in all; ``tool_timeout`` (60 s) of one call and
                ``total_timeout`` (None) of everything, in seconds; ``max_concurrency`` (8) calls
                at once; ``run_in_thread`` (True): sync functions run in threads, else in the event
                loop; ``on_error`` ("message"): tell the model what a tool raised, or "raise" it;
                ``before_tool``: a function, sync or async, of each call before it is made, which
                returns True, False (the model is told that it is not allowed), or a text (the
                model is told that instead). A ``tool_choice`` that forces a call does so in the
                first round only.

        Returns:
            A ToolRun, which has not begun.

        Raises:
            ConfigurationError: an argument is wrong; nothing was sent.
            ToolLimitError: when run: a limit was reached; ``.messages`` holds what there is so far.
            ToolFailedError: when run, with ``on_error="raise"``: a tool raised.
            KonkoError: when run: as for :meth:`create`.
        """
        from konko_async.tools._run import RunOptions, ToolRun  # noqa: PLC0415 - for few calls only

        values: Any = params
        options = RunOptions(
            **{name: values.pop(name) for name in RunOptions.__struct_fields__ if name in values}
        )
        check_messages(messages)
        if values.get("n") not in {None, 1}:
            raise ConfigurationError("run_tools() goes on with one answer: n must be 1")
        choice = values.pop("tool_choice", None)
        shared = {**values, "model": model, "tools": tools, "response_format": response_format}
        run: ToolRun[Any] = ToolRun(
            create=functools.partial(self.create, **shared),
            stream=functools.partial(self.stream, **with_usage(shared)),
            messages=list(messages),
            tools=list(tools),
            tool_choice=choice,
            options=options,
        )
        # Says what is wrong before anything is sent, not in the first round.
        self.stream(messages=messages, tool_choice=choice, **shared)
        return run

    def _create(self, **arguments: Any) -> Awaitable[Any]:
        return self.create(**arguments)

    def _prepare(
        self,
        model: str,
        messages: Messages,
        params: Any,
        *,
        stream: bool,
        form: ResponseFormat[Any] | Format,
    ) -> Callable[[], Any]:
        options = split_options(params)
        known_keywords("chat.completions", params, _CHAT_KNOWN)
        check_model(model)
        check_messages(messages)
        if params.get("tools") is not None or callable(params.get("tool_choice")):
            wire_tools(params)
        if form is not None and isinstance(form, Mapping):
            params["response_format"] = form
        check_sampling(params)
        if form is not None and not isinstance(form, (dict, Mapping)):
            params["response_format"] = form.wire
        check_stream(stream)
        body = ChatRequest(model=model, messages=messages, stream=stream, **params)

        return partial(self._call, CHAT, body, options)


_MAP_OPTIONS = {"max_concurrency": 256, "ordered": False, "window": None, "fail_fast": False}


class Chat:
    """``client.chat``.

    Attributes:
        completions: chat completions.
    """

    __slots__ = ("completions",)

    def __init__(self, engine: EngineGetter) -> None:
        self.completions = ChatCompletions(engine)
