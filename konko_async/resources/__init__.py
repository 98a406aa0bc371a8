"""The parts of a client: chat, completions, embeddings, models, files, batches."""

from konko_async.resources._batches import Batches
from konko_async.resources._chat import Chat, ChatCompletions
from konko_async.resources._completions import Completions
from konko_async.resources._embeddings import Embeddings
from konko_async.resources._files import FileContent, Files
from konko_async.resources._models import Models

__all__ = [
    "Batches",
    "Chat",
    "ChatCompletions",
    "Completions",
    "Embeddings",
    "FileContent",
    "Files",
    "Models",
]
