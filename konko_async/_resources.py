"""``client.chat.completions``, ``client.completions``, ``client.embeddings``, ``client.models``."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable, Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypedDict, TypeVar, Unpack, get_type_hints, overload

from konko_async._checks import check_messages, check_model, check_sampling, known_keywords
from konko_async._engine import CallOptions, Engine
from konko_async._operations import CHAT, COMPLETIONS, EMBEDDINGS, MODEL, MODELS
from konko_async._stream import ChatStream, CompletionStream
from konko_async._transport import model_path
from konko_async._verify import ModelIndex
from konko_async.errors import ConfigurationError
from konko_async.wire import (
    ChatCompletion,
    ChatMessage,
    Completion,
    CreateEmbeddingResponse,
    Model,
    ModelList,
    Wire,
)
from konko_async.wire._requests import (
    ChatParams,
    ChatRequest,
    CompletionParams,
    CompletionRequest,
    EmbeddingParams,
    EmbeddingRequest,
)

if TYPE_CHECKING:
    from konko_async._options import Priority, Timeout
    from konko_async._pipeline import Call, Response

__all__ = ["Chat", "ChatCompletions", "Completions", "Embeddings", "Models"]

F = TypeVar("F", bound=Callable[..., Any])
EngineGetter = Callable[[], Engine]
Messages = Sequence["Mapping[str, Any] | ChatMessage | Wire"]


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


class _ChatKeywords(ChatParams, Extras, total=False):
    """All optional keywords of a chat call."""


class _CompletionKeywords(CompletionParams, Extras, total=False):
    """All optional keywords of a text completion."""


class _EmbeddingKeywords(EmbeddingParams, Extras, total=False):
    """All optional keywords of an embeddings call."""


_EXTRAS = frozenset(Extras.__annotations__)


def _takes(keywords: type) -> Callable[[F], F]:
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


def _options(params: dict[str, Any]) -> CallOptions:
    """Take the keywords that are ours out of ``params``."""
    if _EXTRAS.isdisjoint(params):
        return CallOptions()
    return CallOptions(**{name: params.pop(name) for name in _EXTRAS & params.keys()})


class _Resource:
    __slots__ = ("_engine",)

    def __init__(self, engine: EngineGetter) -> None:
        self._engine = engine

    async def _verify(self, engine: Engine, model: str, kind: Literal["chat", "text"]) -> None:
        if engine.policies.verify_models:
            if engine.index is None:
                models = Models(lambda: engine)

                async def fetch() -> list[Model]:
                    return (await models.list()).data

                engine.index = ModelIndex(fetch)
            await engine.index.check(model, kind)


class ChatCompletions(_Resource):
    """``POST /chat/completions``."""

    __slots__ = ()

    @overload
    async def create(
        self,
        *,
        model: str,
        messages: Messages,
        stream: Literal[False] = False,
        **params: Unpack[_ChatKeywords],
    ) -> ChatCompletion: ...

    @overload
    async def create(
        self,
        *,
        model: str,
        messages: Messages,
        stream: Literal[True],
        **params: Unpack[_ChatKeywords],
    ) -> ChatStream: ...

    @overload
    async def create(
        self, *, model: str, messages: Messages, stream: bool, **params: Unpack[_ChatKeywords]
    ) -> ChatCompletion | ChatStream: ...

    @_takes(_ChatKeywords)
    async def create(
        self,
        *,
        model: str,
        messages: Messages,
        stream: bool = False,
        **params: Unpack[_ChatKeywords],
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
        opened = self._prepare(model, messages, stream=stream, params=dict(params))
        if stream:
            return await ChatStream(opened)._open()  # noqa: SLF001 - create() returns it open
        response, _ = await opened()
        result: ChatCompletion = response.result
        return result

    @_takes(_ChatKeywords)
    def stream(
        self, *, model: str, messages: Messages, **params: Unpack[_ChatKeywords]
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
        return ChatStream(self._prepare(model, messages, stream=True, params=dict(params)))

    def _prepare(
        self, model: str, messages: Messages, *, stream: bool, params: dict[str, Any]
    ) -> Callable[[], Any]:
        options = _options(params)
        known_keywords("chat.completions", params, _CHAT_KNOWN)
        check_model(model)
        check_messages(messages)
        check_sampling(params)
        _check_stream(stream)
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


class Completions(_Resource):
    """``POST /completions``: one prompt in, text out."""

    __slots__ = ()

    @overload
    async def create(
        self,
        *,
        model: str,
        prompt: str | list[str] | list[int] | list[list[int]],
        stream: Literal[False] = False,
        **params: Unpack[_CompletionKeywords],
    ) -> Completion: ...

    @overload
    async def create(
        self,
        *,
        model: str,
        prompt: str | list[str] | list[int] | list[list[int]],
        stream: Literal[True],
        **params: Unpack[_CompletionKeywords],
    ) -> CompletionStream: ...

    @overload
    async def create(
        self,
        *,
        model: str,
        prompt: str | list[str] | list[int] | list[list[int]],
        stream: bool,
        **params: Unpack[_CompletionKeywords],
    ) -> Completion | CompletionStream: ...

    @_takes(_CompletionKeywords)
    async def create(
        self,
        *,
        model: str,
        prompt: str | list[str] | list[int] | list[list[int]],
        stream: bool = False,
        **params: Unpack[_CompletionKeywords],
    ) -> Completion | CompletionStream:
        """Continue a prompt.

        Args:
            model: the id of a text model.
            prompt: the text to continue.
            stream: False: return the whole answer; True: return a stream, open at its first
                token.
            **params: as for chat completions.

        Returns:
            A Completion; with ``stream=True`` a CompletionStream.

        Raises:
            KonkoError: as for chat completions.
        """
        opened = self._prepare(model, prompt, stream=stream, params=dict(params))
        if stream:
            return await CompletionStream(opened)._open()  # noqa: SLF001 - returned open
        response, _ = await opened()
        result: Completion = response.result
        return result

    @_takes(_CompletionKeywords)
    def stream(
        self,
        *,
        model: str,
        prompt: str | list[str] | list[int] | list[list[int]],
        **params: Unpack[_CompletionKeywords],
    ) -> CompletionStream:
        """Continue a prompt piece by piece; use it with ``async with``.

        Raises:
            ConfigurationError: an argument is wrong; nothing was sent.
        """
        return CompletionStream(self._prepare(model, prompt, stream=True, params=dict(params)))

    def _prepare(
        self, model: str, prompt: Any, *, stream: bool, params: dict[str, Any]
    ) -> Callable[[], Any]:
        options = _options(params)
        known_keywords("completions", params, _COMPLETION_KNOWN)
        check_model(model)
        _check_input("prompt", prompt)
        check_sampling(params)
        _check_stream(stream)
        body = CompletionRequest(model=model, prompt=prompt, stream=stream, **params)

        async def call() -> tuple[Response, Call]:
            engine = self._engine()
            await self._verify(engine, model, "text")
            return await engine.call(
                COMPLETIONS, COMPLETIONS.path, body, model=model, stream=stream, options=options
            )

        return call


class Embeddings(_Resource):
    """``POST /embeddings``."""

    __slots__ = ()

    @_takes(_EmbeddingKeywords)
    async def create(
        self,
        *,
        model: str,
        input: str | list[str] | list[int] | list[list[int]],
        **params: Unpack[_EmbeddingKeywords],
    ) -> CreateEmbeddingResponse:
        """Turn texts into vectors.

        Args:
            model: the id of an embedding model.
            input: a text, a list of texts, or tokens.
            **params: ``encoding_format`` says how vectors travel ("base64" by default, a quarter
                of the bytes); they arrive as lists of floats either way. ``dimensions``,
                ``user``, and the keywords that every call takes.

        Returns:
            The vectors, ``.data[i].embedding``, with ``.index`` into the input.

        Raises:
            KonkoError: as for chat completions.
        """
        values: dict[str, Any] = dict(params)
        options = _options(values)
        known_keywords("embeddings.create", values, _EMBEDDING_KNOWN)
        check_model(model)
        _check_input("input", input)
        check_sampling(values)
        form = values.setdefault("encoding_format", "base64") or "base64"
        if form not in {"base64", "float"}:
            raise ConfigurationError(
                f'encoding_format must be "base64" or "float", not {form!r:.40}'
            )
        values["encoding_format"] = form
        body = EmbeddingRequest(model=model, input=input, **values)
        response, _ = await self._engine().call(
            EMBEDDINGS, EMBEDDINGS.path, body, model=model, options=options
        )
        result: CreateEmbeddingResponse = response.result
        return result


class ModelPage:
    """The result of ``models.list()`` before it is fetched: await it, or iterate over it."""

    __slots__ = ("_fetch",)

    def __init__(self, fetch: Callable[[], Any]) -> None:
        self._fetch = fetch

    def __await__(self) -> Generator[Any, None, ModelList]:
        page: Generator[Any, None, ModelList] = self._fetch().__await__()
        return page

    async def __aiter__(self) -> AsyncIterator[Model]:
        for model in (await self).data:
            yield model


class Models(_Resource):
    """``GET /models``."""

    __slots__ = ()

    def list(self, **extras: Unpack[Extras]) -> ModelPage:
        """List the models: ``await`` it for a page with ``.data``, or use ``async for``.

        Raises:
            APIError: as for every call, once it is awaited.
        """
        values: dict[str, Any] = dict(extras)
        options = _options(values)
        known_keywords("models.list", values, _EXTRAS)

        async def fetch() -> ModelList:
            response, _ = await self._engine().call(
                MODELS, MODELS.path, None, model=None, options=options
            )
            result: ModelList = response.result
            return result

        return ModelPage(fetch)

    async def retrieve(self, model: str, **extras: Unpack[Extras]) -> Model:
        """Return one model.

        Args:
            model: its id; slashes are part of it.
            **extras: the keywords that every call takes.

        Raises:
            ConfigurationError: not a usable id.
            NotFoundError: there is no such model.
            APIError: as for every call.
        """
        values: dict[str, Any] = dict(extras)
        options = _options(values)
        known_keywords("models.retrieve", values, _EXTRAS)
        path = model_path(model)
        response, _ = await self._engine().call(MODEL, path, None, model=None, options=options)
        result: Model = response.result
        return result


_CHAT_KNOWN = frozenset(ChatRequest.__struct_fields__) - {"model", "messages", "stream"}
_COMPLETION_KNOWN = frozenset(CompletionRequest.__struct_fields__) - {"model", "prompt", "stream"}
_EMBEDDING_KNOWN = frozenset(EmbeddingRequest.__struct_fields__) - {"model", "input"}


def _check_input(name: str, value: object) -> None:
    kinds = {type(item) for item in value} if isinstance(value, (list, tuple)) else {type(value)}
    if not kinds:
        raise ConfigurationError(f"{name} is empty")
    if len(kinds) > 1 or not kinds <= {str, int, list} or isinstance(value, (int, dict)):
        raise ConfigurationError(
            f"{name} must be a text, a list of texts, a list of tokens or a list of such lists"
        )


def _check_stream(stream: object) -> None:
    if not isinstance(stream, bool):
        raise ConfigurationError(f"stream must be True or False, not {type(stream).__name__}")
