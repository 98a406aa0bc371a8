"""Masks secrets in what servers send back, before it reaches messages, records or tracebacks.

Some servers repeat the key that they refuse: in an error's text, a header, a redirect, half of a
broken body. What a client knows to be secret is replaced in decoded text, never in bytes before
they are parsed: a key such as "null" or "1" would take the meaning out of the JSON around it.
Nor are such dummy keys masked in text, where they are words that belong to the message.
"""

from __future__ import annotations

import base64
import functools
import re
import weakref
from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit, urlunsplit

from konko_async.errors import KonkoError

__all__ = [
    "CREDENTIALS",
    "CROSSING_HEADERS",
    "CROSSING_QUERY",
    "NOTHING_SECRET",
    "REDACTED",
    "Redactor",
    "SecretsInUse",
    "looks_secret",
    "secrets_in",
    "shown_url",
]

REDACTED: Final = "<redacted>"
E = TypeVar("E", bound=KonkoError)

CREDENTIALS: Final = frozenset(
    {
        "api-key", "authorization", "cookie", "proxy-authorization", "x-api-key",
        "x-openai-api-key",
    }
)  # fmt: skip
"""Headers in which the known services take keys."""

CROSSING_HEADERS: Final = frozenset(
    {
        "accept", "accept-language", "content-language", "content-type", "http-referer",
        "idempotency-key", "referer", "traceparent", "tracestate", "user-agent",
        "x-client-request-id", "x-correlation-id", "x-request-id", "x-title",
    }
)  # fmt: skip
"""Headers of a call that another server may see; whatever is not listed may be a credential."""

CROSSING_QUERY: Final = frozenset({"api-version"})
"""Query parameters of a call that another server may see."""

# Headers that are not secrets, although their values may look like it. Servers name the
# organization in messages about its limits, and the id of a request is what support asks for.
_PLAIN_HEADERS: Final = CROSSING_HEADERS | {
    "accept-encoding", "anthropic-beta", "anthropic-version", "cache-control", "connection",
    "content-encoding", "content-length", "expect", "host", "openai-beta", "openai-organization",
    "openai-project", "origin", "transfer-encoding",
}  # fmt: skip

# How keys of well-known services begin.
_PREFIX: Final = re.compile(
    r"(?:sk|pk|rk|gsk|hf|xai|pplx|nvapi|r8|fw|csk|key|ghp|gho|glpat|xox[abp])[-_]|AIza|ya29\.|eyJ"
)
_MIN_LENGTH: Final = 8  # of what is masked without such a beginning
_MIN_DISTINCT: Final = 6  # different characters in it: "xxxxxxxxxxx1" is a dummy
_LONG: Final = 16  # from here on it need not mix kinds of characters
_LONG_WORDS: Final = 24  # nor be other than words such as "sk-no-key-required", from here on
_MIN_AFTER_PREFIX: Final = 3
# From here on no word of a message can be meant, and a key is masked within longer words as well.
_UNMISTAKABLE: Final = 20
# A text that is cut to its longest length may end within a key: so much of it is masked as well.
_MIN_PART: Final = 12
_SPLIT: Final = re.compile(r"[\s;,]+")
_MAX_DEPTH: Final = 100  # of JSON; Python's own limit is 1000 frames
_ESCAPE_BEFORE: Final = re.compile(
    r"(?:%[0-9A-Fa-f]{2}|\\[bfnrt]|\\u[0-9A-Fa-f]{4}|\\x[0-9A-Fa-f]{2})\Z"
)


def looks_secret(value: str) -> bool:
    """Whether a value is long and random enough to be a secret, rather than a dummy or a word.

    Local servers need no key, so people pass "null", "1", "none", "token" or "ollama".
    """
    prefix = _PREFIX.match(value)
    rest = value if prefix is None else value[prefix.end() :]
    lower, upper, digit = (any(map(t, rest)) for t in (str.islower, str.isupper, str.isdigit))
    if prefix is not None and len(rest) >= _MIN_AFTER_PREFIX and (upper or digit):
        return True
    if len(value) < _MIN_LENGTH or len(set(value)) < _MIN_DISTINCT:
        return False
    if lower + upper + digit > 1:
        return True
    return len(value) >= (_LONG_WORDS if lower and not value.isalnum() else _LONG)


