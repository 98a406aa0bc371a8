"""What the emulator answers: choices and usage, a pure function of the request."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import msgspec

from konko_async.testing._emulator_errors import ApiError
from konko_async.testing._emulator_schema import example
from konko_async.testing._emulator_text import (
    count_tokens,
    digest,
    limit_tokens,
    reply_tokens,
    tokenize,
)

Custom: TypeAlias = str | Mapping[str, Any] | Sequence[str]
"""A user's own answer: the text, the assistant message, or the tokens of the text."""

_PER_MESSAGE = 3
# What a schema that is none makes of an attempt to follow it.
_SENSELESS = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
_encode = msgspec.json.encode


class Prompt(msgspec.Struct):
    """What is asked: its text by role, its size, and the question to answer."""

    texts: list[tuple[str, str]]
    tokens: int
    question: str


class ToolCall(msgspec.Struct):
    """A call of a tool; its arguments as the tokens of a JSON text."""

    id: str
    name: str
    arguments: list[str]


class Choice(msgspec.Struct):
    """One answer: the tokens of its text, or the tools it calls."""

    tokens: list[str]
    finish_reason: str
    tool_calls: list[ToolCall] = []
    extra: dict[str, Any] = {}
    """More fields of the message, which a user's own answer had."""

    @property
    def size(self) -> int:
        """Its completion tokens."""
        return len(self.tokens) + sum(len(call.arguments) for call in self.tool_calls)


class Answer(msgspec.Struct):
    """The choices of an answer, and the tokens of its prompt."""

    choices: list[Choice]
    prompt_tokens: int

    @property
    def usage(self) -> dict[str, int]:
        """The `usage` object."""
        completion = sum(choice.size for choice in self.choices)
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": completion,
            "total_tokens": self.prompt_tokens + completion,
        }


def read_messages(messages: list[dict[str, Any]]) -> Prompt:
    """The prompt of a chat request: 3 tokens for each message, and those of its text."""
    texts = [(message["role"], _text_of(message)) for message in messages]
    tokens = _PER_MESSAGE * len(texts) + sum(count_tokens(text) for _, text in texts)
    question = next((text for role, text in reversed(texts) if role in ("user", "tool")), "")
    return Prompt(texts, tokens, question)


def read_prompts(prompt: Any) -> list[Prompt]:
    """The prompts of a completion or embedding request, which may be one or many."""
    if isinstance(prompt, str) or (prompt and isinstance(prompt[0], int)):
        prompt = [prompt]
    prompts = []
    for item in prompt:
        text = item if isinstance(item, str) else "".join(f" <{token}>" for token in item)
        size = count_tokens(item) if isinstance(item, str) else len(item)
        prompts.append(Prompt([("prompt", text)], size, text))
    return prompts


def answer_chat(
    body: dict[str, Any], prompt: Prompt, custom: Custom | None, length: int | None
) -> Answer:
    """The answer to a valid chat request.

    Args:
        body: The request.
        prompt: What `read_messages()` made of it.
        custom: A user's own answer, for every choice.
        length: The tokens of a generated text; `None` for what the request's digest has it be.
    """
    tools = [] if custom is not None else _tools_to_call(body, prompt)
    limit = body.get("max_completion_tokens") or body.get("max_tokens")
    choices, seed = [], digest(body["model"], prompt.texts, body.get("seed"))
    for index in range(body.get("n") or 1):
        if tools:
            choice = _call_tools(tools, digest(seed.hex(), index), limit)
        elif custom is not None:
            choice = _custom_choice(custom, _stops(body), limit)
        else:
            tokens = _formatted(body, prompt, seed, index, length)
            choice = Choice(*limit_tokens(tokens, _stops(body), limit))
        choices.append(choice)
    return Answer(choices, prompt.tokens)


def answer_completion(
    body: dict[str, Any], prompts: list[Prompt], custom: Custom | None, length: int | None
) -> Answer:
    """The answer to a valid text completion request: `n` choices for each prompt, in order."""
    limit, choices = body.get("max_tokens"), []
    for prompt in prompts:
        seed = digest(body["model"], prompt.texts, body.get("seed"))
        for index in range(body.get("n") or 1):
            if custom is None:
                tokens = reply_tokens(prompt.question, seed, index, length)
                choice = Choice(*limit_tokens(tokens, _stops(body), limit))
            else:
                choice = _custom_choice(custom, _stops(body), limit)
            if body.get("echo"):
                choice.tokens = tokenize(prompt.question) + choice.tokens
            choices.append(choice)
    return Answer(choices, sum(prompt.tokens for prompt in prompts))


