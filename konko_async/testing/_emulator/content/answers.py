"""Generates the emulator's answers: choices and usage, a pure function of the request."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import msgspec

from konko_async.testing._emulator.content.prefill import rest_of
from konko_async.testing._emulator.content.schema_example import example
from konko_async.testing._emulator.content.text import (
    count_tokens,
    digest,
    limit_tokens,
    reply_tokens,
    tokenize,
)
from konko_async.testing._emulator.errors import ApiError

Custom: TypeAlias = str | Mapping[str, Any] | Sequence[str]
"""A user's own answer: the text, the assistant message, or the tokens of the text."""

# OpenAI's chat template takes three tokens for each message, beside its text.
_PER_MESSAGE = 3
# What a schema that is none makes of an attempt to follow it.
_SENSELESS = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
_encode = msgspec.json.encode


class PromptText(msgspec.Struct):
    """The prompt of a request: its text by role, its size, and the question to answer."""

    texts: list[tuple[str, str]]
    tokens: int
    question: str


class GeneratedCall(msgspec.Struct):
    """A call of a tool; its arguments as the tokens of a JSON text."""

    id: str
    name: str
    arguments: list[str]


class GeneratedChoice(msgspec.Struct):
    """One answer: the tokens of its text, or the tools it calls."""

    tokens: list[str]
    finish_reason: str
    tool_calls: list[GeneratedCall] = []
    extra: dict[str, Any] = {}
    """More fields of the message, which a user's own answer had."""

    @property
    def size(self) -> int:
        """Its completion tokens."""
        return len(self.tokens) + sum(len(call.arguments) for call in self.tool_calls)


class GeneratedAnswer(msgspec.Struct):
    """The choices of an answer, and the tokens of its prompt."""

    choices: list[GeneratedChoice]
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


def read_messages(messages: list[dict[str, Any]]) -> PromptText:
    """The prompt of a chat request: 3 tokens for each message, and those of its text."""
    texts = [(message["role"], _text_of(message)) for message in messages]
    tokens = _PER_MESSAGE * len(texts) + sum(count_tokens(text) for _, text in texts)
    # A tool's result counts as well: after a call the answer has to be about what it returned.
    question = next((text for role, text in reversed(texts) if role in ("user", "tool")), "")
    return PromptText(texts, tokens, question)


def read_prompts(prompt: Any) -> list[PromptText]:
    """The prompts of a completion or embedding request, which may be one or many."""
    if isinstance(prompt, str) or (prompt and isinstance(prompt[0], int)):
        prompt = [prompt]
    prompts = []
    for item in prompt:
        # Without the model's tokenizer the words of token ids are unknown; any text will do that
        # differs with the ids, so that the answer does.
        text = item if isinstance(item, str) else "".join(f" <{token}>" for token in item)
        size = count_tokens(item) if isinstance(item, str) else len(item)
        prompts.append(PromptText([("prompt", text)], size, text))
    return prompts


def answer_chat(
    body: dict[str, Any],
    prompt: PromptText,
    custom: Custom | None,
    length: int | None,
    *,
    beginning: str = "",
    repeats: bool = False,
) -> GeneratedAnswer:
    """The answer to a valid chat request.

    Args:
        body: The request.
        prompt: What `read_messages()` made of it.
        custom: A user's own answer, for every choice.
        length: The tokens of a generated text; `None` for what the request's digest has it be.
        beginning: What the client has of the answer: only what comes after it is generated.
        repeats: Whether the answer repeats its beginning.
    """
    tools = [] if custom is not None else tools_to_call(body, prompt)
    # The newer name wins where a client sends both.
    limit = body.get("max_completion_tokens") or body.get("max_tokens")
    choices, seed = [], digest(body["model"], prompt.texts, body.get("seed"))
    for index in range(body.get("n") or 1):
        if tools:
            # The digest of the choice's number gives each its own call ids.
            choice = _call_tools(tools, digest(seed.hex(), index), limit)
        elif custom is not None:
            choice = _custom_choice(custom, _stops(body), limit, beginning)
        else:
            tokens = rest_of(_formatted(body, prompt, seed, index, length), beginning)
            choice = GeneratedChoice(*limit_tokens(tokens, _stops(body), limit))
        if repeats and not choice.tool_calls:
            choice.tokens = tokenize(beginning) + choice.tokens
        choices.append(choice)
    return GeneratedAnswer(choices, prompt.tokens)


