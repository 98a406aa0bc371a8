"""Answers that continue a beginning ("prefill"), as the servers that can do it take it."""

from collections.abc import Mapping
from typing import Any, Final

from konko_async.testing._emulator.errors import ApiError

OWNERS: Final = {"vllm": "vllm", "sglang": "sglang", "llama.cpp": "llamacpp"}
"""What their lists of models say in `owned_by`."""

PREFILLS: Final = (*OWNERS, "mistral", "deepseek")
"""The servers whose way can be chosen."""

_FLAGS: Final = ("continue_final_message", "add_generation_prompt")


def beginning_of(body: Mapping[str, Any], server: str) -> str | None:
    """The beginning of the answer that a valid chat request asks to go on with; `None`: none.

    Args:
        body: The request.
        server: One of `PREFILLS`.

    Raises:
        ApiError: 400, if that server refuses it.
    """
    *before, last = body["messages"]
    answered = last["role"] == "assistant"
    text = last.get("content") if isinstance(last.get("content"), str) else ""
    if server in {"vllm", "sglang"}:
        if not body.get("continue_final_message"):
            return None
        if not answered:
            raise _refusal("continue_final_message needs a last message of the assistant")
        # vLLM's check, which SGLang does not have. Its templates strip the end of the message.
        if server == "vllm" and body.get("add_generation_prompt", True):
            both = "Cannot set both `continue_final_message` and `add_generation_prompt` to True."
            raise _refusal(both)
        return text.rstrip() if server == "vllm" else text
    if not answered:
        return None
    if server == "llama.cpp":
        if before and before[-1]["role"] == "assistant":
            raise _refusal("Cannot have 2 or more assistant messages at the end of the list.")
        return text
    if last.get("prefix") is True:
        return text
    if server == "mistral":
        raise _refusal(
            "Expected last role User or Tool (or Assistant with prefix True) for serving but got "
            "assistant"
        )
    return None


def without_beginning(body: Mapping[str, Any]) -> dict[str, Any]:
    """The request without its last message: what the whole answer is an answer to."""
    asked = {name: value for name, value in body.items() if name not in _FLAGS}
    return {**asked, "messages": body["messages"][:-1] or body["messages"]}


def rest_of(tokens: list[str], beginning: str) -> list[str]:
    """The tokens of an answer that come after its beginning; all of them if it began otherwise."""
    if not "".join(tokens).startswith(beginning):
        return tokens
    rest, left = [], len(beginning)
    for token in tokens:
        if left < len(token):
            rest.append(token[left:])
        left = max(left - len(token), 0)
    return rest


def _refusal(message: str) -> ApiError:
    return ApiError(400, message, param="messages")