def _text_of(message: Mapping[str, Any]) -> str:
    """All text of a message; a part that is not text counts as its type's name."""
    content = message.get("content") or ""
    if isinstance(content, list):
        content = "".join(str(part.get("text", f" [{part['type']}]")) for part in content)
    for call in message.get("tool_calls") or ():
        function = call["function"]
        content += f" {function.get('name')} {function.get('arguments')}"
    return str(content)


def _stops(body: Mapping[str, Any]) -> list[str]:
    stop = body.get("stop") or []
    return [stop] if isinstance(stop, str) else stop


def _formatted(
    body: Mapping[str, Any], prompt: Prompt, seed: bytes, index: int, length: int | None
) -> list[str]:
    """The tokens of a generated answer, in the format asked for."""
    response_format = body.get("response_format") or {}
    if response_format.get("type") == "json_schema":
        schema = response_format["json_schema"].get("schema")
        return _fitting(schema, "response_format.json_schema.schema")
    tokens = reply_tokens(prompt.question, seed, index, length)
    if response_format.get("type") == "json_object":
        return tokenize(_encode({"answer": "".join(tokens)}).decode())
    return tokens


def _fitting(schema: Any, param: str) -> list[str]:
    """The tokens of a JSON text that fits the schema.

    Raises:
        ApiError: If the schema makes no sense.
    """
    try:
        return tokenize(_encode(example(schema)).decode())
    except _SENSELESS as error:
        message = f"The schema is not valid: {error}"
        raise ApiError(400, message, param=param, code="invalid_schema") from error


def _tools_to_call(body: Mapping[str, Any], prompt: Prompt) -> list[dict[str, Any]]:
    """The tools that the answer calls; none when it is to be text."""
    functions = [tool["function"] for tool in body.get("tools") or ()]
    choice = body.get("tool_choice") or "auto"
    if not functions or choice == "none":
        return []
    if isinstance(choice, dict):
        wanted = (choice.get("function") or {}).get("name")
        return [function for function in functions if function["name"] == wanted]
    if choice == "auto" and body["messages"][-1]["role"] == "tool":
        return []
    if body.get("parallel_tool_calls"):
        return functions
    named = [function for function in functions if function["name"] in prompt.question]
    return (named or functions)[:1]


def _call_tools(functions: list[dict[str, Any]], seed: bytes, limit: int | None) -> Choice:
    calls, left = [], limit
    for index, function in enumerate(functions):
        tokens = _fitting(function.get("parameters") or {"type": "object"}, "tools")
        if left is not None:
            tokens, left = tokens[:left], left - len(tokens)
        calls.append(
            ToolCall(f"call_{digest(seed.hex(), index).hex()[:24]}", function["name"], tokens)
        )
        if left is not None and left < 0:
            break
    cut = left is not None and left < 0
    return Choice([], "length" if cut else "tool_calls", calls)


def _custom_choice(custom: Custom, stop: list[str], limit: int | None) -> Choice:
    """A user's own answer as a choice; `stop` and the limit hold for it too."""
    if isinstance(custom, str):
        return Choice(*limit_tokens(tokenize(custom), stop, limit))
    if not isinstance(custom, Mapping):
        return Choice(*limit_tokens(list(custom), stop, limit))
    message = dict(custom)
    message.pop("role", None)
    content, calls = message.pop("content", None), message.pop("tool_calls", None) or ()
    choice = Choice(*limit_tokens(tokenize(content or ""), stop, limit), extra=message)
    choice.tool_calls = [_custom_call(call, index) for index, call in enumerate(calls)]
    if choice.tool_calls:
        choice.finish_reason = "tool_calls"
    return choice


def _custom_call(call: Mapping[str, Any], index: int) -> ToolCall:
    """A tool call of a user's own answer; `{"name", "arguments"}` may be nested in `"function"`."""
    function = call.get("function", call)
    arguments = function.get("arguments", {})
    text = arguments if isinstance(arguments, str) else _encode(arguments).decode()
    return ToolCall(str(call.get("id", f"call_{index}")), function["name"], tokenize(text))
