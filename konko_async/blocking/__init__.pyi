"""Types of the blocking client, written by scripts/make_blocking_stubs.py."""

import aiohttp
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from konko_async._balance.endpoint import Affinity, Balance, Endpoint
from konko_async._balance.view import Endpoints
from konko_async._core.config import KeepAlive
from konko_async._core.key_source import KeyFunction
from konko_async._core.pipeline import Middleware
from konko_async._core.policies import Priority, RateLimit, RetryPolicy, Timeout, TimeoutLike
from konko_async._engine.map import MapResult, Requests, R as _map_R
from konko_async._records import Attempt, HTTPResponse, Observer, PoolStats
from konko_async._streaming.stream import C, ChunkBatch, R
from konko_async._structured.parsed_stream import T
from konko_async._structured.response_format import ResponseFormat
from konko_async.batch._input.row_parser import Format as _run_batch_Format
from konko_async.batch._output.filesystem import Filesystem
from konko_async.batch._output.row_results import RowResult
from konko_async.batch._pricing import Price
from konko_async.batch._progress import Progress
from konko_async.batch._report import BatchReport
from konko_async.batch._run_batch import Path
from konko_async.batch._server.settings import ServerSide
from konko_async.batch._steps.plan import Step
from konko_async.batch._stop import Stop
from konko_async.batch._workers.protocol import Workers
from konko_async.limits import Limits
from konko_async.middleware import AnswerCache, CircuitBreaker, CircuitState, Fallback
from konko_async.resources._base import R as _base_R
from konko_async.resources._chat import M, T as _chat_T
from konko_async.resources._chat_prepare import Format, Messages, Tools
from konko_async.resources._completions import Prompt
from konko_async.resources._files import FileContent, FileContents
from konko_async.resources._params import (
    ChatKeywords,
    CompletionKeywords,
    EmbeddingKeywords,
    Extras,
    ToolKeywords,
)
from konko_async.resources._responses import HTTPRequest, R as _responses_R
from konko_async.tools._events import ToolEvent, ToolOutcome, ToolRunResult
from konko_async.tools._run import R as _run_R
from konko_async.wire import (
    Batch,
    BatchList,
    ChatCompletion,
    ChatCompletionChunk,
    Completion,
    CreateEmbeddingResponse,
    Deleted,
    FileDeleted,
    FileList,
    FileObject,
    Model,
    ModelList,
    ParsedChatCompletion,
    Usage,
)
from konko_async.wire._events import ChatCompletionStreamEvent
from types import TracebackType
from typing import Any, Generic, Literal, Self, Unpack, overload

class FilePages(FileList):
    def __iter__(self) -> Iterator[FileObject]: ...

class BatchPages(BatchList):
    def __iter__(self) -> Iterator[Batch]: ...

class Closing:
    def close(self) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *_: object) -> None: ...

class Stream(Generic[C, R]):
    def __iter__(self) -> Self: ...
    def __next__(self) -> C: ...
    def read(
        self, at_once: Callable[[ChunkBatch[C]], bool] | None = ...
    ) -> ChunkBatch[C] | None: ...
    def text(self) -> Iterator[str]: ...
    def completion(self) -> R: ...
    @property
    def request_id(self) -> str | None: ...
    @property
    def headers(self) -> Mapping[str, str]: ...
    @property
    def from_cache(self) -> bool: ...
    @property
    def response(self) -> HTTPResponse: ...
    @property
    def attempts(self) -> tuple[Attempt, ...]: ...
    @property
    def time_to_first_token(self) -> float | None: ...
    @property
    def usage(self) -> Usage | None: ...
    @property
    def resumed(self) -> int: ...
    @property
    def closed(self) -> bool: ...
    def close(self) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...

class ChatStream(Stream[ChatCompletionChunk, ChatCompletion]):
    def events(self) -> Iterator[ChatCompletionStreamEvent[Any]]: ...
    def chunks(self) -> Iterator[ChatCompletionChunk]: ...
    @property
    def current_completion_snapshot(self) -> ParsedChatCompletion[Any]: ...
    def get_final_completion(self) -> ChatCompletion: ...

