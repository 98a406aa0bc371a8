"""The structs of the wire format: what is sent, and what comes back."""

from konko_async.wire._base import Wire
from konko_async.wire._chat import (
    ChatCompletion,
    ChatCompletionChunk,
    ChatCompletionMessage,
    ChatMessage,
    Choice,
    ChoiceDelta,
    ChoiceLogprobs,
    ChunkChoice,
    CompletionTokensDetails,
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
from konko_async.wire._models import Model, ModelList
from konko_async.wire._parsed import ParsedChatCompletion, ParsedChoice, ParsedMessage

__all__ = [
    "ChatCompletion",
    "ChatCompletionChunk",
    "ChatCompletionMessage",
    "ChatMessage",
    "Choice",
    "ChoiceDelta",
    "ChoiceLogprobs",
    "ChunkChoice",
    "Completion",
    "CompletionChoice",
    "CompletionLogprobs",
    "CompletionTokensDetails",
    "CreateEmbeddingResponse",
    "Embedding",
    "EmbeddingUsage",
    "FunctionCall",
    "Model",
    "ModelList",
    "ParsedChatCompletion",
    "ParsedChoice",
    "ParsedMessage",
    "PromptTokensDetails",
    "TokenLogprob",
    "ToolCall",
    "ToolCallDelta",
    "TopLogprob",
    "Usage",
    "Wire",
]
