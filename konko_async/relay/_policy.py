"""What a relay lets through: models, fields, sizes, origins, hosts; values and pure checks."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import msgspec

from konko_async import Priority, Timeout
from konko_async.errors import ConfigurationError
from konko_async.relay._errors import RefusalError
from konko_async.relay._format import ChatCall, Dialect
from konko_async.relay._openai import ANSWER_FIELDS, OpenAIFormat
from konko_async.relay._pump import Delivery

__all__ = ["MESSAGE_FIELDS", "OPENAI", "PARAMS", "RelayOptions", "checked_call", "is_loopback"]

PARAMS = frozenset({
    "temperature", "top_p", "max_tokens", "max_completion_tokens", "stop", "seed",
    "presence_penalty", "frequency_penalty", "response_format", "tools", "tool_choice",
    "parallel_tool_calls", "reasoning_effort", "stream_options",
})  # fmt: skip
"""Optional parameters that browsers may send. Not among them: ``n``, which multiplies the cost."""

MESSAGE_FIELDS = frozenset({"role", "content", "name", "tool_calls", "tool_call_id", "refusal"})
"""Fields of messages that browsers may send."""

MIB = 1024 * 1024
_ROLES = frozenset({"system", "developer", "user", "assistant", "tool"})
_PARTS = frozenset({"text", "image_url"})
_CAPPED = ("max_tokens", "max_completion_tokens")
_ORIGIN = re.compile(r"https?://[^/@A-Z\s?#]+")
_DEFAULT_PORT = {"http:": ":80", "https": ":443"}
_POSITIVE = (
    "max_messages", "body_timeout", "linger", "max_calls", "max_calls_per_identity",
    "max_readers", "max_readers_per_identity",
)  # fmt: skip
_LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "[::1]")


class RelayOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What a relay lets through, and how it behaves.

    Attributes:
        models: the models that browsers may ask for, the default one first; or a mapping of the
            names that browsers use to the models' own.
        params: optional parameters that browsers may send; any other is refused. Default
            :data:`PARAMS`.
        message_fields: likewise of messages. Default :data:`MESSAGE_FIELDS`.
        roles: of messages. Default system, developer, user, assistant, tool.
        parts: types of content parts. Default text and image_url.
        answer_fields: fields of answers that browsers get to see. Default :data:`ANSWER_FIELDS`.
        max_tokens: cap of what is asked for; also sent where the browser names none. Default None.
        max_messages: of one conversation. Default 1000.
        max_body: bytes of a request's body. Default 1 MiB.
        body_timeout: seconds for a body to arrive. Default 30.
        hosts: allowed ``Host`` values: a name (any port), or name and port; IPv6 in brackets.
            Default those of loopback.
        origins: other origins that may call, exactly as browsers send them
            (``https://chat.example``). Default none: only the relay's own pages.
        credentials: whether those may send cookies. Default False.
        max_calls: upstream calls at once. Default 1000.
        max_calls_per_identity: of one identity. Default 10.
        max_readers: streams read at once, resumed ones included. Default 4000.
        max_readers_per_identity: of one identity. Default 40.
        resumable: streams of every endpoint are resumable unless asked otherwise. Default False.
        linger: seconds that a resumable stream goes on without readers. Default 60.
        open_early: answer 200 and send heartbeats before the first token. Default False: a
            failure before the first token is a status of its own.
        merge: write what arrived together as one chunk. Default False.
        stats: an event with times and tokens after the last chunk. Default False.
        delivery: heartbeats, coalescing, patience.
        timeout: of upstream calls; None: the client's own.
        max_timeout: seconds in all that a request may ask for by ``X-Request-Timeout``. Default
            None: that header, and ``X-Request-Priority``, count for nothing.
        priority: of upstream calls.

    Raises:
        ConfigurationError: an option cannot be used.
    """

    models: Sequence[str] | Mapping[str, str]
    params: Collection[str] = PARAMS
    message_fields: Collection[str] = MESSAGE_FIELDS
    roles: Collection[str] = _ROLES
    parts: Collection[str] = _PARTS
    answer_fields: Collection[str] = ANSWER_FIELDS
    max_tokens: int | None = None
    max_messages: int = 1000
    max_body: int = MIB
    body_timeout: float = 30.0
    hosts: Sequence[str] = _LOOPBACK_HOSTS
    origins: Sequence[str] = ()
    credentials: bool = False
    max_calls: int = 1000
    max_calls_per_identity: int = 10
    max_readers: int = 4000
    max_readers_per_identity: int = 40
    resumable: bool = False
    linger: float = 60.0
    open_early: bool = False
    merge: bool = False
    stats: bool = False
    delivery: Delivery = Delivery()
    timeout: float | Timeout | None = None
    max_timeout: float | None = None
    priority: Priority | None = None

    def __post_init__(self) -> None:
        if isinstance(self.models, str) or not self.models:
            raise ConfigurationError("models must list the models that browsers may ask for")
        for name in ("hosts", "origins"):
            values = getattr(self, name)
            if isinstance(values, str) or "*" in values:
                raise ConfigurationError(f'{name} must be a list of exact values; "*" is none')
        for origin in self.origins:
            if not _ORIGIN.fullmatch(origin) or origin.endswith(_DEFAULT_PORT[origin[:5]]):
                raise ConfigurationError(
                    f"origin {origin!r:.100} must be scheme://host[:port] as browsers send it: in "
                    "lower case, without a path, without the scheme's own port"
                )
        if not 1 <= self.max_body <= MIB:
            raise ConfigurationError("max_body must be between 1 byte and 1 MiB")
        for name in _POSITIVE:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
                raise ConfigurationError(f"{name} must be a number above 0")

    @property
    def default_model(self) -> str:
        """What is asked if a browser names no model."""
        return next(iter(self.models))

    def upstream_model(self, name: str) -> str:
        """Return the model's own name.

        Raises:
            RefusalError: browsers may not ask for it.
        """
        if name not in self.models:
            raise RefusalError(404, "no such model here", type="model_not_found", param="model")
        return self.models[name] if isinstance(self.models, Mapping) else name

    def shown_model(self, name: str) -> str | None:
        """Return what an answer calls the model, None where that is its own name."""
        return name if isinstance(self.models, Mapping) else None


