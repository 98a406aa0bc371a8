"""The parts of a client: chat, completions, embeddings, models, files, batches."""

from typing import TYPE_CHECKING

from konko_async._core.lazy_names import lazy_names

if TYPE_CHECKING:
    from konko_async.resources._batches import Batches
    from konko_async.resources._chat import Chat, ChatCompletions
    from konko_async.resources._completions import Completions
    from konko_async.resources._embeddings import Embeddings
    from konko_async.resources._files import FileContent, Files
    from konko_async.resources._models import Models
else:
    # Most programs only chat.
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "_batches": "Batches",
            "_chat": "Chat ChatCompletions",
            "_completions": "Completions",
            "_embeddings": "Embeddings",
            "_files": "FileContent Files",
            "_models": "Models",
        },
    )

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
