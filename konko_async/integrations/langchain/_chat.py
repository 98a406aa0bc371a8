"""``ChatKonko``: a chat model of LangChain's on this client."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Literal

from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.language_models.base import LangSmithParams
from langchain_core.language_models.chat_models import (
    agenerate_from_stream,
    generate_from_stream,
)
from langchain_core.output_parsers import JsonOutputParser, PydanticOutputParser
from langchain_core.output_parsers.openai_tools import JsonOutputKeyToolsParser, PydanticToolsParser
from langchain_core.runnables import Runnable, RunnableMap, RunnablePassthrough
from langchain_core.utils.function_calling import convert_to_json_schema, convert_to_openai_tool
from langchain_core.utils.pydantic import is_basemodel_subclass
from pydantic import Field

from konko_async import ChatStream
from konko_async.integrations.langchain._base import LangChainConnection
from konko_async.integrations.langchain._messages import as_chunk, as_request, as_result

if TYPE_CHECKING:
    from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
    from langchain_core.messages import AIMessage, BaseMessage
    from langchain_core.outputs import ChatGenerationChunk, ChatResult
    from langchain_core.tools import BaseTool

__all__ = ["ChatKonko"]

# Fields of the model that are parameters of the API, by its names.
_PARAMETERS = (
    "frequency_penalty", "logit_bias", "logprobs", "max_tokens", "n", "presence_penalty",
    "reasoning_effort", "seed", "temperature", "top_logprobs", "top_p",
)  # fmt: skip


class ChatKonko(LangChainConnection, BaseChatModel):
    """A chat model on any server that speaks OpenAI's chat API, with this client's limits.

    Asynchronous methods run in the caller's event loop; the others block, by way of
    :mod:`konko_async.blocking`. Clients are made on first use, and closed quietly.

    Example:
        >>> async def main() -> None:
        ...     model = ChatKonko(model="codellama/codellama-13b-instruct", temperature=0)
        ...     print((await model.ainvoke("Write a haiku about sockets.")).content)

    Raises:
        ValueError: pydantic's error: no key, or an option that cannot be used.
    """

    model_name: str = Field(alias="model")
    """The model's id."""
    temperature: float | None = None
    max_tokens: int | None = None
    top_p: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    seed: int | None = None
    n: int | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    logit_bias: dict[str, float] | None = None
    reasoning_effort: str | None = None
    stop: list[str] | str | None = Field(default=None, alias="stop_sequences")
    """Where answers end, for calls that do not say it."""
    streaming: bool = False
    """Whether ``invoke`` and ``ainvoke`` stream, too, for callbacks that show tokens."""
    stream_usage: bool = True
    """Whether streams end with the tokens used, for which the server is asked."""
    model_kwargs: dict[str, Any] = Field(default_factory=dict)
    """Parameters of the API that have no field here."""
    extra_body: dict[str, Any] | None = None
    """Parameters that this client does not know either."""

    @property
    def _llm_type(self) -> str:
        return "konko-chat"

    @property
    def _default_params(self) -> dict[str, Any]:
        found = {name: getattr(self, name) for name in _PARAMETERS}
        found |= {"extra_body": self.extra_body, "stop": self.stop, **self.model_kwargs}
        return {name: value for name, value in found.items() if value is not None}

    @property
    def _identifying_params(self) -> Mapping[str, Any]:
        return {"model_name": self.model_name, **self._default_params}

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        params = self._default_params | kwargs
        found = LangSmithParams(
            ls_provider="konko",
            ls_model_name=params.get("model", self.model_name),
            ls_model_type="chat",
            ls_temperature=params.get("temperature"),
        )
        if params.get("max_tokens") is not None:
            found["ls_max_tokens"] = params["max_tokens"]
        if stop or self.stop:
            found["ls_stop"] = stop or ([self.stop] if isinstance(self.stop, str) else self.stop)
        return found

    def _request(
        self, messages: list[BaseMessage], stop: list[str] | None, given: dict[str, Any]
    ) -> dict[str, Any]:
        params = {"model": self.model_name, **self._default_params, **given}
        params.pop("stream", None)
        params.pop("ls_structured_output_format", None)
        if not params.pop("stream_usage", self.stream_usage):
            params.pop("stream_options", None)
        if stop is not None:
            params["stop"] = stop
        return {**params, "messages": as_request(messages)}

    def _streamed(
        self, messages: list[BaseMessage], stop: list[str] | None, given: dict[str, Any]
    ) -> dict[str, Any]:
        params = self._request(messages, stop, given)
        if given.get("stream_usage", self.stream_usage):
            params.setdefault("stream_options", {"include_usage": True})
        params.pop("n", None)
        return params

    # -- calls ---------------------------------------------------------------------------------

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        if self.streaming:
            stream = self._astream(messages, stop=stop, run_manager=run_manager, **kwargs)
            return await agenerate_from_stream(stream)
        client = self._clients.current()
        request = self._request(messages, stop, kwargs)
        return as_result(await client.chat.completions.create(**request))

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        if self.streaming:
            stream = self._stream(messages, stop=stop, run_manager=run_manager, **kwargs)
            return generate_from_stream(stream)
        client = self._clients.blocking()
        return as_result(client.chat.completions.create(**self._request(messages, stop, kwargs)))

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        client = self._clients.current()
        made: ChatStream = client.chat.completions.stream(**self._streamed(messages, stop, kwargs))
        first = True
        async with made as stream:
            async for chunk in stream:
                found = as_chunk(chunk, first=first)
                if found is None:
                    continue
                first = False
                if run_manager is not None:
                    await run_manager.on_llm_new_token(found.text, chunk=found)
                yield found

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        client = self._clients.blocking()
        first = True
        with client.chat.completions.stream(**self._streamed(messages, stop, kwargs)) as stream:
            for chunk in stream:
                found = as_chunk(chunk, first=first)
                if found is None:
                    continue
                first = False
                if run_manager is not None:
                    run_manager.on_llm_new_token(found.text, chunk=found)
                yield found

    # -- tools and structured output -----------------------------------------------------------

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: dict[str, Any] | str | bool | None = None,
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Let the model call tools.

        Args:
            tools: functions, pydantic models, tools of LangChain's, or dicts of the API.
            tool_choice: a tool's name, "auto", "none", "any" or "required" (True means the same),
                or a dict of the API.
            strict: whether arguments have to fit the schemas, where the server can see to it.
            **kwargs: parameters of the calls.
        """
        wired = [convert_to_openai_tool(tool, strict=strict) for tool in tools]
        names = [tool.get("function", {}).get("name") for tool in wired]
        if tool_choice is True or tool_choice == "any":
            tool_choice = "required"
        elif isinstance(tool_choice, str) and tool_choice in names:
            tool_choice = {"type": "function", "function": {"name": tool_choice}}
        if tool_choice:
            kwargs["tool_choice"] = tool_choice
        return super().bind(tools=wired, **kwargs)

    def with_structured_output(
        self,
        schema: dict[str, Any] | type | None = None,
        *,
        method: Literal["function_calling", "json_mode", "json_schema"] = "json_schema",
        include_raw: bool = False,
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, Any]:
        """Return a model whose answers are values of a schema.

        Args:
            schema: a pydantic model, a TypedDict, a JSON Schema, or a function's schema.
            method: "json_schema": the server keeps the answer to the schema; "function_calling": as
                the arguments of a tool, for servers without that; "json_mode": JSON of whatever
                shape the prompt asks for.
            include_raw: whether to return ``{"raw", "parsed", "parsing_error"}``.
            strict: whether the schema is strict in OpenAI's sense.
            **kwargs: parameters of the calls.

        Raises:
            ValueError: the method needs a schema.
        """
        if schema is None and method != "json_mode":
            raise ValueError(f"schema must be given for the method {method!r}")
        form = {"kwargs": {"method": method, "strict": strict}, "schema": schema}
        is_model = isinstance(schema, type) and is_basemodel_subclass(schema)
        llm: Runnable[LanguageModelInput, Any]
        parser: Any
        if method == "function_calling":
            name = convert_to_openai_tool(schema)["function"]["name"]  # type: ignore[arg-type]  # not None here
            llm = self.bind_tools(
                [schema],  # type: ignore[list-item]  # not None here
                tool_choice=name,
                strict=strict,
                ls_structured_output_format=form,
                **kwargs,
            )
            parser = (
                PydanticToolsParser(tools=[schema], first_tool_only=True)  # type: ignore[list-item]  # is_model
                if is_model
                else JsonOutputKeyToolsParser(key_name=name, first_tool_only=True)
            )
        else:
            wanted = {"type": "json_object"} if method == "json_mode" else _format(schema, strict)
            llm = self.bind(response_format=wanted, ls_structured_output_format=form, **kwargs)
            kind: Any = schema
            parser = PydanticOutputParser(pydantic_object=kind) if is_model else JsonOutputParser()
        return _with_raw(llm, parser) if include_raw else llm | parser


def _format(schema: Any, strict: bool | None) -> dict[str, Any]:
    """Return a schema as the API's ``response_format``."""
    if isinstance(schema, Mapping) and schema.get("type") == "json_schema":
        return dict(schema)
    wired = convert_to_json_schema(schema, strict=strict)
    found = {"name": wired.pop("title", "answer"), "schema": wired}
    if "description" in wired:
        found["description"] = wired.pop("description")
    if strict is not None:
        found["strict"] = strict
    return {"type": "json_schema", "json_schema": found}


def _with_raw(llm: Runnable[Any, Any], parser: Any) -> Runnable[Any, Any]:
    """Return what keeps the message beside its value, or beside why it has none."""
    parsed = RunnablePassthrough.assign(
        parsed=itemgetter("raw") | parser, parsing_error=lambda _: None
    )
    failed = RunnablePassthrough.assign(parsed=lambda _: None)
    either = parsed.with_fallbacks([failed], exception_key="parsing_error")
    return RunnableMap(raw=llm) | either