def is_loopback(host: str) -> bool:
    """Whether an address (or ``localhost``) is this machine's own."""
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host.partition("%")[0].strip("[]"))
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def _refuse(param: str, problem: str) -> RefusalError:
    return RefusalError(400, f"{param}: {problem}", param=param)


def _fields(value: object, where: str, allowed: Collection[str]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _refuse(where, "must be an object")
    for name in value:
        if name not in allowed:
            raise RefusalError(
                400, f"{where}: a field is not allowed here", param=f"{where}.{name}"[:100]
            )
    return value


def _check_messages(messages: object, options: RelayOptions) -> None:
    if not isinstance(messages, list) or not messages:
        raise _refuse("messages", "must be a list of messages")
    if len(messages) > options.max_messages:
        raise _refuse("messages", f"at most {options.max_messages} are allowed")
    for index, message in enumerate(messages):
        where = f"messages[{index}]"
        fields = _fields(message, where, options.message_fields)
        role = fields.get("role")
        if not isinstance(role, str) or role not in options.roles:
            raise _refuse(f"{where}.role", "is not one of those allowed")
        content = fields.get("content")
        for part in content if isinstance(content, list) else ():
            kind = part.get("type") if isinstance(part, dict) else None
            if not isinstance(kind, str) or kind not in options.parts:
                raise _refuse(f"{where}.content", "a part's type is not one of those allowed")


def _capped(params: dict[str, Any], cap: int | None) -> dict[str, Any]:
    if cap is None:
        return params
    named = False
    for name in _CAPPED:
        value = params.get(name)
        if value is not None:
            named = True
            if isinstance(value, bool) or not isinstance(value, int):
                raise _refuse(name, "must be an integer")
            params = {**params, name: min(value, cap)}
    return params if named else {**params, "max_tokens": cap}


def checked_call(call: ChatCall, options: RelayOptions) -> ChatCall:
    """Return a call with its parameters capped.

    Raises:
        RefusalError: the model or a field is not allowed.
    """
    options.upstream_model(call.model)
    _check_messages(call.messages, options)
    for name in call.params:
        if name not in options.params:
            raise RefusalError(400, "a parameter is not allowed here", param=name[:100])
    return msgspec.structs.replace(call, params=_capped(call.params, options.max_tokens))


def _parse(body: Any, options: RelayOptions) -> ChatCall:
    if not isinstance(body, dict):
        raise RefusalError(400, "the body must be a JSON object")
    params = {name: value for name, value in body.items() if value is not None}
    model = params.pop("model", options.default_model)
    messages = params.pop("messages", None)
    stream = params.pop("stream", False)
    if not isinstance(model, str):
        raise _refuse("model", "must be a text")
    if not isinstance(stream, bool):
        raise _refuse("stream", "must be true or false")
    return ChatCall(model=model, messages=messages or [], params=params, stream=stream)


def _format(call: ChatCall, options: RelayOptions) -> OpenAIFormat:
    return OpenAIFormat(
        fields=options.answer_fields,
        merge=options.merge,
        stats=options.stats,
        model=options.shown_model(call.model),
    )


OPENAI = Dialect(name="openai", parse=_parse, format=_format)
"""OpenAI's bodies and chunks."""

AuthHook = Callable[[Any], Any]
