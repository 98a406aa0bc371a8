"""The operations of the API: how a request's body is written and its answer read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import UNSET

from konko_async._http.error_responses import (
    FAILED_REASONS,
    find_error,
    status_of_words,
    stream_error,
    words_of,
)
from konko_async._streaming.accumulate import ChatAccumulator, CompletionAccumulator
from konko_async._streaming.chunk_decoder import ChunkDecoder
from konko_async._streaming.event_splitter import FIELDS
from konko_async._streaming.loose_sse import is_done
from konko_async._streaming.reader import StreamReader
from konko_async.errors import APIConnectionError, APIError, ResponseDecodeError
from konko_async.wire import (
    ChatCompletion,
    ChatCompletionChunk,
    Completion,
    CreateEmbeddingResponse,
    Deleted,
    Embedding,
    Model,
    ModelList,
)
from konko_async.wire._codec import codec_of, decode_json, encode
from konko_async.wire._embeddings import WireEmbeddings, unpack_vector

if TYPE_CHECKING:
    from collections.abc import Callable

    from konko_async._core.pipeline import Request, Response, Upload
    from konko_async._http.session import OpenResponse

__all__ = [
    "CHAT", "COMPLETIONS", "DELETE_MODEL", "DELETE_STORED", "EMBEDDINGS", "MODEL", "MODELS",
    "STORED", "UPDATE_STORED", "ApiOperation",
]  # fmt: skip

# Bytes; enough to recognise a proxy's page, and little enough for a log.
_BODY_SHOWN = 4096


class ApiOperation:
    """One operation of the API, such as chat; an :class:`~konko_async._core.pipeline.Operation`.

    Attributes:
        name: OpenTelemetry's ``gen_ai.operation.name``.
        method: the HTTP method.
        path: below the base URL.
    """

    __slots__ = ("_finish", "_kind", "_stream", "method", "name", "path")

    def __init__(
        self,
        name: str,
        method: str,
        path: str,
        kind: Any,
        *,
        finish: Callable[[Any, bytes, OpenResponse, bool], Any],
        stream: tuple[Any, Callable[[], Any]] | None = None,
    ) -> None:
        self.name = name
        self.method = method
        self.path = path
        self._kind = kind
        self._finish = finish
        self._stream = stream

    def sink(self, params: Any) -> Any:  # noqa: ARG002 - those that save an answer need them
        """Return what takes the parts of a whole answer: a list, which is joined."""
        return []

    def encode(self, params: Any) -> bytes | Upload | None:
        """Return the JSON body, None where there is none.

        Raises:
            ConfigurationError: it holds something that JSON cannot carry.
        """
        return None if params is None else encode(params)

    def decode(self, body: bytes, answer: OpenResponse, params: Any = None) -> Any:
        """Return the struct of a whole answer.

        Raises:
            ResponseDecodeError: it is not what was promised.
            APIConnectionError: it was cut short.
            APIStatusError, StreamServerError: it is an error in the clothes of a 200.
        """
        try:
            value, plain = codec_of(self._kind).read(body)
        except ResponseDecodeError as error:
            problem = error.with_traceback(None)  # which holds this frame
        else:
            return self._finish(value, body, answer, plain)
        # Tried before the body is searched for an error: an event stream may hold one as well.
        if self._stream is not None:
            value = self._from_events(body, answer, _choices_of(params))
            if value is not None:
                return self._finish(value, b"", answer, False)
        # JSON that is an error, then a proxy's words; only then is the body itself to blame.
        failure = _hidden_error(body, answer) or _said_in_words(body, answer)
        if failure is None:
            failure = _cut_short(problem, answer) if problem.retryable else problem
        try:
            raise failure
        finally:
            del failure, problem  # they would hold this frame, which holds them

    def _from_events(self, body: bytes, answer: OpenResponse, choices: int) -> Any:
        """Return the whole answer of a body that is an event stream nobody asked for, or None.

        Some servers stream unless they are asked not to; others put ``[DONE]`` behind whole JSON.

        Raises:
            APIError: the stream in it failed.
        """
        assert self._stream is not None  # noqa: S101 - only the streaming endpoints ask
        whole, done, rest = body.rpartition(b"data:")
        if done and is_done(rest) and whole.lstrip().startswith(b"{"):
            return codec_of(self._kind).decode(whole)
        if not body.lstrip(b"\xef\xbb\xbf \t\r\n").startswith((*FIELDS, b":")):
            return None
        chunk, accumulator = self._stream
        decoder: ChunkDecoder[Any, Any] = ChunkDecoder(
            answer, codec_of(chunk), accumulator(), choices=choices
        )
        decoder.take(body)
        decoder.end()
        if decoder.failure is not None:
            raise decoder.failure
        return decoder.accumulated.result()

    def open_stream(
        self,
        request: Request,
        answer: OpenResponse,
        response: Response,
        first_token_due: float | None,
    ) -> StreamReader[Any, Any]:
        """Return the reader of a streamed answer whose head has arrived."""
        assert self._stream is not None  # noqa: S101 - only the streaming endpoints offer stream=
        chunk, accumulator = self._stream
        return StreamReader(
            request,
            answer,
            response,
            ChunkDecoder(
                answer, codec_of(chunk), accumulator(), choices=_choices_of(request.params)
            ),
            first_token_due=first_token_due,
        )

    def decode_from_here(self, reader: StreamReader[Any, Any], params: Any) -> None:
        """Decode a stream whose bytes were handed on so far.

        Args:
            reader: reads into a ``RawDecoder``; what has come and was not taken is decoded.
            params: what was asked for.
        """
        assert self._stream is not None  # noqa: S101 - only the streaming endpoints offer stream=
        chunk, accumulator = self._stream
        before: Any = reader.decoder
        reader.decoder = ChunkDecoder(
            reader.answer, codec_of(chunk), accumulator(), choices=_choices_of(params)
        )
        # In one piece: chunks that wait are taken from the end of a list.
        reader.decoder.take(b"".join(before.ready))


def _choices_of(params: Any) -> int:
    """Return how many choices a request asks for."""
    n = params.get("n") if isinstance(params, dict) else getattr(params, "n", None)
    return n or 1


def _cut_short(error: ResponseDecodeError, answer: OpenResponse) -> APIConnectionError:
    """Return the error for JSON that ends too early: the connection was closed under it.

    A body whose end is the connection's end (it has neither length nor chunks) looks whole to
    aiohttp.
    """
    return APIConnectionError(f"the answer of {answer.host} was cut short: {error.message}")


def _hidden_error(body: bytes, answer: OpenResponse) -> APIError | None:
    """Return the error that a 200 answer carries, or None."""
    try:
        value = decode_json(body)
    except ResponseDecodeError:
        return None
    if find_error(value) is None:
        return None
    return stream_error(value, answer.headers, answer.request_id, delivered=False)


def _said_in_words(body: bytes, answer: OpenResponse) -> APIError | None:
    """Return the error for a body of words that name an error status, or None."""
    if body.lstrip().startswith((b"{", b"[")):
        return None
    words = words_of(body)
    if status_of_words(words) is None:
        return None
    return stream_error(words, answer.headers, answer.request_id, delivered=False)


def _missing(what: str, body: bytes, answer: OpenResponse) -> APIError:
    return _hidden_error(body, answer) or ResponseDecodeError(
        f"the server's answer has no {what}", body=body[:_BODY_SHOWN]
    )


def _finish_completion(
    value: ChatCompletion | Completion, body: bytes, answer: OpenResponse, plain: bool
) -> Any:
    # Servers report a failure in fields of many names, nearly all of which are not in a completion;
    # a search costs less than a look at every place where they put them.
    if (
        value.error is not UNSET
        or not value.choices
        or value.object == "error"
        or (not plain and (b'"error' in body or b'"base_resp"' in body or b'"success"' in body))
    ):
        failure = _hidden_error(body, answer)
        if failure is not None:
            raise failure
    for choice in value.choices:
        if choice.finish_reason in FAILED_REASONS:
            raise stream_error(value.raw, answer.headers, answer.request_id, delivered=False)
    value.request_id = answer.request_id
    # An empty list is an answer (a content filter may empty it); no list is not.
    if not value.choices and not isinstance(value.raw.get("choices"), list):
        raise _missing("choices", body, answer)
    if value.usage is not None and not value.usage.known:
        value.usage = None  # {} reports nothing; unknown is not 0
    return value


def _finish_chat(
    value: ChatCompletion, body: bytes, answer: OpenResponse, plain: bool
) -> ChatCompletion:
    for choice in value.choices:
        choice.message.role = choice.message.role or "assistant"
    _finish_completion(value, body, answer, plain)
    return value


def _finish_embeddings(
    value: WireEmbeddings, body: bytes, answer: OpenResponse, _plain: bool
) -> CreateEmbeddingResponse:
    data = []
    for item in value.data:
        vector = item.embedding
        if isinstance(vector, str):
            try:
                vector = unpack_vector(vector)
            except ValueError as error:
                # Raised outside of the handler, so that the ValueError is not chained to it.
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


def _finish_models(
    value: ModelList, _body: bytes, _answer: OpenResponse, _plain: bool
) -> ModelList:
    """Give each model its own JSON: what this package has no name for stays with the model."""
    listed = value.raw
    items = listed.get("data") if isinstance(listed, dict) else listed
    # The lenient reading leaves out what is no model; then entries cannot be matched by position.
    if isinstance(items, list) and len(items) == len(value.data):
        for model, item in zip(value.data, items, strict=True):
            model._raw = encode(item)  # noqa: SLF001 - the slot of Wire
    return value


def _finish_as_is(value: Any, _body: bytes, _answer: OpenResponse, _plain: bool) -> Any:
    return value


CHAT = ApiOperation(
    "chat",
    "POST",
    "/chat/completions",
    ChatCompletion,
    finish=_finish_chat,
    stream=(ChatCompletionChunk, ChatAccumulator),
)
COMPLETIONS = ApiOperation(
    "text_completion",
    "POST",
    "/completions",
    Completion,
    finish=_finish_completion,
    stream=(Completion, CompletionAccumulator),
)
EMBEDDINGS = ApiOperation(
    "embeddings", "POST", "/embeddings", WireEmbeddings, finish=_finish_embeddings
)
MODELS = ApiOperation("models", "GET", "/models", ModelList, finish=_finish_models)
DELETE_MODEL = ApiOperation("models", "DELETE", "/models/", Deleted, finish=_finish_as_is)
# Chat completions that were kept with store=True.
STORED = ApiOperation(
    "stored_completions", "GET", "/chat/completions/", ChatCompletion, finish=_finish_chat
)
UPDATE_STORED = ApiOperation(
    "stored_completions", "POST", "/chat/completions/", ChatCompletion, finish=_finish_chat
)
DELETE_STORED = ApiOperation(
    "stored_completions", "DELETE", "/chat/completions/", Deleted, finish=_finish_as_is
)
MODEL = ApiOperation("models", "GET", "/models/", Model, finish=_finish_as_is)
