"""The options of a relay, and the check of a call against its allow-lists and caps."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Literal

import msgspec

from konko_async import Priority, Timeout
from konko_async.errors import ConfigurationError
from konko_async.relay._content import (
    check_calls,
    checked_choice,
    checked_content,
    checked_tools,
    refuse_remote_references,
)
from konko_async.relay._errors import RefusalError
from konko_async.relay._formats.base import ChatCall, Dialect
from konko_async.relay._formats.history import acceptable_calls
from konko_async.relay._formats.openai import ANSWER_FIELDS, OpenAIFormat
from konko_async.relay._streams.pump import Delivery

__all__ = [
    "CORS_HEADERS",
    "MESSAGE_FIELDS",
    "OPENAI",
    "PARAMS",
    "RelayOptions",
    "capped",
    "chat_key",
    "checked_call",
]

PARAMS = frozenset({
    "temperature", "top_p", "max_tokens", "max_completion_tokens", "stop", "seed",
    "presence_penalty", "frequency_penalty", "response_format", "tools", "tool_choice",
    "parallel_tool_calls", "reasoning_effort", "stream_options",
})  # fmt: skip
"""Optional parameters that browsers may send. Not among them: ``n``, which multiplies the cost."""

MESSAGE_FIELDS = frozenset({"role", "content", "name", "tool_calls", "tool_call_id", "refusal"})
"""Fields of messages that browsers may send."""

CORS_HEADERS = (
    "Content-Type", "Authorization", "Last-Event-ID", "X-Resumable", "X-Request-Timeout",
    "X-Request-Priority",
    "User-Agent",  # sent by the AI SDK; Firefox and Safari ask for it
    "X-Stainless-*", "OpenAI-Organization", "OpenAI-Project", "OpenAI-Beta", "Idempotency-Key",
)  # fmt: skip
"""Request headers that pages of other origins may send: those of the AI SDK and of openai's
JavaScript client are among them. A name that ends in ``*`` stands for all that begin so."""

MIB = 1024 * 1024
_ROLES = frozenset({"system", "developer", "user", "assistant", "tool"})
_PARTS = frozenset({"text", "image_url"})
_CAPPED = ("max_tokens", "max_completion_tokens")
_MOST_ID = 128  # characters of an id that a browser chooses; it is kept with the chat's stream
_CHAT_ID = re.compile(rf"[A-Za-z0-9_.~:@=+-]{{1,{_MOST_ID}}}")
_HEADER_NAME = re.compile(r"[A-Za-z0-9-]+\*?")
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
        message_fields: fields of messages that browsers may send. Default :data:`MESSAGE_FIELDS`.
        roles: of messages. Default system, developer, user, assistant, tool.
        parts: types of content parts. Default text and image_url.
        file_hosts: hosts from which the model's server may be asked to fetch images and other
            files, by ``https:`` only. Default None: any with a public name. A public name can
            resolve to a private address, so where the model's server can reach a network of yours,
            name the hosts here; an empty list leaves ``data:`` URLs only.
        answer_fields: fields of answers that browsers get to see. Default :data:`ANSWER_FIELDS`.
        max_tokens: cap of output tokens; also sent where the browser names none. Default None.
        token_fields: fields that the model's server reads as the maximum of output tokens. With a
            cap, the first is always sent, the others where a browser names one of them. Default
            ``max_tokens``, then ``max_completion_tokens``; OpenAI's own server takes only one: give
            ``("max_completion_tokens",)`` for it.
        max_messages: of one conversation. Default 1000.
        max_body: bytes of a request's body. Default 1 MiB.
        body_timeout: seconds for a body to arrive. Default 30.
        hosts: allowed ``Host`` values: a name (any port), or name and port; IPv6 in brackets.
            Default those of loopback.
        origins: other origins that may call, exactly as browsers send them
            (``https://chat.example``). Default none: only the relay's own pages.
        credentials: whether those may send cookies. Default False.
        cors_headers: request headers that those may send. Default :data:`CORS_HEADERS`.
        max_calls: upstream calls at once. Default 1000.
        max_calls_per_identity: of one identity. Default 10.
        max_readers: streams read at once, resumed ones included. Default 4000.
        max_readers_per_identity: of one identity. Default 40.
        resumable: streams of every endpoint are resumable unless the request says otherwise.
            Default False.
        store_away: what becomes of resumable calls while the store cannot be used: ``direct``, the
            default, answers them all the same, without a way to resume; ``refuse`` answers 503
            with Retry-After.
        linger: seconds that a resumable stream continues without readers. Default 60.
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
    file_hosts: Collection[str] | None = None
    answer_fields: Collection[str] = ANSWER_FIELDS
    max_tokens: int | None = None
    token_fields: Sequence[str] = _CAPPED
    max_messages: int = 1000
    max_body: int = MIB
    body_timeout: float = 30.0
    hosts: Sequence[str] = _LOOPBACK_HOSTS
    origins: Sequence[str] = ()
    credentials: bool = False
    cors_headers: Collection[str] = CORS_HEADERS
    max_calls: int = 1000
    max_calls_per_identity: int = 10
    max_readers: int = 4000
    max_readers_per_identity: int = 40
    resumable: bool = False
    store_away: Literal["direct", "refuse"] = "direct"
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
        self._check_lists()
        # Bodies are read into memory whole, and those of many callers at once.
        if not 1 <= self.max_body <= MIB:
            raise ConfigurationError("max_body must be between 1 byte and 1 MiB")
        for name in _POSITIVE:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
                raise ConfigurationError(f"{name} must be a number above 0")

    def _check_lists(self) -> None:
        for name in ("hosts", "origins", "file_hosts"):
            values = getattr(self, name)
            if values is not None and (isinstance(values, str) or "*" in values):
                raise ConfigurationError(f'{name} must be a list of exact values; "*" is none')
        for origin in self.origins:
            # Compared as text with what browsers send, so any other spelling would never match.
            if not _ORIGIN.fullmatch(origin) or origin.endswith(_DEFAULT_PORT[origin[:5]]):
                raise ConfigurationError(
                    f"origin {origin!r:.100} must be scheme://host[:port] as browsers send it: in "
                    "lower case, without a path, without the scheme's own port"
                )
        if self.store_away not in {"direct", "refuse"}:
            raise ConfigurationError("store_away must be direct or refuse")
        fields = self.token_fields
        if isinstance(fields, str) or not fields or set(fields) - set(_CAPPED):
            raise ConfigurationError(f"token_fields must list some of {', '.join(_CAPPED)}")
        headers = self.cors_headers
        if isinstance(headers, str) or not all(map(_HEADER_NAME.fullmatch, headers)):
            raise ConfigurationError("cors_headers must be a list of header names")

    @property
    def default_model(self) -> str:
        """The model of requests that name none."""
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


def chat_key(chat_id: str) -> str:
    """Return what a chat is kept under: its id, or the digest of one that is long or unusual.

    Whatever a browser calls its chat, what is kept, logged or put into the keys of a store
    has at most 128 characters: letters, digits, or any of ``_.~:@=+-``.
    """
    if _CHAT_ID.fullmatch(chat_id):
        return chat_id
    return "sha256:" + hashlib.sha256(chat_id.encode("utf-8", "surrogatepass")).hexdigest()


def _capped_ids(call: ChatCall) -> ChatCall:
    """Cap the ids that a browser chooses: they are kept for as long as the stream is."""
    if call.message_id is not None and len(call.message_id) > _MOST_ID:
        raise _refuse("messages", f"a message's id has more than {_MOST_ID} characters")
    return call if call.key is None else msgspec.structs.replace(call, key=chat_key(call.key))


def _checked_messages(messages: object, options: RelayOptions) -> list[Any]:
    if not isinstance(messages, list) or not messages:
        raise _refuse("messages", "must be a list of messages")
    if len(messages) > options.max_messages:
        raise _refuse("messages", f"at most {options.max_messages} are allowed")
    found = []
    for index, message in enumerate(messages):
        where = f"messages[{index}]"
        fields = _fields(message, where, options.message_fields)
        role = fields.get("role")
        if not isinstance(role, str) or role not in options.roles:
            raise _refuse(f"{where}.role", "is not one of those allowed")
        if "content" in fields:
            content = checked_content(
                fields["content"],
                f"{where}.content",
                types=options.parts,
                hosts=options.file_hosts,
            )
            fields = {**fields, "content": content}
        check_calls(fields.get("tool_calls"), f"{where}.tool_calls")
        found.append(acceptable_calls(fields))
    return found


def capped(params: dict[str, Any], cap: int | None, fields: Sequence[str]) -> dict[str, Any]:
    """Return parameters with the maximum of output tokens capped.

    Raises:
        RefusalError: 400; the requested maximum is not an integer above 0.
    """
    if cap is None:
        return params
    named = {name: params[name] for name in _CAPPED if params.get(name) is not None}
    for name, value in named.items():
        # To llama.cpp's server -1 means no maximum.
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise _refuse(name, "must be an integer above 0")
    # A server that does not know the field that was named would answer without any cap.
    most = min(cap, *named.values()) if named else cap
    # The first field is sent in any case, the others only where the browser named one of them:
    # OpenAI's own server takes only one.
    others = {name: value for name, value in params.items() if name not in _CAPPED}
    more = fields[1:] if set(named) - {fields[0]} else ()
    return {**others, **dict.fromkeys((fields[0], *more), most)}


_CHECKS: Mapping[str, Callable[[Any], Any]] = {
    "tools": checked_tools,
    "tool_choice": checked_choice,
}


def checked_call(call: ChatCall, options: RelayOptions) -> ChatCall:
    """Return a call with its parameters capped, and without what is not on a list.

    Raises:
        RefusalError: the model or a field is not allowed.
    """
    # For its refusal of a model that is not listed.
    options.upstream_model(call.model)
    call = _capped_ids(call)
    messages = _checked_messages(call.messages, options)
    params = {}
    for name, value in call.params.items():
        if name not in options.params:
            raise RefusalError(400, "a parameter is not allowed here", param=name[:100])
        check = _CHECKS.get(name)
        params[name] = value if check is None or value is None else check(value)
    refuse_remote_references(params.get("response_format"), "response_format")
    params = capped(params, options.max_tokens, options.token_fields)
    return msgspec.structs.replace(call, messages=messages, params=params)


def _parse(body: Any, options: RelayOptions) -> ChatCall:
    if not isinstance(body, dict):
        raise RefusalError(400, "the body must be a JSON object")
    # Some clients write out all fields, with null for those that are not set.
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
