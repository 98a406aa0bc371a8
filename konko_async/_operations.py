"""The endpoints: how a request's body is written and its answer read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import UNSET

from konko_async._accumulate import ChatAccumulator, CompletionAccumulator
from konko_async._feed import Feed
from konko_async._server_errors import find_error, stream_error
from konko_async.errors import APIConnectionError, APIError, ResponseDecodeError
from konko_async.wire import (
    ChatCompletion,
    ChatCompletionChunk,
    Completion,
    CreateEmbeddingResponse,
    Embedding,
    Model,
    ModelList,
)
from konko_async.wire._codec import Codec, decode_json, encode
from konko_async.wire._embeddings import WireEmbeddings, unpack_vector

if TYPE_CHECKING:
    from collections.abc import Callable

    from konko_async._pipeline import Request
    from konko_async._transport import Answer

__all__ = ["CHAT", "COMPLETIONS", "EMBEDDINGS", "MODEL", "MODELS", "Endpoint"]

_BODY_SHOWN = 4096


class Endpoint:
    """One endpoint of the API; an :class:`~konko_async._pipeline.Operation`.

    Attributes:
        name: OpenTelemetry's ``gen_ai.operation.name``.
        method: the HTTP method.
        path: below the base URL.
    """

    __slots__ = ("_codec", "_finish", "_stream", "method", "name", "path")

    def __init__(
        self,
        name: str,
        method: str,
        path: str,
        codec: Codec[Any],
        *,
        finish: Callable[[Any, bytes, Answer], Any],
        stream: tuple[Codec[Any], Callable[[], Any]] | None = None,
    ) -> None:
        self.name = name
        self.method = method
        self.path = path
        self._codec = codec
        self._finish = finish
        self._stream = stream

    def encode(self, params: Any) -> bytes | None:
        """Return the JSON body, None where there is none.

        Raises:
            ConfigurationError: it holds something that JSON cannot carry.
        """
        return None if params is None else encode(params)

    def decode(self, body: bytes, answer: Answer) -> Any:
        """Return the struct of a whole answer.

        Raises:
            ResponseDecodeError: it is not what was promised.
            APIConnectionError: it was cut short.
            APIStatusError, StreamServerError: it is an error in the clothes of a 200.
        """
        try:
            value = self._codec.decode(body)
        except ResponseDecodeError as error:
            failure: APIError = _cut_short(error, answer) if error.retryable else error
            if not error.retryable:
                failure = _hidden_error(body, answer) or error
        else:
            return self._finish(value, body, answer)
        raise failure

    def open_stream(self, request: Request, answer: Answer) -> Feed[Any, Any]:
        """Return the feed of a streamed answer."""
        assert self._stream is not None  # noqa: S101 - only the streaming endpoints offer stream=
        codec, accumulator = self._stream
        params = request.params
        n = params.get("n") if isinstance(params, dict) else params.n
        return Feed(request, answer, codec, accumulator(), choices=n or 1)


def _cut_short(error: ResponseDecodeError, answer: Answer) -> APIConnectionError:
    """Say what JSON that ends too early means: the connection was closed under it.

    A body whose end is the connection's end (it has neither length nor chunks) looks whole to
    aiohttp.
    """
    return APIConnectionError(f"the answer of {answer.host} was cut short: {error.message}")


def _hidden_error(body: bytes, answer: Answer) -> APIError | None:
    """Return the error that a 200 answer carries, or None."""
    try:
        value = decode_json(body)
    except ResponseDecodeError:
        return None
    if find_error(value) is None:
        return None
    return stream_error(value, answer.headers, answer.request_id, delivered=False)


def _missing(what: str, body: bytes, answer: Answer) -> APIError:
    return _hidden_error(body, answer) or ResponseDecodeError(
        f"the server's answer has no {what}", body=body[:_BODY_SHOWN]
    )


def _finish_completion(value: ChatCompletion | Completion, body: bytes, answer: Answer) -> Any:
    if value.error is not UNSET or not value.choices:
        failure = _hidden_error(body, answer)
        if failure is not None:
            raise failure
    value.request_id = answer.request_id
    if not value.choices and not isinstance(value.raw.get("choices"), list):
        raise _missing("choices", body, answer)
    if value.usage is not None and not value.usage.known:
        value.usage = None  # {} tells nothing; unknown is not 0
    return value


def _finish_chat(value: ChatCompletion, body: bytes, answer: Answer) -> ChatCompletion:
    for choice in value.choices:
        choice.message.role = choice.message.role or "assistant"
    _finish_completion(value, body, answer)
    return value


def _finish_embeddings(
    value: WireEmbeddings, body: bytes, answer: Answer
) -> CreateEmbeddingResponse:
    data = []
    for item in value.data:
        vector = item.embedding
        if isinstance(vector, str):
            try:
                vector = unpack_vector(vector)
            except ValueError as error:
                problem = ResponseDecodeError(
                    f"embedding {item.index} cannot be read: {error}", body=body[:_BODY_SHOWN]
                )
            else:
                data.append(Embedding(vector, item.index, item.object))
                continue
            raise problem
        data.append(Embedding(vector, item.index, item.object))
    result = CreateEmbeddingResponse(data, value.model, value.object, value.usage)
    result._raw = value._raw  # noqa: SLF001 - the JSON goes with the answer
    result.request_id = answer.request_id
    return result


def _finish_models(value: ModelList, _body: bytes, _answer: Answer) -> ModelList:
    """Give each model its own JSON: what this package has no name for stays with the model."""
    listed = value.raw
    items = listed.get("data") if isinstance(listed, dict) else listed
    if isinstance(items, list) and len(items) == len(value.data):
        for model, item in zip(value.data, items, strict=True):
            model._raw = encode(item)  # noqa: SLF001 - the slot of Wire
    return value


def _finish_as_is(value: Any, _body: bytes, _answer: Answer) -> Any:
    return value


CHAT = Endpoint(
    "chat",
    "POST",
    "/chat/completions",
    Codec(ChatCompletion),
    finish=_finish_chat,
    stream=(Codec(ChatCompletionChunk), ChatAccumulator),
)
COMPLETIONS = Endpoint(
    "text_completion",
    "POST",
    "/completions",
    Codec(Completion),
    finish=_finish_completion,
    stream=(Codec(Completion), CompletionAccumulator),
)
EMBEDDINGS = Endpoint(
    "embeddings", "POST", "/embeddings", Codec(WireEmbeddings), finish=_finish_embeddings
)
MODELS = Endpoint("models", "GET", "/models", Codec(ModelList), finish=_finish_models)
MODEL = Endpoint("models", "GET", "/models/", Codec(Model), finish=_finish_as_is)
