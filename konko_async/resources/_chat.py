"""``client.chat.completions``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Literal, Unpack, overload

from konko_async._checks import (
    check_messages,
    check_model,
    check_sampling,
    check_stream,
    known_keywords,
)
from konko_async._operations import CHAT
from konko_async._pipeline import Call, Response
from konko_async._stream import ChatStream
from konko_async.resources._base import EngineGetter, Mapped
from konko_async.resources._keywords import EXTRAS, ChatKeywords, split_options, takes
from konko_async.wire import ChatCompletion, ChatMessage, Wire
from konko_async.wire._requests import ChatRequest

__all__ = ["Chat", "ChatCompletions"]

Messages = Sequence[Mapping[str, Any] | ChatMessage | Wire]
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
        **params: Unpack[ChatKeywords],
    ) -> ChatCompletion: ...

    @overload
    async def create(
        self,
        *,
        model: str,
        messages: Messages,
        stream: Literal[True],
        **params: Unpack[ChatKeywords],
    ) -> ChatStream: ...

    @overload
    async def create(
        self, *, model: str, messages: Messages, stream: bool, **params: Unpack[ChatKeywords]
    ) -> ChatCompletion | ChatStream: ...

    @takes(ChatKeywords)
    async def create(
        self,
        *,
        model: str,
        messages: Messages,
        stream: bool = False,
        **params: Unpack[ChatKeywords],
    ) -> ChatCompletion | ChatStream:
        """Answer a conversation.

        Args:
            model: the model's id.
            messages: the whole conversation, as dicts or structs; the model remembers nothing.
            stream: False: return the whole answer; True: return a stream, open at its first
                token.
            **params: the API's optional parameters, by its names; None is not sent. And
                ``timeout=``, ``priority=``, ``extra_headers=``, ``extra_query=``,
                ``extra_body=``.

        Returns:
            A ChatCompletion; with ``stream=True`` a ChatStream.

        Raises:
            ConfigurationError: an argument is wrong; nothing was sent.
            RateLimitTimeoutError: the local limits cannot admit the call in time.
            CircuitOpenError: the server has been failing; nothing was sent.
            APIError: what the server or the network did, after all attempts.
        """
        opened = self._prepare(model, messages, stream=stream, params=params)
        if stream:
            return await ChatStream(opened)._open()  # noqa: SLF001 - create() returns it open
        response, _ = await opened()
        result: ChatCompletion = response.result
        return result

    @takes(ChatKeywords)
    def stream(
        self, *, model: str, messages: Messages, **params: Unpack[ChatKeywords]
    ) -> ChatStream:
        """Answer a conversation piece by piece; use it with ``async with``.

        Args:
            model: the model's id.
            messages: the whole conversation.
            **params: as for :meth:`create`.

        Returns:
            A ChatStream that is opened by ``async with``, or on first use.

        Raises:
            ConfigurationError: an argument is wrong; nothing was sent.
        """
        return ChatStream(self._prepare(model, messages, stream=True, params=params))

    def _create(self, **arguments: Any) -> Awaitable[Any]:
        return self.create(**arguments)

    def _prepare(
        self, model: str, messages: Messages, *, stream: bool, params: Any
    ) -> Callable[[], Any]:
        options = split_options(params)
        known_keywords("chat.completions", params, _CHAT_KNOWN)
        check_model(model)
        check_messages(messages)
        check_sampling(params)
        check_stream(stream)
        body = ChatRequest(model=model, messages=messages, stream=stream, **params)

        async def call() -> tuple[Response, Call]:
            engine = self._engine()
            await self._verify(engine, model, "chat")
            return await engine.call(
                CHAT, CHAT.path, body, model=model, stream=stream, options=options
            )

        return call


class Chat:
    """``client.chat``.

    Attributes:
        completions: chat completions.
    """

    __slots__ = ("completions",)

    def __init__(self, engine: EngineGetter) -> None:
        self.completions = ChatCompletions(engine)