class CompletionStream(Stream[Completion, Completion]): ...

class ParsedChatStream(ChatStream, Generic[T]):
    def partial(self) -> Iterator[T]: ...
    def completion(self) -> ParsedChatCompletion[T]: ...

class ParsedEventStream(ParsedChatStream[T]):
    def __next__(self) -> ChatCompletionStreamEvent[T]: ...  # type: ignore[override]  # events, not chunks

class MapResults(Closing, Iterator[MapResult[_map_R]]):
    def __iter__(self) -> Self: ...
    def __next__(self) -> MapResult[_map_R]: ...
    @property
    def in_flight(self) -> int: ...
    def stop(self) -> None: ...
    def cancel(self) -> None: ...
    def close(self) -> None: ...

class ToolRun(Closing, Iterator[ToolEvent], Generic[_run_R]):
    @property
    def messages(self) -> list[Any]: ...
    @property
    def calls(self) -> tuple[ToolOutcome, ...]: ...
    @property
    def rounds(self) -> int: ...
    @property
    def usage(self) -> Usage | None: ...
    @property
    def result(self) -> ToolRunResult[_run_R]: ...
    def __iter__(self) -> Self: ...
    def __next__(self) -> ToolEvent: ...
    def close(self) -> None: ...
    completion: _run_R

class Mapped(Generic[_base_R]):
    def map(
        self,
        requests: Requests,
        *,
        max_concurrency: int = ...,
        ordered: bool = ...,
        window: int | None = ...,
        fail_fast: bool = ...,
    ) -> MapResults[_base_R]: ...

class StoredCompletions:
    def retrieve(self, completion_id: str, **extras: Unpack[Extras]) -> ChatCompletion: ...
    def update(
        self, completion_id: str, *, metadata: Mapping[str, str] | None, **extras: Unpack[Extras]
    ) -> ChatCompletion: ...
    def delete(self, completion_id: str, **extras: Unpack[Extras]) -> Deleted: ...

class PreparedChat(Mapped[ChatCompletion], StoredCompletions): ...

class ChatCompletions(PreparedChat):
    @overload
    def create(
        self,
        *,
        model: str,
        messages: Messages,
        stream: Literal[False] | None = ...,
        response_format: Format = ...,
        **params: Unpack[ChatKeywords],
    ) -> ChatCompletion: ...
    @overload
    def create(
        self,
        *,
        model: str,
        messages: Messages,
        stream: Literal[True],
        response_format: Format = ...,
        **params: Unpack[ChatKeywords],
    ) -> ChatStream: ...
    @overload
    def create(
        self,
        *,
        model: str,
        messages: Messages,
        stream: Literal[False] | None = ...,
        response_format: type[_chat_T] | ResponseFormat[_chat_T],
        **params: Unpack[ChatKeywords],
    ) -> ParsedChatCompletion[_chat_T]: ...
    @overload
    def create(
        self,
        *,
        model: str,
        messages: Messages,
        stream: Literal[True],
        response_format: type[_chat_T] | ResponseFormat[_chat_T],
        **params: Unpack[ChatKeywords],
    ) -> ParsedChatStream[_chat_T]: ...
    @overload
    def create(
        self,
        *,
        model: str,
        messages: Messages,
        stream: bool,
        response_format: Format | type[Any] | ResponseFormat[Any] = ...,
        **params: Unpack[ChatKeywords],
    ) -> ChatCompletion | ChatStream: ...
    @overload
    def stream(
        self,
        *,
        model: str,
        messages: Messages,
        response_format: Format = ...,
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
        response_format: type[_chat_T] | ResponseFormat[_chat_T],
        **params: Unpack[ChatKeywords],
    ) -> ParsedChatStream[_chat_T]: ...
    @overload
    def parse(
        self,
        *,
        model: str,
        messages: Messages,
        response_format: type[_chat_T] | ResponseFormat[_chat_T],
        **params: Unpack[ChatKeywords],
    ) -> ParsedChatCompletion[_chat_T]: ...
    @overload
    def parse(
        self,
        *,
        model: str,
        messages: Messages,
        response_format: None = ...,
        **params: Unpack[ChatKeywords],
    ) -> ParsedChatCompletion[None]: ...
    @overload
    def map(
        self,
        requests: Requests,
        *,
        response_format: None = ...,
        max_concurrency: int = ...,
        ordered: bool = ...,
        window: int | None = ...,
        fail_fast: bool = ...,
    ) -> MapResults[ChatCompletion]: ...
    @overload
    def map(
        self,
        requests: Requests,
        *,
        response_format: type[_chat_T] | ResponseFormat[_chat_T],
        max_concurrency: int = ...,
        ordered: bool = ...,
        window: int | None = ...,
        fail_fast: bool = ...,
    ) -> MapResults[ParsedChatCompletion[_chat_T]]: ...
    @overload
    def run_tools(
        self,
        *,
        model: str,
        messages: Messages,
        tools: Tools,
        response_format: Format = ...,
        **params: Unpack[ToolKeywords],
    ) -> ToolRun[ChatCompletion]: ...
    @overload
    def run_tools(
        self,
        *,
        model: str,
        messages: Messages,
        tools: Tools,
        response_format: type[_chat_T] | ResponseFormat[_chat_T],
        **params: Unpack[ToolKeywords],
    ) -> ToolRun[ParsedChatCompletion[_chat_T]]: ...
    @property
    def with_raw_response(self) -> ChatWithRawResponse: ...
    @property
    def with_streaming_response(self) -> ChatWithStreamingResponse: ...

