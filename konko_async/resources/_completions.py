"""``client.completions``: continues a prompt, whole or streamed."""

from __future__ import annotations

from collections.abc import Awaitable
from functools import partial
from typing import Any, Literal, Unpack, overload

from konko_async._core.validation import (
    check_input,
    check_model,
    check_sampling,
    check_stream,
    known_keywords,
)
from konko_async._engine.operations import COMPLETIONS
from konko_async._streaming.stages import unopened
from konko_async._streaming.stream import CompletionStream
from konko_async.resources._base import Mapped
from konko_async.resources._params import EXTRAS, CompletionKeywords, split_options, takes
from konko_async.resources._responses import PreparedCall, raw, streamed
from konko_async.wire import Completion
from konko_async.wire._requests import CompletionRequest

__all__ = ["Completions"]

Prompt = str | list[str] | list[int] | list[list[int]]
_COMPLETION_KNOWN = frozenset(CompletionRequest.__struct_fields__) - {"model", "prompt", "stream"}


class Completions(Mapped[Completion]):
    """``POST /completions``: one prompt in, text out."""

    __slots__ = ()

    _known = _COMPLETION_KNOWN | EXTRAS | {"model", "prompt", "stream"}

    @overload
    async def create(
        self,
        *,
        model: str,
        prompt: Prompt,
        stream: Literal[False] | None = None,
        **params: Unpack[CompletionKeywords],
    ) -> Completion: ...

    @overload
    async def create(
        self,
        *,
        model: str,
        prompt: Prompt,
        stream: Literal[True],
        **params: Unpack[CompletionKeywords],
    ) -> CompletionStream: ...

    @overload
    async def create(
        self,
        *,
        model: str,
        prompt: Prompt,
        stream: bool,
        **params: Unpack[CompletionKeywords],
    ) -> Completion | CompletionStream: ...

    @takes(CompletionKeywords)
    async def create(
        self,
        *,
        model: str,
        prompt: Prompt,
        stream: bool | None = None,
        **params: Unpack[CompletionKeywords],
    ) -> Completion | CompletionStream:
        """Continue a prompt.

        Args:
            model: the id of a text model.
            prompt: the text to continue.
            stream: False: return the whole answer; True: return a stream, open at its first
                token.
            **params: as for chat completions.

        Returns:
            A Completion; with ``stream=True`` a CompletionStream.

        Raises:
            KonkoError: as for chat completions.
        """
        opened = self._prepare(model, prompt, stream=stream, params=params)
        if stream:
            return await CompletionStream(opened)._open()  # noqa: SLF001 - returned open
        response, _ = await opened()
        result: Completion = response.result
        return result

    @takes(CompletionKeywords)
    def stream(
        self,
        *,
        model: str,
        prompt: Prompt,
        **params: Unpack[CompletionKeywords],
    ) -> CompletionStream:
        """Continue a prompt piece by piece; use it with ``async with``.

        Raises:
            ConfigurationError: an argument is wrong; nothing was sent.
        """
        opened = self._prepare(model, prompt, stream=True, params=params)
        return unopened(CompletionStream(opened))

    @property
    def with_raw_response(self) -> CompletionsWithRawResponse:
        """The same call, returning the HTTP response: headers, status, bytes and ``parse()``."""
        return CompletionsWithRawResponse(self)

    @property
    def with_streaming_response(self) -> CompletionsWithStreamingResponse:
        """As :attr:`with_raw_response`, by ``async with``; the body is read only on request."""
        return CompletionsWithStreamingResponse(self)

    def _prepared_create(
        self,
        *,
        model: str,
        prompt: Prompt,
        stream: bool | None = None,
        **params: Unpack[CompletionKeywords],
    ) -> PreparedCall:
        opened = self._prepare(model, prompt, stream=stream, params=params)
        result = CompletionStream if stream else _itself
        return PreparedCall.of(self._engine(), opened, result)

    def _create(self, **arguments: Any) -> Awaitable[Any]:
        return self.create(**arguments)

    def _prepare(
        self, model: str, prompt: Any, *, stream: bool | None, params: Any
    ) -> partial[Any]:
        # Before known_keywords(): what every call takes is not among the API's parameters.
        options = split_options(params)
        known_keywords("completions", params, _COMPLETION_KNOWN)
        check_model(model)
        check_input("prompt", prompt)
        check_sampling(params)
        stream = check_stream(stream)
        body = CompletionRequest(model=model, prompt=prompt, stream=stream, **params)

        # Sent when it is called: by create() at once, by a stream when it is opened.
        return partial(self._call, COMPLETIONS, body, options)


def _itself(answer: Any) -> Any:
    return answer


class CompletionsWithRawResponse:
    """``client.completions.with_raw_response``."""

    __slots__ = ("create",)

    def __init__(self, completions: Completions) -> None:
        self.create = raw(completions._prepared_create)  # noqa: SLF001 - two faces of one thing


class CompletionsWithStreamingResponse:
    """``client.completions.with_streaming_response``."""

    __slots__ = ("create",)

    def __init__(self, completions: Completions) -> None:
        self.create = streamed(completions._prepared_create)  # noqa: SLF001 - two faces of one thing
