"""The client without ``await``, for scripts and notebooks: the same calls, which return answers.

    import konko_async.blocking as konko

    completion = konko.chat.completions.create(model=..., messages=[...])

The types are in ``__init__.pyi``, which ``scripts/make_blocking_stubs.py`` writes. See
docs/how-to/blocking.md.
"""

import konko_async
from konko_async.blocking._client import (
    Konko,
    batches,
    chat,
    close,
    completions,
    embeddings,
    files,
    models,
    run_batch,
)
from konko_async.blocking._mirror import class_of

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


def __getattr__(name: str) -> object:
    # On first use: the class that stands for ToolRun would load all that tools need.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return class_of(getattr(konko_async, name))
