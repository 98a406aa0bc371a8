"""``client.chat.completions``: chat calls, whole, streamed, typed, fanned out or with tools."""

from __future__ import annotations

import functools
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Unpack, overload

from konko_async._core.not_given import drop_not_given, is_marker
from konko_async._core.validation import (
    check_messages,
)
from konko_async._engine.map import MapResults, Requests, fan_out
from konko_async._streaming.stages import unopened
from konko_async._streaming.stream import ChatStream
from konko_async.errors import ConfigurationError, StructuredOutputError
from konko_async.resources._base import EngineGetter
from konko_async.resources._chat_prepare import (
    Format,
    Messages,
    PreparedChat,
    Tools,
    no_model,
)
from konko_async.resources._lazy import (
    corrected,
    form_of,
    gives_events,
    listed_tools,
    make_stream,
    parse_whole,
    read_answer,
    refine,
    take_reasks,
    with_usage,
)
from konko_async.resources._params import (
    ChatKeywords,
    ToolKeywords,
    takes,
)
from konko_async.wire import ChatCompletion

if TYPE_CHECKING:
    from konko_async._structured.models import PydanticModel
    from konko_async._structured.parsed_stream import ParsedChatStream, ParsedEventStream
    from konko_async._structured.response_format import ResponseFormat
    from konko_async.resources._chat_responses import (
        ChatWithRawResponse,
        ChatWithStreamingResponse,
    )
    from konko_async.tools import ToolRun
    from konko_async.wire import ParsedChatCompletion

__all__ = ["Chat", "ChatCompletions"]

T = TypeVar("T")
M = TypeVar("M", bound="PydanticModel")


# Keywords that are not parameters of the API, and few calls have.
_OWN = frozenset({"max_reasks", "resume", "continue_on_length"})


