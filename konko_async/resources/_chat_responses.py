"""The two faces of chat completions that return HTTP responses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from konko_async.resources._responses import raw, streamed

if TYPE_CHECKING:
    from konko_async.resources._chat_prepare import PreparedChat

__all__ = ["ChatWithRawResponse", "ChatWithStreamingResponse"]


class ChatWithRawResponse:
    """``client.chat.completions.with_raw_response``."""

    __slots__ = ("create", "delete", "parse", "retrieve", "update")

    def __init__(self, completions: PreparedChat) -> None:
        self.create = raw(completions._prepared_create)  # noqa: SLF001 - two faces of one thing
        self.parse = raw(completions._prepared_parse)  # noqa: SLF001 - two faces of one thing
        self.retrieve = raw(completions._prepared_retrieve)  # noqa: SLF001 - two faces of one thing
        self.update = raw(completions._prepared_update)  # noqa: SLF001 - two faces of one thing
        self.delete = raw(completions._prepared_delete)  # noqa: SLF001 - two faces of one thing


class ChatWithStreamingResponse:
    """``client.chat.completions.with_streaming_response``."""

    __slots__ = ("create", "delete", "parse", "retrieve", "update")

    def __init__(self, completions: PreparedChat) -> None:
        self.create = streamed(completions._prepared_create)  # noqa: SLF001 - two faces of one thing
        self.parse = streamed(completions._prepared_parse)  # noqa: SLF001 - two faces of one thing
        self.retrieve = streamed(completions._prepared_retrieve)  # noqa: SLF001 - two faces of one thing
        self.update = streamed(completions._prepared_update)  # noqa: SLF001 - two faces of one thing
        self.delete = streamed(completions._prepared_delete)  # noqa: SLF001 - two faces of one thing