class Chat:
    completions: ChatCompletions

class Completions(Mapped[Completion]):
    @overload
    def create(
        self,
        *,
        model: str,
        prompt: Prompt,
        stream: Literal[False] | None = ...,
        **params: Unpack[CompletionKeywords],
    ) -> Completion: ...
    @overload
    def create(
        self,
        *,
        model: str,
        prompt: Prompt,
        stream: Literal[True],
        **params: Unpack[CompletionKeywords],
    ) -> CompletionStream: ...
    @overload
    def create(
        self, *, model: str, prompt: Prompt, stream: bool, **params: Unpack[CompletionKeywords]
    ) -> Completion | CompletionStream: ...
    def stream(
        self, *, model: str, prompt: Prompt, **params: Unpack[CompletionKeywords]
    ) -> CompletionStream: ...
    @property
    def with_raw_response(self) -> CompletionsWithRawResponse: ...
    @property
    def with_streaming_response(self) -> CompletionsWithStreamingResponse: ...

class Embeddings(Mapped[CreateEmbeddingResponse]):
    def create(
        self,
        *,
        model: str,
        input: str | list[str] | list[int] | list[list[int]],
        **params: Unpack[EmbeddingKeywords],
    ) -> CreateEmbeddingResponse: ...
    @property
    def with_raw_response(self) -> EmbeddingsWithRawResponse: ...
    @property
    def with_streaming_response(self) -> EmbeddingsWithStreamingResponse: ...

class Models:
    def list(self, **extras: Unpack[Extras]) -> ModelList: ...
    def retrieve(self, model: str, **extras: Unpack[Extras]) -> Model: ...
    def delete(self, model: str, **extras: Unpack[Extras]) -> Deleted: ...
    @property
    def with_raw_response(self) -> ModelsWithRawResponse: ...
    @property
    def with_streaming_response(self) -> ModelsWithStreamingResponse: ...

class Files:
    def create(
        self, *, file: FileContents, purpose: str, **extras: Unpack[Extras]
    ) -> FileObject: ...
    def retrieve(self, file_id: str, **extras: Unpack[Extras]) -> FileObject: ...
    def content(self, file_id: str, **extras: Unpack[Extras]) -> FileContent: ...
    def download(
        self, file_id: str, path: str | os.PathLike[str], **extras: Unpack[Extras]
    ) -> int: ...
    def delete(self, file_id: str, **extras: Unpack[Extras]) -> FileDeleted: ...
    def list(
        self,
        *,
        purpose: str | None = ...,
        limit: int | None = ...,
        after: str | None = ...,
        order: str | None = ...,
        **extras: Unpack[Extras],
    ) -> FilePages: ...