def secrets_in(values: Mapping[str, Any]) -> list[str]:
    """Return what looks secret in headers or query parameters.

    Args:
        values: by name; a value may hold several parts, such as ``Bearer KEY`` or cookies.
    """
    found = []
    for name, value in values.items():
        if name.lower() in _PLAIN_HEADERS or not isinstance(value, str):
            continue
        for part in (*_SPLIT.split(value), *_basic_password(value)):
            key, equals, after = part.partition("=")
            # "session=KEY" in a cookie; but base64 ends with "=", too.
            found += [
                text for text in (part, after if equals and key else "") if looks_secret(text)
            ]
    return found


def _basic_password(value: str) -> list[str]:
    """Return the password in a value of HTTP's basic scheme (RFC 7617), if it is one."""
    scheme, _, encoded = value.partition(" ")
    if scheme.lower() != "basic":
        return []
    try:
        text = base64.b64decode(encoded, validate=True).decode()
    except ValueError:  # neither base64 nor UTF-8: the value as a whole is masked anyway
        return []
    return [text.partition(":")[2]]


def shown_url(url: str) -> str:
    """Return a base URL as records may show it: without a user, a query, or a key in its path.

    Some gateways take keys as a part of the path. Only what begins as known keys do is masked
    there: ids of accounts and deployments look as random, and tell one server from another.
    """
    parts = urlsplit(url)
    path = "/".join(
        REDACTED if _PREFIX.match(part) and looks_secret(part) else part
        for part in parts.path.split("/")
    )
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], path, "", ""))


class Redactor:
    """Masks the secrets that it was given; shows none of them itself.

    Args:
        secrets: texts; those that do not look secret are left out.
    """

    __slots__ = ("_patterns", "_secrets", "_starts")

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        # The longest first: one may be part of another.
        self._secrets = tuple(
            sorted({str(s) for s in secrets if looks_secret(s)}, key=len, reverse=True)
        )
        # Made when something is to be masked.
        self._patterns: tuple[_Pattern, ...] = ()
        self._starts: re.Pattern[str] | None = None

    def plus(self, secrets: Iterable[str]) -> Redactor:
        """Return one that masks these as well."""
        more = [secret for secret in secrets if looks_secret(secret)]
        return Redactor((*self._secrets, *more)) if more else self

    def text(self, text: str) -> str:
        """Return a text with the secrets masked, also where they are escaped or cut at the end."""
        if not self._secrets:
            return text
        if "\0" in text:  # UTF-16 that was read as something else
            bare = text.replace("\0", "")
            shown = self._masked(bare)
            return text if shown == bare else shown
        return self._masked(text)

    def _masked(self, text: str) -> str:
        if self._starts is None:
            self._starts = re.compile("|".join(re.escape(_start(s)) for s in self._secrets))
        if not _may_hold(text, self._starts):
            return text  # nearly always
        if not self._patterns:
            self._patterns = tuple(map(_Pattern, self._secrets))
        for pattern in self._patterns:
            text = pattern.mask(text)
        return text

    def value(self, value: Any, depth: int = 0) -> Any:
        """Return decoded JSON (or bytes, or headers) with the secrets masked in all its texts."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, bytes):
            # surrogateescape brings back what is not UTF-8 as it was.
            text = self.text(value.decode("utf-8", "surrogateescape"))
            return text.encode("utf-8", "surrogateescape")
        if type(value) not in {dict, list, tuple} or not self._secrets:
            return value
        if depth > _MAX_DEPTH:
            return REDACTED
        if type(value) is dict:
            return {self.value(k): self.value(v, depth + 1) for k, v in value.items()}
        return type(value)([self.value(item, depth + 1) for item in value])

    def headers(self, headers: Mapping[str, str]) -> Mapping[str, str]:
        """Return an answer's headers with the secrets masked; of the kind that they are."""
        fields = [(name, self.text(value)) for name, value in headers.items()]
        if fields == list(headers.items()):
            return headers
        shown: Any = headers.copy()  # type: ignore[attr-defined]  # case-insensitive, or a dict
        shown.clear()
        getattr(shown, "extend", shown.update)(fields)  # a name may be there several times
        return shown  # type: ignore[no-any-return]  # a mapping like the one given

    def error(self, error: E) -> E:
        """Mask everything that an error shows: message, body, headers, codes, ids and notes.

        Answers (``partial``, ``completion``) are left as they are, and ``attempts``, whose texts
        are those of errors that were masked before.

        Returns:
            The same error, without the traceback of the frames that have seen the raw text.
        """
        if self._secrets:
            for name, value in vars(error).items():
                if name not in {"attempts", "partial", "completion"}:
                    error.__dict__[name] = self.value(value)
            error.args = tuple(map(self.value, error.args))
        # What it was raised from has seen the raw text as well.
        error.__cause__ = error.__context__ = None
        return error.with_traceback(None)

    def __repr__(self) -> str:
        return f"<Redactor of {len(self._secrets)} secrets>"


