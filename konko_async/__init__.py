"""Asyncio-first client for the Konko chat API and every OpenAI-compatible server.

    async with AsyncKonko() as client:
        completion = await client.chat.completions.create(model=..., messages=[...])

Names are loaded on first use, so that ``konko-async --help`` need not wait for aiohttp.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from konko_async._version import __version__

if TYPE_CHECKING:
    from konko_async._client import AsyncKonko
    from konko_async._default import aclose, chat, completions, embeddings, models
    from konko_async._fanout import MapResult, MapResults
    from konko_async._merge import MergedChunk, merge
    from konko_async._options import Priority, RateLimit, RetryPolicy, Timeout
    from konko_async._parsed_stream import ParsedChatStream
    from konko_async._pipeline import Handler, Middleware, Request, Response, per_attempt
    from konko_async._records import Attempt, CallRecord, Observer, PoolStats, StoreRecord
    from konko_async._stream import ChatStream, ChunkBatch, CompletionStream
    from konko_async._structured import ResponseFormat
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
        InternalServerError,
        KonkoError,
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
    from konko_async.middleware import CircuitBreaker, Fallback
    from konko_async.tools import (
        Tool,
        ToolFailedError,
        ToolLimitError,
        ToolRun,
        ToolRunError,
        ToolRunResult,
    )
    from konko_async.wire import (
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
        FunctionCall,
        Model,
        ModelList,
        ParsedChatCompletion,
        ParsedChoice,
        ParsedMessage,
        ToolCall,
        Usage,
    )

_PLACES = {
    "_client": "AsyncKonko",
    "_default": "aclose chat completions embeddings models",
    "_fanout": "MapResult MapResults",
    "_merge": "MergedChunk merge",
    "_options": "Priority RateLimit RetryPolicy Timeout",
    "_parsed_stream": "ParsedChatStream",
    "_pipeline": "Handler Middleware Request Response per_attempt",
    "_records": "Attempt CallRecord Observer PoolStats StoreRecord",
    "_stream": "ChatStream ChunkBatch CompletionStream",
    "_structured": "ResponseFormat",
    "errors": (
        "APIConnectionError APIError APIStatusError APITimeoutError AuthenticationError "
        "BadRequestError CircuitOpenError ConfigurationError ConflictError InternalServerError "
        "KonkoError NotFoundError PermissionDeniedError RateLimitError RateLimitStoreError "
        "RateLimitTimeoutError ResponseDecodeError StreamError StreamServerError "
        "StreamStalledError StreamTruncatedError StructuredOutputError ToolArgumentsError "
        "UnprocessableEntityError"
    ),
    "limits": "Limits",
    "middleware": "CircuitBreaker Fallback",
    "tools": "Tool ToolFailedError ToolLimitError ToolRun ToolRunError ToolRunResult",
    "wire": (
        "ChatCompletion ChatCompletionChunk ChatCompletionMessage ChatMessage Choice ChoiceDelta "
        "Completion CompletionChoice CreateEmbeddingResponse Embedding FunctionCall Model "
        "ModelList ParsedChatCompletion ParsedChoice ParsedMessage ToolCall Usage"
    ),
}
_HOME = {name: module for module, names in _PLACES.items() for name in names.split()}

__all__ = [
    "APIConnectionError",
    "APIError",
    "APIStatusError",
    "APITimeoutError",
    "AsyncKonko",
    "Attempt",
    "AuthenticationError",
    "BadRequestError",
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
    "CreateEmbeddingResponse",
    "Embedding",
    "Fallback",
    "FunctionCall",
    "Handler",
    "InternalServerError",
    "KonkoError",
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
    "ParsedMessage",
    "PermissionDeniedError",
    "PoolStats",
    "Priority",
    "RateLimit",
    "RateLimitError",
    "RateLimitStoreError",
    "RateLimitTimeoutError",
    "Request",
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
    "chat",
    "completions",
    "embeddings",
    "merge",
    "models",
    "per_attempt",
]

if not TYPE_CHECKING:  # type checkers see the imports above, and so notice a name that is not there

    def __getattr__(name: str) -> object:
        home = _HOME.get(name)
        if home is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(f"{__name__}.{home}"), name)
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return sorted(__all__)
