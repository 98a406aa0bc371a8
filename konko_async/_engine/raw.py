"""Any path of the API: the body is given as bytes, and the answer is handed on as bytes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import msgspec

from konko_async._http.error_responses import find_error, stream_error
from konko_async._streaming.raw_bytes import Head, RawDecoder, usage_of
from konko_async._streaming.reader import StreamReader
from konko_async.wire._codec import encode

if TYPE_CHECKING:
    from collections.abc import Mapping

    from konko_async._core.pipeline import Request, Response
    from konko_async._http.session import OpenResponse
    from konko_async.wire import Usage

__all__ = ["RawAnswer", "RawEndpoint", "RawParams"]

# OpenTelemetry's gen_ai.operation.name; other paths go by their own.
_NAMES = {
    "/chat/completions": "chat",
    "/completions": "text_completion",
    "/embeddings": "embeddings",
    "/models": "models",
}
_WORD = re.compile(r"[a-z_]+")  # as in "audio/speech"; ids have digits
_ANSWERS = frozenset({"chat", "text_completion", "embeddings"})


def _name(path: str) -> str:
    """Return what a path's calls are called in records: without the ids in it."""
    first, *rest = path.strip("/").split("/")
    if first == "models" or not rest or _WORD.fullmatch(rest[0]) is None:
        return first
    return f"{first}/{rest[0]}"


class RawParams(dict[str, Any]):
    """A body as bytes, and as the JSON that limits and fallbacks read, if it is JSON."""

    def __init__(self, content: bytes, values: Mapping[str, Any]) -> None:
        super().__init__(values)
        self.content = content


class RawAnswer:
    """A whole answer's bytes, with what records need of it.

    Attributes:
        content: the body.
        id: the answer's, if it has one.
        model: the model that answered, if it says so.
        choices: why each ended.
        usage: the tokens, if it tells them.
        answer: its head.
    """

    __slots__ = ("answer", "choices", "content", "id", "model", "usage")

    def __init__(self, content: bytes, head: Head, answer: OpenResponse) -> None:
        self.content = content
        self.id = head.id
        self.model = head.model
        self.choices = head.choices
        self.usage: Usage | None = usage_of(content)
        self.answer = answer


class RawEndpoint:
    """A path of the API; an :class:`~konko_async._core.pipeline.Operation`.

    Args:
        method: the HTTP method.
        path: below the base URL.
    """

    __slots__ = ("method", "name", "path")

    is_raw = True

    def __init__(self, method: str, path: str) -> None:
        self.method = method
        self.path = path
        self.name = _NAMES.get(path) or _name(path)

    def sink(self, _params: Any) -> Any:
        """Return what takes the parts of a whole answer: a list, which is joined."""
        return []

    def encode(self, params: Any) -> bytes | None:
        """Return the body as it was given; anew if a fallback has changed it."""
        if isinstance(params, RawParams):
            return params.content
        return None if params is None else encode(params)

    def decode(self, body: bytes, answer: OpenResponse, _params: Any = None) -> RawAnswer:
        """Return the body as it is.

        Raises:
            APIStatusError, StreamServerError: it is an error in the clothes of a 200.
        """
        try:
            head = msgspec.json.decode(body, type=Head)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return RawAnswer(body, Head(), answer)
        # Elsewhere (/responses) an answer may have an error as a field of its own.
        if head.error is not None and self.name in _ANSWERS:
            payload = msgspec.json.decode(body)
            if find_error(payload, plainly=True) is not None:
                failure: Any = stream_error(
                    payload, answer.headers, answer.request_id, delivered=False
                )
                failure.content = body
                raise failure
        return RawAnswer(body, head, answer)

    def open_stream(
        self,
        request: Request,
        answer: OpenResponse,
        response: Response,
        first_token_due: float | None,
    ) -> StreamReader[Any, Any]:
        """Return the reader of a streamed answer whose head has arrived."""
        decoder: Any = RawDecoder(answer)
        return StreamReader(request, answer, response, decoder, first_token_due=first_token_due)
