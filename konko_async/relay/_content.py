"""Checks what a conversation carries besides text: parts, files, tools and schemas.

The model's server fetches the addresses that a message names, runs the tools that it knows by type,
and follows the references of a schema. A browser must not be able to use it for any of that.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Iterator
from typing import Any, Final
from urllib.parse import urlsplit

from konko_async.relay._errors import RefusalError

__all__ = [
    "check_calls",
    "checked_choice",
    "checked_content",
    "checked_tools",
    "refuse_remote_references",
]

# Of each type of part, the fields that are passed on: those of OpenAI's API, and vLLM's audio and
# video addresses. A "file_id" would name a file of the account that the relay's key belongs to.
_PARTS: Final[dict[str, dict[str, frozenset[str]]]] = {
    "text": {"text": frozenset()},
    "refusal": {"refusal": frozenset()},
    "image_url": {"image_url": frozenset({"url", "detail"})},
    "video_url": {"video_url": frozenset({"url"})},
    "audio_url": {"audio_url": frozenset({"url"})},
    "input_audio": {"input_audio": frozenset({"data", "format"})},
    "file": {"file": frozenset({"filename", "file_data"})},
}
_ENDS_OF_ADDRESSES: Final = ("url", "uri", "file_data")  # of fields' names
_FUNCTION: Final = frozenset({"name", "description", "parameters", "strict"})
_CHOICES: Final = frozenset({"function", "allowed_tools"})
_NAME: Final = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)(?:\.(?!-)[a-z0-9_-]{1,63}(?<!-))+")
# What URL parsers read as an IPv4 address: a last label that is a number, also an octal or
# hexadecimal one.
_NUMBER: Final = re.compile(r"(?:0[xX][0-9a-fA-F]*|[0-9]+)")
# The only IPv6 addresses that are given out (IANA, "IPv6 Global Unicast Address Assignments").
# Others can lead to an IPv4 address, as NAT64's (64:ff9b::/96) and the IPv4-compatible ones do.
_UNICAST: Final = ipaddress.ip_network("2000::/3")
# IETF protocol assignments: older releases of Python take most of them for public ones, and a cloud
# has its metadata there.
_ASSIGNED: Final = ipaddress.ip_network("192.0.0.0/24")
# RFC 6761 and 6762, and the names that clouds and home networks use for hosts of their own.
_INSIDE: Final = (
    "localhost", "local", "internal", "intranet", "lan", "home", "corp", "private", "test",
    "invalid", "localdomain", "home.arpa", "in-addr.arpa", "ip6.arpa",
)  # fmt: skip


def _refuse(param: str, problem: str) -> RefusalError:
    return RefusalError(400, f"{param}: {problem}", param=param[:100])


def checked_content(
    content: Any, where: str, *, types: Collection[str], hosts: Collection[str] | None
) -> Any:
    """Return a message's content with the known fields of its parts only.

    Args:
        content: as sent.
        where: names it in refusals.
        types: of parts that are allowed.
        hosts: from which files may be fetched; None: from any with a public name.

    Raises:
        RefusalError: 400; it is neither text nor parts, a part's type is not allowed, or the
            model's server would have to fetch something that it must not.
    """
    if content is None or isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise _refuse(where, "must be text or a list of parts")
    return [_part(part, where, types, hosts) for part in content]


def _part(part: Any, where: str, types: Collection[str], hosts: Collection[str] | None) -> Any:
    kind = part.get("type") if isinstance(part, dict) else None
    if not isinstance(kind, str) or kind not in types:
        raise _refuse(where, "a part's type is not one of those allowed")
    fields = _PARTS.get(kind)
    # A type that the application has allowed by name: its fields are not known here, but the
    # addresses in them are checked all the same.
    if fields is None:
        _check_addresses(part, where, hosts)
        return part
    found: dict[str, Any] = {"type": kind}
    for name, inner in fields.items():
        value = part.get(name)
        if inner:
            if not isinstance(value, dict):
                raise _refuse(f"{where}.{name}", "must be an object")
            value = {key: each for key, each in value.items() if key in inner}
            _check_addresses(value, f"{where}.{name}", hosts)
            # Base64 has no colon: some servers fetch what has one.
            if isinstance(value.get("data"), str) and ":" in value["data"]:
                _check_address(value["data"], f"{where}.{name}.data", hosts)
        elif not isinstance(value, str):
            raise _refuse(f"{where}.{name}", "must be a text")
        found[name] = value
    return found


def _check_addresses(value: Any, where: str, hosts: Collection[str] | None) -> None:
    for name, inner in _named(value):
        if name.lower().endswith(_ENDS_OF_ADDRESSES):
            if isinstance(inner, str):
                _check_address(inner, f"{where}.{name}", hosts)
            elif not isinstance(inner, dict):  # an object's own fields are looked at, too
                raise _refuse(f"{where}.{name}", "must be a text")


def _check_address(address: str, where: str, hosts: Collection[str] | None) -> None:
    if address[:5].lower() == "data:":
        return
    host = _https_host(address)
    if host is None:
        raise _refuse(where, "must be a data: or https: URL")
    known = _is_public(host) if hosts is None else host in {each.lower() for each in hosts}
    if not known:
        raise _refuse(where, "files may not be fetched from this host")


def _https_host(address: str) -> str | None:
    """Return the host of an https URL; None for all that parsers could read differently."""
    # Parsers drop, encode or stop at these characters, each in its own way: what is checked here
    # must be the host that the model's server connects to.
    if not address.isascii() or re.search(r"[\x00-\x20\x7f\\]", address):
        return None
    try:
        parts = urlsplit(address)
        host = parts.hostname
        _ = parts.port  # raises where it is no number
    except ValueError:
        return None
    # User names and percent-encoded hosts are read differently, too, and so is a path that is left
    # out: to some parsers the host of "https://a#@b" is b.
    authority = address.partition("//")[2].partition("/")[0]
    if parts.scheme != "https" or "@" in authority or "%" in parts.netloc or not host:
        return None
    return host.removesuffix(".")


def _is_public(host: str) -> bool:
    """Whether a host is a public one, as far as its name shows.

    A public name may still resolve to a private address: only a list of hosts rules that out.
    """
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        if _NUMBER.fullmatch(host.rpartition(".")[2]):
            return False
        # Names without a dot are refused by _NAME: a resolver's search list makes them local ones.
        inside = any(host == name or host.endswith(f".{name}") for name in _INSIDE)
        return not inside and _NAME.fullmatch(host) is not None
    if isinstance(address, ipaddress.IPv4Address):
        return address.is_global and not address.is_multicast and address not in _ASSIGNED
    # 6to4 addresses carry an IPv4 one, which may be private.
    inner = address.sixtofour
    return address in _UNICAST and address.is_global and (inner is None or inner.is_global)


def checked_tools(tools: Any) -> list[dict[str, Any]]:
    """Return the functions that a model may call, with their known fields only.

    Raises:
        RefusalError: 400; a tool is not a function: other types (``mcp``, ``web_search``) run on
            the model's server, on the relay's account.
    """
    if not isinstance(tools, list):
        raise _refuse("tools", "must be a list")
    found = []
    for number, tool in enumerate(tools):
        where = f"tools[{number}]"
        if not isinstance(tool, dict) or tool.get("type") != "function":
            raise _refuse(where, "only tools of type function are allowed")
        function = tool.get("function")
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise _refuse(f"{where}.function", "must be an object with a name")
        kept = {name: value for name, value in function.items() if name in _FUNCTION}
        refuse_remote_references(kept.get("parameters"), f"{where}.function.parameters")
        found.append({"type": "function", "function": kept})
    return found


def checked_choice(choice: Any) -> Any:
    """Return a ``tool_choice``.

    Raises:
        RefusalError: 400; it names a tool that is not a function.
    """
    if isinstance(choice, dict) and choice.get("type") not in _CHOICES:
        raise _refuse("tool_choice", "only tools of type function are allowed")
    # Beside each other in one of OpenAI's two APIs, one within the other in the second.
    for place in (choice, choice.get("allowed_tools") if isinstance(choice, dict) else None):
        for tool in place.get("tools") or () if isinstance(place, dict) else ():
            if not isinstance(tool, dict) or tool.get("type") != "function":
                raise _refuse("tool_choice", "only tools of type function are allowed")
    return choice


def check_calls(calls: Any, where: str) -> None:
    """Check the tool calls of an earlier answer.

    Raises:
        RefusalError: 400; one is not the call of a function.
    """
    for call in calls if isinstance(calls, list) else ():
        # Some servers send no type, and some clients send what they got.
        kind = call.get("type") if isinstance(call, dict) else None
        if kind is not None and kind != "function":
            raise _refuse(where, "only calls of type function are allowed")


def refuse_remote_references(schema: Any, where: str) -> None:
    """Refuse a JSON schema that refers to another document: some servers fetch it.

    Raises:
        RefusalError: 400.
    """
    for name, value in _named(schema):
        if name in {"$ref", "$dynamicRef", "$recursiveRef"} and isinstance(value, str):
            if not value.startswith("#"):
                raise _refuse(where, "references to other documents are not allowed")
        # These only name a schema, with a URL as a rule; a path on the server's disk is no such
        # name.
        elif name in {"$schema", "$id"} and isinstance(value, str) and value[:5].lower() == "file:":
            raise _refuse(where, "references to files are not allowed")


def _named(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield every name and value in objects; the reader of the body has bounded their depth."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield str(name), inner
            yield from _named(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _named(inner)