class Batches:
    def create(
        self,
        *,
        input_file_id: str,
        endpoint: str,
        completion_window: Literal["24h"] | str = ...,
        metadata: Mapping[str, str] | None = ...,
        **extras: Unpack[Extras],
    ) -> Batch: ...
    def retrieve(self, batch_id: str, **extras: Unpack[Extras]) -> Batch: ...
    def cancel(self, batch_id: str, **extras: Unpack[Extras]) -> Batch: ...
    def list(
        self, *, after: str | None = ..., limit: int | None = ..., **extras: Unpack[Extras]
    ) -> BatchPages: ...

class RawResponse:
    status_code: int
    headers: Mapping[str, str]
    request_id: str | None

    def iter_bytes(self) -> Iterator[bytes]: ...
    def read(self) -> bytes: ...
    @property
    def content(self) -> bytes: ...
    @property
    def attempts(self) -> tuple[Attempt, ...]: ...
    @property
    def usage(self) -> Usage | None: ...
    @property
    def is_closed(self) -> bool: ...
    def close(self) -> None: ...
    def hand_on(self) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *_: object) -> None: ...

class _Response:
    http_request: HTTPRequest

    @property
    def headers(self) -> Mapping[str, str]: ...
    @property
    def status_code(self) -> int: ...
    @property
    def request_id(self) -> str | None: ...
    @property
    def url(self) -> str: ...
    @property
    def method(self) -> str: ...
    @property
    def retries_taken(self) -> int: ...
    @property
    def is_closed(self) -> bool: ...

class APIResponse(_Response, Generic[_responses_R]):
    @property
    def content(self) -> bytes: ...
    @property
    def text(self) -> str: ...
    def json(self) -> Any: ...
    def parse(self) -> _responses_R: ...

class StreamedAPIResponse(_Response, Generic[_responses_R]):
    def read(self) -> bytes: ...
    def text(self) -> str: ...
    def json(self) -> Any: ...
    def iter_bytes(self) -> Iterator[bytes]: ...
    def iter_lines(self) -> Iterator[str]: ...
    def parse(self) -> _responses_R: ...
    def close(self) -> None: ...

