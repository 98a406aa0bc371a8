"""What the server answers: its models, a small call, its limits."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final

from konko_async import APIStatusError, AsyncKonko, KonkoError
from konko_async.cli._number_format import duration, plural
from konko_async.cli._output import error_line
from konko_async.cli.chat.catalog import nearest
from konko_async.cli.doctor.finding import Finding, failed, fine, skipped, warned
from konko_async.middleware import classify

__all__ = ["advice_on", "check_call", "check_limits", "check_models"]

_URL: Final = "look at the base URL: most end with /v1, and none with /chat/completions"
_ADVICE: Final = {
    "authentication": "the server does not accept this key: is it that server's, and not revoked?",
    "out_of_credit": "the account has no credit left: pay, or use another key",
    "forbidden": "the key may not do this: ask who gave it, or look at the account's settings",
    "not_found": _URL,
    "missing_model": "choose another model: `konko-async models` lists them",
    "redirect": "the server has moved: put the address that it names into the base URL",
    "rate_limit": "calls are limited: wait, make fewer, or ask for higher limits",
    "overloaded": "the server is overloaded: try again later",
    "server_error": "the server fails: try again later, and tell its owner the request id",
    "timeout": "the server is slow or stuck: try again, with a longer --timeout",
    "deadline": "the server is slow or stuck: try again, with a longer --timeout",
    "unreadable": f"what answers there is no such API (a web page, or a proxy's): {_URL}",
    "connection": "the connection broke: a proxy or the server ends it; the checks above say more",
    "cut_off": "the connection broke in the middle: a proxy's or load balancer's time limit?",
}
_ELSE: Final = "what the server says is all that is known; --debug of the other commands shows more"
_LIMIT: Final = "x-ratelimit-"


def advice_on(error: KonkoError) -> str:
    """Return what to do about the failure of a call."""
    return _ADVICE.get(classify(error).kind, _ELSE)


async def check_models(client: AsyncKonko, model: str | None) -> tuple[Finding, str | None]:
    """List the models; also returns the one for the calls."""
    began = time.perf_counter()
    try:
        page = await client.models.list()
    except KonkoError as error:
        missing = classify(error).kind in {"not_found", "missing_model"}
        # Many servers have no list, and answer calls all the same.
        if model and (missing or classify(error).kind == "forbidden"):
            found = f"the server has no list of models ({error_line(error)})"
            return warned("models", found, "calls may work all the same", model=model), model
        advice = _URL if missing else advice_on(error)
        return failed("models", error_line(error), advice), model
    seconds = time.perf_counter() - began
    names = [entry.id for entry in page.data if entry.is_chat is not False]
    return _chosen(names, model, seconds)


def _chosen(names: list[str], model: str | None, seconds: float) -> tuple[Finding, str | None]:
    details: dict[str, Any] = {"chat_models": len(names), "seconds": seconds, "model": model}
    text = f"{plural(len(names), 'chat model')} ({duration(seconds)})"
    if not names:
        advice = "the account may have no access to models; give --model to try one"
        return warned("models", "the list has no chat models", advice, **details), model
    if model is None:
        details["model"] = names[0]
        text += f"; none is chosen, so {names[0]} is used here"
        return warned("models", text, "set KONKO_MODEL, or give --model", **details), names[0]
    if model not in names:
        meant = nearest(model, names)
        advice = f"did you mean {meant}?" if meant else "`konko-async models` lists them"
        return warned("models", f"{text}, and {model} is not among them", advice, **details), model
    return fine("models", f"{text}, {model} among them", **details), model


async def check_call(client: AsyncKonko, model: str) -> tuple[Finding, Mapping[str, str] | None]:
    """Make a small call; also returns the answer's headers."""
    began = time.perf_counter()
    try:
        completion = await client.chat.completions.create(
            model=model, messages=[{"role": "user", "content": "Say OK."}], max_tokens=16
        )
    except KonkoError as error:
        headers = error.headers if isinstance(error, APIStatusError) else None
        return failed("call", error_line(error), advice_on(error)), headers
    seconds = time.perf_counter() - began
    usage = completion.usage
    details = {
        "model": model,
        "seconds": seconds,
        "request_id": completion.request_id,
        "usage": usage is not None,
    }
    headers = completion.headers
    if not completion.choices:
        advice = "a proxy or plug-in of the server takes the answer away"
        return failed("call", "the answer has no choices", advice, **details), headers
    if usage is None:
        advice = "costs and limits in tokens are estimates with this server"
        return warned("call", "answered, without usage", advice, **details), headers
    return fine("call", f"{model} answered in {duration(seconds)}", **details), headers


def check_limits(headers: Mapping[str, str] | None) -> Finding:
    """Return the limits that the server reports with its answers."""
    if headers is None:
        return skipped("limits", "there was no answer that could report them")
    told = {
        name.lower().removeprefix(_LIMIT): value
        for name, value in headers.items()
        if name.lower().startswith(_LIMIT)
    }
    if not told:
        return fine("limits", "the server reports none; 429 answers are waited out")
    empty = [name for name, value in told.items() if "remaining" in name and value.strip() == "0"]
    text = ", ".join(f"{name} {value}" for name, value in sorted(told.items()))
    if empty:
        return warned("limits", text, f"nothing is left of {', '.join(empty)}: wait", **told)
    return fine("limits", text, **told)
