"""``client.completions``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Literal, Unpack, overload

from konko_async._checks import (
    check_input,
    check_model,
    check_sampling,
    check_stream,
    known_keywords,
)
from konko_async._operations import COMPLETIONS
from konko_async._stream import CompletionStream
from konko_async.resources._base import Mapped
from konko_async.resources._keywords import EXTRAS, CompletionKeywords, split_options, takes
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
        stream: Literal[False] = False,
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
        stream: bool = False,
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
        return CompletionStream(self._prepare(model, prompt, stream=True, params=params))

    def _create(self, **arguments: Any) -> Awaitable[Any]:
        return self.create(**arguments)

    def _prepare(self, model: str, prompt: Any, *, stream: bool, params: Any) -> Callable[[], Any]:
        options = split_options(params)
        known_keywords("completions", params, _COMPLETION_KNOWN)
        check_model(model)
        check_input("prompt", prompt)
        check_sampling(params)
        check_stream(stream)
        body = CompletionRequest(model=model, prompt=prompt, stream=stream, **params)

        return partial(self._call, COMPLETIONS, body, options)