class Konko:
    chat: Chat

    def __init__(
        self,
        api_key: str | KeyFunction | None = ...,
        base_url: str | None = ...,
        openai_api_key: str | None = ...,
        *,
        timeout: TimeoutLike | None = ...,
        retry: RetryPolicy | None = ...,
        max_retries: int | None = ...,
        rate_limit: RateLimit | None = ...,
        middleware: Sequence[Middleware] = ...,
        observers: Sequence[Observer] = ...,
        fallback_models: Sequence[str | Fallback] = ...,
        hedge_after: float | Literal["p95"] | None = ...,
        circuit_breaker: CircuitBreaker | None = ...,
        cache: str | os.PathLike[str] | AnswerCache | None = ...,
        verify_models: bool = ...,
        default_headers: Mapping[str, str] | None = ...,
        default_query: Mapping[str, str | float] | None = ...,
        organization: str | None = ...,
        project: str | None = ...,
        keepalive: KeepAlive | float | tuple[int, int, int] | None = ...,
        trust_env: bool = ...,
        session: aiohttp.ClientSession | None = ...,
        http_client: None = ...,
        max_body_bytes: int = ...,
        allow_http: bool = ...,
        endpoints: Sequence[Endpoint] | None = ...,
        balance: Balance = ...,
        affinity: Affinity | None = ...,
    ) -> None: ...
    @property
    def completions(self) -> Completions: ...
    @property
    def embeddings(self) -> Embeddings: ...
    @property
    def models(self) -> Models: ...
    @property
    def files(self) -> Files: ...
    @property
    def batches(self) -> Batches: ...
    def with_options(
        self,
        *,
        timeout: TimeoutLike | None = ...,
        retry: RetryPolicy | None = ...,
        max_retries: int | None = ...,
        rate_limit: RateLimit | None = ...,
        middleware: Sequence[Middleware] = ...,
        observers: Sequence[Observer] = ...,
        fallback_models: Sequence[str | Fallback] = ...,
        hedge_after: float | Literal["p95"] | None = ...,
        circuit_breaker: CircuitBreaker | None = ...,
        cache: str | os.PathLike[str] | AnswerCache | None = ...,
        verify_models: bool = ...,
        default_headers: Mapping[str, str] | None = ...,
        default_query: Mapping[str, str | float] | None = ...,
        organization: str | None = ...,
        project: str | None = ...,
        http_client: None = ...,
    ) -> Konko: ...
    copy = with_options

    def request(
        self,
        method: str,
        path: str,
        body: bytes | Mapping[str, Any] | None = ...,
        *,
        stream: bool = ...,
        headers: Mapping[str, str] | None = ...,
        query: Mapping[str, Any] | None = ...,
        timeout: TimeoutLike | None = ...,
        priority: Priority | None = ...,
    ) -> RawResponse: ...
    @property
    def base_url(self) -> str: ...
    @property
    def observers(self) -> tuple[Observer, ...]: ...
    @property
    def rate_limit(self) -> RateLimit: ...
    @property
    def retry(self) -> RetryPolicy | None: ...
    @property
    def timeout(self) -> Timeout: ...
    @property
    def cache(self) -> AnswerCache | None: ...
    @property
    def fallback_models(self) -> tuple[str | Fallback, ...]: ...
    @property
    def limits(self) -> Limits: ...
    @property
    def middleware(self) -> tuple[Middleware, ...]: ...
    @property
    def pool(self) -> PoolStats: ...
    @property
    def circuits(self) -> tuple[CircuitState, ...]: ...
    @property
    def endpoints(self) -> Endpoints: ...
    @property
    def closed(self) -> bool: ...
    def close(self) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *_: object) -> None: ...

class ChatWithRawResponse:
    @overload
    def create(
        self,
        *,
        model: str,
        messages: Messages,
        stream: Literal[False] | None = ...,
        response_format: Format = ...,
        **params: Unpack[ChatKeywords],
    ) -> APIResponse[ChatCompletion]: ...
    @overload
    def create(
        self,
        *,
        model: str,
        messages: Messages,
        stream: Literal[True],
        response_format: Format = ...,
        **params: Unpack[ChatKeywords],
    ) -> APIResponse[ChatStream]: ...
    @overload
    def create(
        self,
        *,
        model: str,
        messages: Messages,
        stream: Literal[False] | None = ...,
        response_format: type[_chat_T] | ResponseFormat[_chat_T],
        **params: Unpack[ChatKeywords],
    ) -> APIResponse[ParsedChatCompletion[_chat_T]]: ...
    @overload
    def create(
        self,
        *,
        model: str,
        messages: Messages,
        stream: Literal[True],
        response_format: type[_chat_T] | ResponseFormat[_chat_T],
        **params: Unpack[ChatKeywords],
    ) -> APIResponse[ParsedChatStream[_chat_T]]: ...
    @overload
    def create(
        self,
        *,
        model: str,
        messages: Messages,
        stream: bool,
        response_format: Format | type[Any] | ResponseFormat[Any] = ...,
        **params: Unpack[ChatKeywords],
    ) -> APIResponse[ChatCompletion | ChatStream]: ...
    @overload
    def parse(
        self,
        *,
        model: str,
        messages: Messages,
        response_format: type[_chat_T] | ResponseFormat[_chat_T],
        **params: Unpack[ChatKeywords],
    ) -> APIResponse[ParsedChatCompletion[_chat_T]]: ...
    @overload
    def parse(
        self,
        *,
        model: str,
        messages: Messages,
        response_format: None = ...,
        **params: Unpack[ChatKeywords],
    ) -> APIResponse[ParsedChatCompletion[None]]: ...
    def retrieve(
        self, completion_id: str, **extras: Unpack[Extras]
    ) -> APIResponse[ChatCompletion]: ...
    def update(
        self, completion_id: str, *, metadata: Mapping[str, str] | None, **extras: Unpack[Extras]
    ) -> APIResponse[ChatCompletion]: ...
    def delete(self, completion_id: str, **extras: Unpack[Extras]) -> APIResponse[Deleted]: ...