class ChatCompletions(PreparedChat):
    """``POST /chat/completions``."""

    __slots__ = ()

    # Type checkers take the first overload that fits: literals come first, and `bool`, for a flag
    # that is known at run time only, comes last.
    @overload
    async def create(
        self,
        *,
        model: str,
        messages: Messages,
        stream: Literal[False] | None = None,
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
        stream: Literal[False] | None = None,
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
        stream: bool | None = None,
        response_format: Any = None,
        **params: Unpack[ChatKeywords],
    ) -> ChatCompletion | ChatStream:
        """Answer a conversation.

        Args:
            model: the model's id.
            messages: the whole conversation, as dicts or structs; the model remembers nothing.
            stream: False: return the whole answer; True: return a stream, open at its first
                token. A False that is given is sent, for servers that stream by default.
            response_format: a type that the answer's text is to be the JSON of (a msgspec.Struct,
                a dataclass, a TypedDict, ``list[...]``) or a ResponseFormat; or a dict, which is
                sent as it is.
            **params: the API's optional parameters, by its names; None is not sent. ``tools`` may
                hold Python functions. And ``timeout=``, ``priority=``, ``extra_headers=``,
                ``extra_query=``, ``extra_body=``; ``max_reasks=`` (0): how often an answer that is
                not of the type is requested again, with what was wrong with it. Each time is a
                call of its own, which costs tokens; ``usage`` is that of the last one.

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
        form = None
        if response_format is not None:
            form = form_of(response_format)
            if form is not None and form.is_model:
                raise no_model()
        # What is ours is taken out of `params` even where it is 0, as known_keywords() refuses it.
        # Without a type, response_format is a dict, None or a marker of the openai package.
        asked = form or response_format
        if not stream and _OWN.isdisjoint(params):
            checked = self._checked(model, messages, params, stream=stream, form=asked)
            response, call = await self._call(*checked)
        else:
            if "max_reasks" in params and (
                reasks := take_reasks(params, form, stream=bool(stream))
            ):
                return await self._create_again(model, messages, form, params, reasks)
            # Which may be made of several calls.
            opened = self._open_stream(model, messages, params, asked, stream)
            if stream:
                return await make_stream(opened, form)._open()  # noqa: SLF001 - create() returns the stream open
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
        response_format: type[M],
        **params: Unpack[ChatKeywords],
    ) -> ParsedEventStream[M]: ...

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
            A ChatStream that is opened by ``async with``, by ``await``, or on first use; with a
            type for a ``response_format``, a ParsedChatStream. Iterating over it gives chunks, and
            :meth:`ChatStream.events` gives the events that ``openai``'s ``stream()`` has. As
            ``openai``'s users know it, iterating itself gives events where the ``response_format``
            or a tool is a pydantic model, and from the first chunk on where its ``type`` is read,
            which chunks do not have.

        Raises:
            ConfigurationError: an argument is wrong; nothing was sent.
        """
        form = form_of(response_format)
        # Only to be checked: anything but 0 is refused for streams.
        if "max_reasks" in params:
            take_reasks(params, form, stream=True)
        tools = listed_tools(params) if "tools" in params else None
        opened = self._open_stream(model, messages, params, form or response_format)
        if form is None and not tools:
            return unopened(make_stream(opened, None), "offer")
        gives = "events" if gives_events(form, tools or ()) else "offer"
        made = make_stream(opened, form, events=gives == "events")
        return unopened(refine(made, form, tools or ()), gives)

    @overload
    async def parse(
        self,
        *,
        model: str,
        messages: Messages,
        response_format: type[T] | ResponseFormat[T],
        **params: Unpack[ChatKeywords],
    ) -> ParsedChatCompletion[T]: ...

    @overload
    async def parse(
        self,
        *,
        model: str,
        messages: Messages,
        response_format: None = None,
        **params: Unpack[ChatKeywords],
    ) -> ParsedChatCompletion[None]: ...

    @takes(ChatKeywords)
    async def parse(
        self,
        *,
        model: str,
        messages: Messages,
        response_format: Any = None,
        **params: Unpack[ChatKeywords],
    ) -> ParsedChatCompletion[Any]:
        """Answer a conversation with a value of a type; as ``openai`` has it.

        It differs from :meth:`create` with a type: pydantic models are taken, as
        ``response_format`` and as tools; the arguments of tool calls are values, too
        (``function.parsed_arguments``); and a refusal is no error.

        Args:
            model: the model's id.
            messages: the whole conversation.
            response_format: a pydantic model, or a type as for :meth:`create`.
            **params: as for :meth:`create`. Tools that are dicts have to be strict.

        Returns:
            The answer; ``choices[0].message.parsed`` is the value.

        Raises:
            ConfigurationError: an argument is wrong, such as a tool that is not strict.
            LengthFinishReasonError: the answer was cut.
            ContentFilterFinishReasonError: the answer was stopped by a filter.
            StructuredOutputError: the answer is not of the type.
            ToolArgumentsError: the arguments of a tool call do not fit.
            APIError: as for :meth:`create`.
        """
        prepared, form, tools = self._prepare_parse(model, messages, response_format, params)
        response, call = await prepared()
        return parse_whole(response.result, form, tools, call.attempts)

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
                (False), as for the other resources. ``max_reasks``, as for :meth:`create`, is given
                in each request.

        Returns:
            An async iterator of results with ``index``, ``request``, ``completion`` and ``error``.
            Leaving it early cancels what is in flight. Calls have the priority "batch" unless a
            request says otherwise.

        Raises:
            ConfigurationError: an argument cannot be used.
        """
        if response_format is None or is_marker(response_format):
            return super().map(requests, **options)
        form = form_of(response_format)
        if form is None:
            raise ConfigurationError(
                "map() takes a type as response_format; a dict goes into each request"
            )
        # Resolved once: all requests share the format, and the schema that it sends.
        call = functools.partial(self._create, response_format=form)
        known = self._known - {"response_format"}  # one of its own would be of another type
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
        start and finish. The model gets what tools raise, and what is wrong with calls.

        Args:
            model: the model's id.
            messages: the conversation so far; it is not changed.
            tools: functions, sync or async, or Tools.
            response_format: as for :meth:`create`; the last answer has the value.
            **params: as for :meth:`create`, and: ``max_rounds`` (10) answers of the model and
                ``max_tool_calls`` (100) in all; ``tool_timeout`` (60 s) of one call and
                ``total_timeout`` (None) of everything, in seconds; ``max_concurrency`` (8) calls
                at once; ``run_in_thread`` (True): sync functions run in threads, else in the event
                loop; ``max_output`` (100,000) characters of a tool's result, of which the rest is
                cut off; ``on_error`` ("message"): the model gets what a tool raised or what is
                wrong with a call's arguments, or "raise" it;
                ``before_tool``: a function, sync or async, of each call before it is made, which
                returns True, False (the model gets a refusal), or a text (which the model gets
                instead). A ``tool_choice`` that forces a call does so in the
                first round only; the tools that ``allowed_tools`` leaves out are never called.

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
        # Before RunOptions is made: a marker of the openai package must not become a limit.
        drop_not_given(values)
        options = RunOptions(
            **{name: values.pop(name) for name in RunOptions.__struct_fields__ if name in values}
        )
        messages = check_messages(messages)
        if not messages:
            raise ConfigurationError("messages is empty; at least one message is needed")
        if values.get("n") not in {None, 1}:
            raise ConfigurationError("run_tools() goes on with one answer: n must be 1")
        # Apart from the rest, as a choice that forces a call holds for the first round only: the
        # model would never come to an answer.
        choice = values.pop("tool_choice", None)
        shared = {**values, "model": model, "tools": tools, "response_format": response_format}
        run: ToolRun[Any] = ToolRun(
            create=functools.partial(self.create, **shared),
            # Streams report usage on request only, and the run adds up that of all rounds.
            stream=functools.partial(self.stream, **with_usage(shared)),
            # Copied, as the run appends to it.
            messages=list(messages),
            tools=list(tools),
            tool_choice=choice,
            options=options,
        )
        # Says what is wrong before anything is sent, not in the first round.
        self.stream(messages=messages, tool_choice=choice, **shared)
        return run

    async def _create_again(
        self, model: str, messages: Messages, form: Any, params: Any, reasks: int
    ) -> ChatCompletion:
        """Create until the answer is of its type, with at most ``reasks`` repetitions."""
        while True:
            try:
                # `params` has no max_reasks any more, so this does not come back here.
                completion: ChatCompletion = await self.create(
                    model=model, messages=messages, response_format=form, **params
                )
            except StructuredOutputError as error:
                # The other reasons would recur: more JSON does not help against a limit of tokens,
                # a refusal or a filter.
                if not reasks or error.reason not in {"invalid", "empty"}:
                    raise
                messages = corrected(messages, error)
                reasks -= 1
            else:
                return completion

    def _create(self, **arguments: Any) -> Awaitable[Any]:
        return self.create(**arguments)

    @property
    def with_raw_response(self) -> ChatWithRawResponse:
        """The same calls, returning the HTTP response: headers, status, bytes and ``parse()``."""
        from konko_async.resources._chat_responses import ChatWithRawResponse  # noqa: PLC0415 - for few calls

        return ChatWithRawResponse(self)

    @property
    def with_streaming_response(self) -> ChatWithStreamingResponse:
        """As :attr:`with_raw_response`, by ``async with``; the body is read only on request."""
        from konko_async.resources._chat_responses import ChatWithStreamingResponse  # noqa: PLC0415 - for few calls

        return ChatWithStreamingResponse(self)


# The defaults of Mapped.map(), which a map() with a type does not go through: keep them the same.
_MAP_OPTIONS = {"max_concurrency": 256, "ordered": False, "window": None, "fail_fast": False}


class Chat:
    """``client.chat``.

    Attributes:
        completions: chat completions.
    """

    __slots__ = ("completions",)

    def __init__(self, engine: EngineGetter) -> None:
        self.completions = ChatCompletions(engine)
