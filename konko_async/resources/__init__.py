"""The parts of a client: chat, completions, embeddings, models."""

from konko_async.resources._chat import Chat, ChatCompletions
from konko_async.resources._completions import Completions
from konko_async.resources._embeddings import Embeddings
from konko_async.resources._models import Models

__all__ = ["Chat", "ChatCompletions", "Completions", "Embeddings", "Models"]