class ChatWithStreamingResponse:
    @overload
    def create(
        self,
        *,
        model: str,
        messages: Messages,
        stream: Literal[False] | None = ...,
        response_format: Format = ...,
        **params: Unpack[ChatKeywords],
    ) -> AbstractContextManager[StreamedAPIResponse[ChatCompletion]]: ...
    @overload
    def create(
        self,
        *,
        model: str,
        messages: Messages,
        stream: Literal[True],
        response_format: Format = ...,
        **params: Unpack[ChatKeywords],
    ) -> AbstractContextManager[StreamedAPIResponse[ChatStream]]: ...
    @overload
    def create(
        self,
        *,
        model: str,
        messages: Messages,
        stream: Literal[False] | None = ...,
        response_format: type[_chat_T] | ResponseFormat[_chat_T],
        **params: Unpack[ChatKeywords],
    ) -> AbstractContextManager[StreamedAPIResponse[ParsedChatCompletion[_chat_T]]]: ...
    @overload
    def create(
        self,
        *,
        model: str,
        messages: Messages,
        stream: Literal[True],
        response_format: type[_chat_T] | ResponseFormat[_chat_T],
        **params: Unpack[ChatKeywords],
    ) -> AbstractContextManager[StreamedAPIResponse[ParsedChatStream[_chat_T]]]: ...
    @overload
    def create(
        self,
        *,
        model: str,
        messages: Messages,
        stream: bool,
        response_format: Format | type[Any] | ResponseFormat[Any] = ...,
        **params: Unpack[ChatKeywords],
    ) -> AbstractContextManager[StreamedAPIResponse[ChatCompletion | ChatStream]]: ...
    @overload
    def parse(
        self,
        *,
        model: str,
        messages: Messages,
        response_format: type[_chat_T] | ResponseFormat[_chat_T],
        **params: Unpack[ChatKeywords],
    ) -> AbstractContextManager[StreamedAPIResponse[ParsedChatCompletion[_chat_T]]]: ...
    @overload
    def parse(
        self,
        *,
        model: str,
        messages: Messages,
        response_format: None = ...,
        **params: Unpack[ChatKeywords],
    ) -> AbstractContextManager[StreamedAPIResponse[ParsedChatCompletion[None]]]: ...
    def retrieve(
        self, completion_id: str, **extras: Unpack[Extras]
    ) -> AbstractContextManager[StreamedAPIResponse[ChatCompletion]]: ...
    def update(
        self, completion_id: str, *, metadata: Mapping[str, str] | None, **extras: Unpack[Extras]
    ) -> AbstractContextManager[StreamedAPIResponse[ChatCompletion]]: ...
    def delete(
        self, completion_id: str, **extras: Unpack[Extras]
    ) -> AbstractContextManager[StreamedAPIResponse[Deleted]]: ...

class CompletionsWithRawResponse:
    @overload
    def create(
        self,
        *,
        model: str,
        prompt: Prompt,
        stream: Literal[False] | None = ...,
        **params: Unpack[CompletionKeywords],
    ) -> APIResponse[Completion]: ...
    @overload
    def create(
        self,
        *,
        model: str,
        prompt: Prompt,
        stream: Literal[True],
        **params: Unpack[CompletionKeywords],
    ) -> APIResponse[CompletionStream]: ...
    @overload
    def create(
        self, *, model: str, prompt: Prompt, stream: bool, **params: Unpack[CompletionKeywords]
    ) -> APIResponse[Completion | CompletionStream]: ...