def answer_completion(
    body: dict[str, Any], prompts: list[PromptText], custom: Custom | None, length: int | None
) -> GeneratedAnswer:
    """The answer to a valid text completion request: `n` choices for each prompt, in order."""
    limit, choices = body.get("max_tokens"), []
    for prompt in prompts:
        seed = digest(body["model"], prompt.texts, body.get("seed"))
        for index in range(body.get("n") or 1):
            if custom is None:
                tokens = reply_tokens(prompt.question, seed, index, length)
                choice = GeneratedChoice(*limit_tokens(tokens, _stops(body), limit))
            else:
                choice = _custom_choice(custom, _stops(body), limit)
            if body.get("echo"):
                choice.tokens = tokenize(prompt.question) + choice.tokens
            choices.append(choice)
    return GeneratedAnswer(choices, sum(prompt.tokens for prompt in prompts))


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
    body: Mapping[str, Any], prompt: PromptText, seed: bytes, index: int, length: int | None
) -> list[str]:
    """The tokens of a generated answer, in the format asked for."""
    response_format = body.get("response_format") or {}
    if response_format.get("type") == "json_schema":
        schema = response_format["json_schema"].get("schema")
        return _fitting(schema, "response_format.json_schema.schema")
    tokens = reply_tokens(prompt.question, seed, index, length)
    if response_format.get("type") == "json_object":
        # Tokens of the JSON text, not of the words: `max_tokens` cuts it, as real answers are cut,
        # into text that is not JSON any more.
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


def tools_to_call(body: Mapping[str, Any], prompt: PromptText) -> list[dict[str, Any]]:
    """The tools that the answer calls; none when it is to be text."""
    functions = [tool["function"] for tool in body.get("tools") or ()]
    choice = body.get("tool_choice") or "auto"
    if not functions or choice == "none":
        return []
    if isinstance(choice, dict):
        wanted = (choice.get("function") or {}).get("name")
        return [function for function in functions if function["name"] == wanted]
    # Else a loop of tool calls would never end; "required" demands another call all the same.
    if choice == "auto" and body["messages"][-1]["role"] == "tool":
        return []
    if body.get("parallel_tool_calls"):
        return functions
    # A test picks the tool by naming it in the question.
    named = [function for function in functions if function["name"] in prompt.question]
    return (named or functions)[:1]


def _call_tools(functions: list[dict[str, Any]], seed: bytes, limit: int | None) -> GeneratedChoice:
    calls, left = [], limit
    for index, function in enumerate(functions):
        tokens = _fitting(function.get("parameters") or {"type": "object"}, "tools")
        if left is not None:
            tokens, left = tokens[:left], left - len(tokens)
        calls.append(
            GeneratedCall(f"call_{digest(seed.hex(), index).hex()[:24]}", function["name"], tokens)
        )
        if left is not None and left < 0:
            break
    cut = left is not None and left < 0
    # Cut arguments are no JSON; `length` is how a client can know why.
    return GeneratedChoice([], "length" if cut else "tool_calls", calls)


def _custom_choice(
    custom: Custom, stop: list[str], limit: int | None, beginning: str = ""
) -> GeneratedChoice:
    """A user's own answer as a choice; `stop` and the limit hold for it too."""
    if not isinstance(custom, Mapping):
        tokens = tokenize(custom) if isinstance(custom, str) else list(custom)
        return GeneratedChoice(*limit_tokens(rest_of(tokens, beginning), stop, limit))
    message = dict(custom)
    # It is always the assistant's; a second one would come from `extra`.
    message.pop("role", None)
    content, calls = message.pop("content", None), message.pop("tool_calls", None) or ()
    tokens = rest_of(tokenize(content or ""), beginning)
    choice = GeneratedChoice(*limit_tokens(tokens, stop, limit), extra=message)
    choice.tool_calls = [_custom_call(call, index) for index, call in enumerate(calls)]
    if choice.tool_calls:
        choice.finish_reason = "tool_calls"
    return choice


def _custom_call(call: Mapping[str, Any], index: int) -> GeneratedCall:
    """A tool call of a user's own answer; `{"name", "arguments"}` may be nested in `"function"`."""
    function = call.get("function", call)
    arguments = function.get("arguments", {})
    text = arguments if isinstance(arguments, str) else _encode(arguments).decode()
    return GeneratedCall(str(call.get("id", f"call_{index}")), function["name"], tokenize(text))
