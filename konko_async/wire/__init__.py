"""The structs of the wire format: what is sent, and what comes back.

Those of files, batches and parsed answers are loaded on first use: most clients never need them.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from konko_async.wire._base import Wire
from konko_async.wire._chat import (
    ChatCompletion,
    ChatCompletionChunk,
    ChatCompletionMessage,
    ChatCompletionTokenLogprob,
    ChatMessage,
    Choice,
    ChoiceDelta,
    ChoiceLogprobs,
    ChunkChoice,
    CompletionTokensDetails,
    CompletionUsage,
    FunctionCall,
    PromptTokensDetails,
    TokenLogprob,
    ToolCall,
    ToolCallDelta,
    TopLogprob,
    Usage,
)
from konko_async.wire._completions import Completion, CompletionChoice, CompletionLogprobs
from konko_async.wire._embeddings import CreateEmbeddingResponse, Embedding, EmbeddingUsage
from konko_async.wire._models import Deleted, Model, ModelList
from konko_async.wire._tool_calls import CallPieces, ToolCallMerger

if TYPE_CHECKING:
    from konko_async.wire._jobs.batches import (
        Batch,
        BatchList,
        BatchProblem,
        BatchProblems,
        BatchRequestCounts,
    )
    from konko_async.wire._jobs.files import FileDeleted, FileList, FileObject
    from konko_async.wire._parsed import (
        ParsedChatCompletion,
        ParsedChatCompletionMessage,
        ParsedChoice,
        ParsedFunction,
        ParsedFunctionToolCall,
        ParsedMessage,
    )
else:
    _LATER = {
        "_jobs.batches": "Batch BatchList BatchProblem BatchProblems BatchRequestCounts",
        "_jobs.files": "FileDeleted FileList FileObject",
        "_parsed": (
            "ParsedChatCompletion ParsedChatCompletionMessage ParsedChoice ParsedFunction "
            "ParsedFunctionToolCall ParsedMessage"
        ),
    }
    _HOME_OF = {name: home for home, names in _LATER.items() for name in names.split()}

    # By itself, as no wing stands below this one, not even what loads the names of the others.
    def __getattr__(name: str) -> object:
        if name not in _HOME_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        found = getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
        globals()[name] = found
        return found

    def __dir__() -> list[str]:
        return sorted({*globals(), *_HOME_OF})


__all__ = [
    "Batch",
    "BatchList",
    "BatchProblem",
    "BatchProblems",
    "BatchRequestCounts",
    "CallPieces",
    "ChatCompletion",
    "ChatCompletionChunk",
    "ChatCompletionMessage",
    "ChatCompletionTokenLogprob",
    "ChatMessage",
    "Choice",
    "ChoiceDelta",
    "ChoiceLogprobs",
    "ChunkChoice",
    "Completion",
    "CompletionChoice",
    "CompletionLogprobs",
    "CompletionTokensDetails",
    "CompletionUsage",
    "CreateEmbeddingResponse",
    "Deleted",
    "Embedding",
    "EmbeddingUsage",
    "FileDeleted",
    "FileList",
    "FileObject",
    "FunctionCall",
    "Model",
    "ModelList",
    "ParsedChatCompletion",
    "ParsedChatCompletionMessage",
    "ParsedChoice",
    "ParsedFunction",
    "ParsedFunctionToolCall",
    "ParsedMessage",
    "PromptTokensDetails",
    "TokenLogprob",
    "ToolCall",
    "ToolCallDelta",
    "ToolCallMerger",
    "TopLogprob",
    "Usage",
    "Wire",
]