class CompletionsWithStreamingResponse:
    @overload
    def create(
        self,
        *,
        model: str,
        prompt: Prompt,
        stream: Literal[False] | None = ...,
        **params: Unpack[CompletionKeywords],
    ) -> AbstractContextManager[StreamedAPIResponse[Completion]]: ...
    @overload
    def create(
        self,
        *,
        model: str,
        prompt: Prompt,
        stream: Literal[True],
        **params: Unpack[CompletionKeywords],
    ) -> AbstractContextManager[StreamedAPIResponse[CompletionStream]]: ...
    @overload
    def create(
        self, *, model: str, prompt: Prompt, stream: bool, **params: Unpack[CompletionKeywords]
    ) -> AbstractContextManager[StreamedAPIResponse[Completion | CompletionStream]]: ...

class EmbeddingsWithRawResponse:
    def create(
        self,
        *,
        model: str,
        input: str | list[str] | list[int] | list[list[int]],
        **params: Unpack[EmbeddingKeywords],
    ) -> APIResponse[CreateEmbeddingResponse]: ...

class EmbeddingsWithStreamingResponse:
    def create(
        self,
        *,
        model: str,
        input: str | list[str] | list[int] | list[list[int]],
        **params: Unpack[EmbeddingKeywords],
    ) -> AbstractContextManager[StreamedAPIResponse[CreateEmbeddingResponse]]: ...

class ModelsWithRawResponse:
    def list(self, **extras: Unpack[Extras]) -> APIResponse[ModelList]: ...
    def retrieve(self, model: str, **extras: Unpack[Extras]) -> APIResponse[Model]: ...
    def delete(self, model: str, **extras: Unpack[Extras]) -> APIResponse[Deleted]: ...

class ModelsWithStreamingResponse:
    def list(
        self, **extras: Unpack[Extras]
    ) -> AbstractContextManager[StreamedAPIResponse[ModelList]]: ...
    def retrieve(
        self, model: str, **extras: Unpack[Extras]
    ) -> AbstractContextManager[StreamedAPIResponse[Model]]: ...
    def delete(
        self, model: str, **extras: Unpack[Extras]
    ) -> AbstractContextManager[StreamedAPIResponse[Deleted]]: ...

def run_batch(
    client: Konko,
    input_path: Path | Any,
    output_path: Path,
    *,
    columns: Collection[str] | None = ...,
    ordered: bool = ...,
    format: _run_batch_Format | None = ...,
    prompt: str | None = ...,
    model: str | None = ...,
    system: str | None = ...,
    params: Mapping[str, Any] | None = ...,
    endpoint: str = ...,
    id_column: str | None = ...,
    fail_on: Collection[str] = ...,
    max_concurrency: int = ...,
    restart: bool = ...,
    on_changed_input: Literal["refuse", "redo"] = ...,
    retry_failed: bool = ...,
    skip_invalid: bool = ...,
    limit: int | None = ...,
    shuffle: bool | int = ...,
    max_cost: float | None = ...,
    max_tokens_total: int | None = ...,
    prices: Mapping[str, Price] | None = ...,
    dry_run: bool = ...,
    on_progress: Callable[[Progress], object] | None = ...,
    progress_interval: float = ...,
    stop: Stop | None = ...,
    checkpoint_rows: int = ...,
    checkpoint_seconds: float = ...,
    max_line_bytes: int = ...,
    max_outage: float = ...,
    max_attempts: int | None = ...,
    max_failures: int | str | None = ...,
    max_failures_in_a_row: int | None = ...,
    on_notice: Callable[[str], object] | None = ...,
    files: Filesystem = ...,
    workers: Workers | None = ...,
    server_side: bool | ServerSide = ...,
    response_format: Any = ...,
    max_reasks: int = ...,
    shard: str | tuple[int, int] | None = ...,
    on_row: Callable[[RowResult], object] | None = ...,
    steps: Sequence[Step | tuple[str, str]] | None = ...,
) -> BatchReport: ...

batches: Batches
chat: Chat
completions: Completions
embeddings: Embeddings
files: Files
models: Models

def close() -> None: ...

__all__ = [
    "ChatStream",
    "CompletionStream",
    "Konko",
    "MapResults",
    "ParsedChatStream",
    "ParsedEventStream",
    "ToolRun",
    "batches",
    "chat",
    "close",
    "completions",
    "embeddings",
    "files",
    "models",
    "run_batch",
]