NOTHING_SECRET: Final = Redactor()


class SecretsInUse:
    """What all parts of a client know to be secret, as one :class:`Redactor`.

    A client may have several keys: of endpoints, of fallbacks, one after another from a function.
    A gateway in front of several servers can repeat in an answer to one what it got with another.

    Attributes:
        redactor: masks the secrets of everybody who is still there.
    """

    __slots__ = ("_of", "redactor")

    def __init__(self) -> None:
        self._of: weakref.WeakKeyDictionary[object, tuple[str, ...]] = weakref.WeakKeyDictionary()
        self.redactor = NOTHING_SECRET

    def put(self, owner: object, secrets: Iterable[str]) -> None:
        """Mask these from now on, in place of those that the owner gave before."""
        self._of[owner] = tuple(secrets)
        self.redactor = Redactor(secret for given in self._of.values() for secret in given)


def _start(secret: str) -> str:
    """Return so much of a secret as is masked where the rest has been cut off."""
    return secret[: max(_MIN_PART, (len(secret) + 1) // 2)]


def _may_hold(text: str, starts: re.Pattern[str]) -> bool:
    escaped = "\\" in text or "%" in text or "&" in text
    return escaped or starts.search(text) is not None


class _Pattern:
    """Finds one secret in texts."""

    __slots__ = ("_beginning", "_least", "_pieces", "_whole_words")

    def __init__(self, secret: str) -> None:
        self._whole_words = len(secret) < _UNMISTAKABLE
        self._pieces = [_spellings(character) for character in secret]
        self._least = len(_start(secret))
        beginning = self._pieces[: self._least]
        self._beginning = re.compile("".join(piece.pattern for piece in beginning))

    def mask(self, text: str) -> str:
        parts, at = [], 0
        for found in self._beginning.finditer(text):
            end = self._end(text, found.start(), found.end())
            if end is not None and found.start() >= at:
                parts += [text[at : found.start()], REDACTED]
                at = end
        return "".join((*parts, text[at:])) if parts else text

    def _end(self, text: str, start: int, end: int) -> int | None:
        """Return where the secret ends, of which the beginning was found; None: it is another."""
        before = text[max(0, start - 6) : start]
        if self._whole_words and before[-1:].isalnum() and _ESCAPE_BEFORE.search(before) is None:
            return None
        whole = True
        for piece in self._pieces[self._least :]:
            more = piece.match(text, end)
            if more is None:
                whole = False
                break
            end = more.end()
        goes_on = text[end : end + 1].isalnum()
        return None if goes_on and (self._whole_words or not whole) else end


# What html.escape() makes; importing html takes a millisecond, for the names of all entities.
_HTML: Final = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#x27;"}


@functools.lru_cache(maxsize=256)
def _spellings(character: str) -> re.Pattern[str]:
    """Match a character as it is or as JSON, URLs and HTML escape it, also twice."""
    code = f"{ord(character):02x}"
    either = "".join(f"[{digit}{digit.upper()}]" if digit.isalpha() else digit for digit in code)
    spelt = [
        rf"\\+u00{either}",
        rf"\\+x{either}",
        rf"%(?:25)*{either}",
        rf"&#[xX]0*{either};",
        rf"&#0*{ord(character)};",
    ]
    if (escaped := _HTML.get(character)) is not None:
        spelt.append(escaped)
    if not character.isalnum():
        spelt.append(r"\\+" + re.escape(character))
    spelt.append(re.escape(character))  # last, as "&" and "\\" begin the others
    return re.compile(f"(?:{'|'.join(spelt)})")
