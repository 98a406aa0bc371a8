"""Asyncio-first client for the Konko chat API and every OpenAI-compatible server.

    async with AsyncKonko() as client:
        completion = await client.chat.completions.create(model=..., messages=[...])

Names are loaded on first use, so that ``konko-async --help`` need not wait for aiohttp.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from konko_async._version import __version__

if TYPE_CHECKING:
    from konko_async._balance.endpoint import Endpoint, EndpointState
    from konko_async._client import AsyncKonko
    from konko_async._core.config import KeepAlive
    from konko_async._core.pipeline import (
        Handler,
        Instrumentation,
        Middleware,
        Request,
        Response,
        per_attempt,
    )
    from konko_async._core.policies import Priority, RateLimit, RetryPolicy, Timeout
    from konko_async._engine.map import MapResult, MapResults
    from konko_async._module_client import (
        aclose,
        batches,
        chat,
        completions,
        embeddings,
        files,
        models,
    )
    from konko_async._records import (
        Attempt,
        CallRecord,
        Observer,
        PoolStats,
        Priced,
        RequestParams,
        StoreRecord,
    )
    from konko_async._streaming.merge import MergedChunk, merge
    from konko_async._streaming.stream import ChatStream, ChunkBatch, CompletionStream
    from konko_async._structured.parsed_stream import ParsedChatStream, ParsedEventStream
    from konko_async._structured.response_format import ResponseFormat
    from konko_async.errors import (
        APIConnectionError,
        APIError,
        APIStatusError,
        APITimeoutError,
        AuthenticationError,
        BadRequestError,
        CircuitOpenError,
        ConfigurationError,
        ConflictError,
        ContentFilterFinishReasonError,
        InternalServerError,
        KonkoError,
        LengthFinishReasonError,
        NotFoundError,
        PermissionDeniedError,
        RateLimitError,
        RateLimitStoreError,
        RateLimitTimeoutError,
        ResponseDecodeError,
        StreamError,
        StreamServerError,
        StreamStalledError,
        StreamTruncatedError,
        StructuredOutputError,
        ToolArgumentsError,
        UnprocessableEntityError,
    )
    from konko_async.limits import Limits
    from konko_async.middleware import AnswerCache, CacheStats, CircuitBreaker, Fallback
    from konko_async.resources._raw import RawResponse
    from konko_async.tools import (
        Tool,
        ToolFailedError,
        ToolLimitError,
        ToolRun,
        ToolRunError,
        ToolRunResult,
    )
    from konko_async.wire import (
        Batch,
        ChatCompletion,
        ChatCompletionChunk,
        ChatCompletionMessage,
        ChatMessage,
        Choice,
        ChoiceDelta,
        Completion,
        CompletionChoice,
        CreateEmbeddingResponse,
        Embedding,
        FileObject,
        FunctionCall,
        Model,
        ModelList,
        ParsedChatCompletion,
        ParsedChoice,
        ParsedMessage,
        ToolCall,
        Usage,
    )

_MODULES = {
    "_client": "AsyncKonko",
    "_balance.endpoint": "Endpoint EndpointState",
    "_module_client": "aclose batches chat completions embeddings files models",
    "_engine.map": "MapResult MapResults",
    "_streaming.merge": "MergedChunk merge",
    "_core.config": "KeepAlive",
    "_core.policies": "Priority RateLimit RetryPolicy Timeout",
    "_structured.parsed_stream": "ParsedChatStream ParsedEventStream",
    "_core.pipeline": "Handler Instrumentation Middleware Request Response per_attempt",
    "_records": "Attempt CallRecord Observer PoolStats Priced RequestParams StoreRecord",
    "_streaming.stream": "ChatStream ChunkBatch CompletionStream",
    "_structured.response_format": "ResponseFormat",
    "resources._raw": "RawResponse",
    "errors": (
        "APIConnectionError APIError APIStatusError APITimeoutError AuthenticationError "
        "BadRequestError CircuitOpenError ConfigurationError ConflictError "
        "ContentFilterFinishReasonError InternalServerError LengthFinishReasonError "
        "KonkoError NotFoundError PermissionDeniedError RateLimitError RateLimitStoreError "
        "RateLimitTimeoutError ResponseDecodeError StreamError StreamServerError "
        "StreamStalledError StreamTruncatedError StructuredOutputError ToolArgumentsError "
        "UnprocessableEntityError"
    ),
    "limits": "Limits",
    "middleware": "AnswerCache CacheStats CircuitBreaker Fallback",
    "tools": "Tool ToolFailedError ToolLimitError ToolRun ToolRunError ToolRunResult",
    "wire": (
        "Batch ChatCompletion ChatCompletionChunk ChatCompletionMessage ChatMessage Choice "
        "ChoiceDelta Completion CompletionChoice CreateEmbeddingResponse Embedding FileObject "
        "FunctionCall Model ModelList ParsedChatCompletion ParsedChoice ParsedMessage ToolCall "
        "Usage"
    ),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names.split()}

__all__ = [
    "APIConnectionError",
    "APIError",
    "APIStatusError",
    "APITimeoutError",
    "AnswerCache",
    "AsyncKonko",
    "Attempt",
    "AuthenticationError",
    "BadRequestError",
    "Batch",
    "CacheStats",
    "CallRecord",
    "ChatCompletion",
    "ChatCompletionChunk",
    "ChatCompletionMessage",
    "ChatMessage",
    "ChatStream",
    "Choice",
    "ChoiceDelta",
    "ChunkBatch",
    "CircuitBreaker",
    "CircuitOpenError",
    "Completion",
    "CompletionChoice",
    "CompletionStream",
    "ConfigurationError",
    "ConflictError",
    "ContentFilterFinishReasonError",
    "CreateEmbeddingResponse",
    "Embedding",
    "Endpoint",
    "EndpointState",
    "Fallback",
    "FileObject",
    "FunctionCall",
    "Handler",
    "Instrumentation",
    "InternalServerError",
    "KeepAlive",
    "KonkoError",
    "LengthFinishReasonError",
    "Limits",
    "MapResult",
    "MapResults",
    "MergedChunk",
    "Middleware",
    "Model",
    "ModelList",
    "NotFoundError",
    "Observer",
    "ParsedChatCompletion",
    "ParsedChatStream",
    "ParsedChoice",
    "ParsedEventStream",
    "ParsedMessage",
    "PermissionDeniedError",
    "PoolStats",
    "Priced",
    "Priority",
    "RateLimit",
    "RateLimitError",
    "RateLimitStoreError",
    "RateLimitTimeoutError",
    "RawResponse",
    "Request",
    "RequestParams",
    "Response",
    "ResponseDecodeError",
    "ResponseFormat",
    "RetryPolicy",
    "StoreRecord",
    "StreamError",
    "StreamServerError",
    "StreamStalledError",
    "StreamTruncatedError",
    "StructuredOutputError",
    "Timeout",
    "Tool",
    "ToolArgumentsError",
    "ToolCall",
    "ToolFailedError",
    "ToolLimitError",
    "ToolRun",
    "ToolRunError",
    "ToolRunResult",
    "UnprocessableEntityError",
    "Usage",
    "__version__",
    "aclose",
    "batches",
    "chat",
    "completions",
    "embeddings",
    "files",
    "merge",
    "models",
    "per_attempt",
]

if not TYPE_CHECKING:  # type checkers see the imports above, and so notice a name that is not there

    def __getattr__(name: str) -> object:
        home = _MODULE_OF.get(name)
        if home is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(f"{__name__}.{home}"), name)
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return sorted(__all__)
