"""``Konko``: an LLM of LlamaIndex' on this client."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    ChatResponseAsyncGen,
    ChatResponseGen,
    CompletionResponse,
    CompletionResponseAsyncGen,
    CompletionResponseGen,
    LLMMetadata,
    MessageRole,
    ToolCallBlock,
)
from llama_index.core.bridge.pydantic import Field, PrivateAttr
from llama_index.core.constants import DEFAULT_CONTEXT_WINDOW, DEFAULT_NUM_OUTPUTS
from llama_index.core.llms.callbacks import llm_chat_callback, llm_completion_callback
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.llm import ToolSelection

from konko_async.errors import KonkoError
from konko_async.integrations.llama_index._connected import LlamaIndexConnection
from konko_async.integrations.llama_index._messages import (
    as_request,
    as_response,
    message_of,
    tokens_of,
)
from konko_async.wire import ToolCall

if TYPE_CHECKING:
    from llama_index.core.tools.types import BaseTool

__all__ = ["Konko"]

# llama-index-llms-konko has these too. Azure's are given by base_url and default_query here; the
# model list is looked at when it is needed, so nothing has to be made of it beforehand.
_IGNORED = ("api_type", "api_version", "model_info_dict")


class Konko(LlamaIndexConnection, FunctionCallingLLM):
    """An LLM on any server that speaks OpenAI's chat API, with this client's limits.

    A replacement for the class of ``llama-index-llms-konko``, with the same arguments, and tools.
    Making it sends nothing. Asynchronous methods run in the caller's event loop; the others block,
    by way of :mod:`konko_async.blocking`. Clients are made on first use, and closed quietly.

    Example:
        >>> async def main() -> None:
        ...     llm = Konko(model="codellama/codellama-13b-instruct")
        ...     print(await llm.acomplete("Write a haiku about sockets."))

    Raises:
        ValueError: pydantic's error: no key, or an option that cannot be used.
    """

    model: str = "meta-llama/llama-2-13b-chat"
    """The model's id."""
    temperature: float | None = Field(default=0.1, ge=0.0, le=2.0)
    max_tokens: int | None = Field(default=DEFAULT_NUM_OUTPUTS, gt=0)
    additional_kwargs: dict[str, Any] = Field(default_factory=dict)
    """Further parameters of the API."""
    context_window: int | None = None
    """Tokens of prompt and answer. Default: as the server's model list says, else 3900."""
    is_chat_model: bool | None = None
    """Whether completions go through chat. Default: as the model list says, else True."""
    is_function_calling_model: bool = True
    """Whether LlamaIndex may use tools for structured output and agents."""

    _known: LLMMetadata | None = PrivateAttr(default=None)

    def __init__(self, model: str | None = None, **kwargs: Any) -> None:
        given: dict[str, Any] = {"model": model, **kwargs}
        # Their None means the default.
        super().__init__(**{k: v for k, v in given.items() if v is not None and k not in _IGNORED})

    @classmethod
    def class_name(cls) -> str:
        """Return the name that LlamaIndex serializes, which is that of the class replaced."""
        return "Konko_LLM"

    @property
    def metadata(self) -> LLMMetadata:
        """What the model can do; asks the server's model list, once, where nobody has said it."""
        if self._known is None:
            window, chat = self.context_window, self.is_chat_model
            if window is None or chat is None:
                window, chat = self._listed(window, chat)
            self._known = LLMMetadata(
                context_window=window or DEFAULT_CONTEXT_WINDOW,
                num_output=self.max_tokens or DEFAULT_NUM_OUTPUTS,
                is_chat_model=chat is not False,
                is_function_calling_model=self.is_function_calling_model,
                model_name=self.model,
            )
        return self._known

    def _listed(self, window: int | None, chat: bool | None) -> tuple[int | None, bool | None]:
        try:
            found = self._clients.blocking().models.retrieve(self.model)
        except KonkoError:  # a server without a list, or a client for asynchronous calls only
            return window, chat
        return window or found.max_context_length, found.is_chat if chat is None else chat

    @property
    def _is_chat(self) -> bool:
        # Not metadata: that may block, and asynchronous methods come here.
        return self.is_chat_model is not False if self._known is None else self._known.is_chat_model

    def _params(self, given: dict[str, Any]) -> dict[str, Any]:
        # LlamaIndex says whether it is a prompt that was formatted; no server wants to know.
        given.pop("formatted", None)
        own = {"model": self.model, "temperature": self.temperature, "max_tokens": self.max_tokens}
        found = {**own, **self.additional_kwargs, **given}
        return {name: value for name, value in found.items() if value is not None}

    def _chat_request(
        self, messages: Sequence[ChatMessage], given: dict[str, Any], *, stream: bool
    ) -> dict[str, Any]:
        params = {**self._params(given), "messages": as_request(messages)}
        if stream:
            params.setdefault("stream_options", {"include_usage": True})
        return params

    # -- chat ----------------------------------------------------------------------------------

    @llm_chat_callback()
    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Answer a conversation."""
        request = self._chat_request(messages, kwargs, stream=False)
        return as_response(await self._clients.current().chat.completions.create(**request))

    @llm_chat_callback()
    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Answer a conversation."""
        request = self._chat_request(messages, kwargs, stream=False)
        return as_response(self._clients.blocking().chat.completions.create(**request))

    @llm_chat_callback()
    async def astream_chat(
        self, messages: Sequence[ChatMessage], **kwargs: Any
    ) -> ChatResponseAsyncGen:
        """Answer a conversation piece by piece; each response holds all that there is so far."""
        request = self._chat_request(messages, kwargs, stream=True)
        made = self._clients.current().chat.completions.stream(**request)

        async def responses() -> ChatResponseAsyncGen:
            growing = _Growing()
            async with made as stream:
                async for chunk in stream:
                    found = growing.add(chunk)
                    if found is not None:
                        yield found
                yield as_response(await stream.completion(), delta="")

        return responses()

    @llm_chat_callback()
    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseGen:
        """Answer a conversation piece by piece; each response holds all that there is so far."""
        request = self._chat_request(messages, kwargs, stream=True)
        made = self._clients.blocking().chat.completions.stream(**request)

        def responses() -> ChatResponseGen:
            growing = _Growing()
            with made as stream:
                for chunk in stream:
                    found = growing.add(chunk)
                    if found is not None:
                        yield found
                yield as_response(stream.completion(), delta="")

        return responses()

    # -- completions ---------------------------------------------------------------------------

    @llm_completion_callback()
    async def acomplete(
        self,
        prompt: str,
        formatted: bool = False,  # noqa: ARG002 - the base class'
        **kwargs: Any,
    ) -> CompletionResponse:
        """Continue a prompt."""
        if self._is_chat:
            return _completion(await self.achat([_user(prompt)], **kwargs))
        client = self._clients.current()
        return _text(await client.completions.create(prompt=prompt, **self._params(kwargs)))

    @llm_completion_callback()
    def complete(
        self,
        prompt: str,
        formatted: bool = False,  # noqa: ARG002 - the base class'
        **kwargs: Any,
    ) -> CompletionResponse:
        """Continue a prompt."""
        if self._is_chat:
            return _completion(self.chat([_user(prompt)], **kwargs))
        client = self._clients.blocking()
        return _text(client.completions.create(prompt=prompt, **self._params(kwargs)))

    @llm_completion_callback()
    async def astream_complete(
        self,
        prompt: str,
        formatted: bool = False,  # noqa: ARG002 - the base class'
        **kwargs: Any,
    ) -> CompletionResponseAsyncGen:
        """Continue a prompt piece by piece."""
        if self._is_chat:
            chat = await self.astream_chat([_user(prompt)], **kwargs)

            async def completions() -> CompletionResponseAsyncGen:
                async for response in chat:
                    yield _completion(response)

            return completions()
        params = self._params(kwargs)
        made = self._clients.current().completions.stream(prompt=prompt, **params)

        async def texts() -> CompletionResponseAsyncGen:
            so_far = ""
            async with made as stream:
                async for delta in stream.text():
                    so_far += delta
                    yield CompletionResponse(text=so_far, delta=delta)

        return texts()

    @llm_completion_callback()
    def stream_complete(
        self,
        prompt: str,
        formatted: bool = False,  # noqa: ARG002 - the base class'
        **kwargs: Any,
    ) -> CompletionResponseGen:
        """Continue a prompt piece by piece."""
        if self._is_chat:
            return (_completion(r) for r in self.stream_chat([_user(prompt)], **kwargs))
        params = self._params(kwargs)
        made = self._clients.blocking().completions.stream(prompt=prompt, **params)

        def texts() -> CompletionResponseGen:
            so_far = ""
            with made as stream:
                for delta in stream.text():
                    so_far += delta
                    yield CompletionResponse(text=so_far, delta=delta)

        return texts()

    # -- tools ---------------------------------------------------------------------------------

    def _prepare_chat_with_tools(  # noqa: PLR0917 - the base class'
        self,
        tools: Sequence[BaseTool],
        user_msg: str | ChatMessage | None = None,
        chat_history: list[ChatMessage] | None = None,
        verbose: bool = False,  # noqa: ARG002 - the base class'
        allow_parallel_tool_calls: bool = False,
        tool_required: bool = False,
        tool_choice: str | dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        messages = [*(chat_history or ())]
        if user_msg is not None:
            messages.append(_user(user_msg) if isinstance(user_msg, str) else user_msg)
        wired = [tool.metadata.to_openai_tool(skip_length_check=True) for tool in tools]
        if tool_choice is None:
            tool_choice = "required" if tool_required else "auto"
        elif isinstance(tool_choice, str) and tool_choice not in {"auto", "none", "required"}:
            tool_choice = {"type": "function", "function": {"name": tool_choice}}
        chosen: dict[str, Any] = {"tools": wired, "tool_choice": tool_choice} if wired else {}
        if wired and not allow_parallel_tool_calls:
            chosen["parallel_tool_calls"] = False
        return {"messages": messages, **chosen, **kwargs}

    def get_tool_calls_from_response(
        self,
        response: ChatResponse,
        error_on_no_tool_call: bool = True,
        **kwargs: Any,  # noqa: ARG002 - the base class'
    ) -> list[ToolSelection]:
        """Return the tools that an answer calls.

        Raises:
            ValueError: it calls none, and that is an error.
        """
        calls = [block for block in response.message.blocks if isinstance(block, ToolCallBlock)]
        if not calls and error_on_no_tool_call:
            raise ValueError(f"the answer calls no tool: {response.message.content!r:.200}")
        return [
            ToolSelection(
                tool_id=call.tool_call_id or "",
                tool_name=call.tool_name,
                tool_kwargs=_arguments(call.tool_kwargs),
            )
            for call in calls
        ]


class _Growing:
    """The answer so far, of chunks that say it piece by piece."""

    def __init__(self) -> None:
        self._text: list[str] = []
        self._thoughts: list[str] = []
        self._calls: dict[int, ToolCall] = {}

    def add(self, chunk: Any) -> ChatResponse | None:
        """Take a chunk in; None if it says nothing of the first choice."""
        choice = next((choice for choice in chunk.choices if not choice.index), None)
        if choice is None:
            return None
        delta = choice.delta
        self._text.append(delta.content or "")
        self._thoughts.append(delta.reasoning_content or delta.reasoning or "")
        for piece in delta.tool_calls or ():
            known = self._calls.setdefault(piece.index or 0, ToolCall(id="", function=None))  # type: ignore[arg-type]  # set below
            known.id = piece.id or known.id
            known.function = _joined(known.function, piece.function)
        message = message_of("".join(self._text), self._calls.values(), "".join(self._thoughts))
        return ChatResponse(
            message=message,
            delta=delta.content or "",
            raw=chunk.to_dict(),
            additional_kwargs=tokens_of(chunk.usage),
        )


def _joined(known: Any, piece: Any) -> Any:
    if known is None or piece is None:
        return known or piece
    known.name = piece.name or known.name
    known.arguments = (known.arguments or "") + (piece.arguments or "")
    return known


def _arguments(given: Any) -> dict[str, Any]:
    """Return a call's arguments; of text that is no JSON object, none: LlamaIndex' way."""
    if isinstance(given, dict):
        return given
    try:
        found = json.loads(given)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _user(text: str) -> ChatMessage:
    return ChatMessage(role=MessageRole.USER, content=text)


def _completion(response: ChatResponse) -> CompletionResponse:
    return CompletionResponse(
        text=response.message.content or "",
        delta=response.delta,
        raw=response.raw,
        additional_kwargs=response.additional_kwargs,
    )


def _text(completion: Any) -> CompletionResponse:
    return CompletionResponse(
        text=completion.choices[0].text if completion.choices else "",
        raw=completion.to_dict(),
        additional_kwargs=tokens_of(completion.usage),
    )
