"""How an answer that was cut is continued: what servers understand, and how texts are joined.

The next request has what had arrived as the beginning of the answer ("prefill"). There is
no standard for that; the table below is what servers' documentation says:

- vLLM and SGLang: ``continue_final_message``, with ``add_generation_prompt: false``
  (https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html). The chat template strips
  white space from the end of the message.
- llama.cpp: a last message of the assistant is continued (llama.cpp pull request 13174).
- Mistral: ``prefix: true`` on a last message of the assistant; the answer repeats it.
- DeepSeek: ``prefix: true``, at the base URL that ends with ``/beta``.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from konko_async.errors import ConfigurationError
from konko_async.wire import Usage

__all__ = ["DIALECTS", "PrefillDialect", "Splice", "dialect_named", "dialect_of", "usage_of_all"]

_HIGH: Final = range(0xD800, 0xDC00)
_ASTRAL: Final = 0x10000


class PrefillDialect(msgspec.Struct, frozen=True, kw_only=True):
    """How one server continues an answer.

    Attributes:
        name: by which ``resume=`` knows it.
        hosts: of the service, if it is one.
        owners: what its model list says in ``owned_by``; none of a service, as lists of others name
            the makers of models there.
        message: further fields of the last message.
        body: further fields of the request.
        path: what the base URL has to end with.
        strips: whether white space at the end of the message is lost.
        echoes: whether the answer begins with the message.
    """

    name: str
    hosts: tuple[str, ...] = ()
    owners: tuple[str, ...] = ()
    message: Mapping[str, Any] = {}
    body: Mapping[str, Any] = {}
    path: str = ""
    strips: bool = False
    echoes: bool = False


_FINAL: Final = {"continue_final_message": True, "add_generation_prompt": False}
DIALECTS: Final = (
    PrefillDialect(name="vllm", owners=("vllm",), body=_FINAL, strips=True),
    PrefillDialect(name="sglang", owners=("sglang",), body=_FINAL, strips=True),
    PrefillDialect(name="llama.cpp", owners=("llamacpp",)),
    PrefillDialect(
        name="mistral", hosts=("api.mistral.ai", "codestral.mistral.ai"),
        message={"prefix": True}, echoes=True,
    ),
    PrefillDialect(
        name="deepseek", hosts=("api.deepseek.com",),
        message={"prefix": True}, path="/beta",
    ),
)  # fmt: skip


def dialect_named(name: str) -> PrefillDialect | None:
    """Return the dialect that ``resume=`` names; None for ``"prefill"``, which looks for it.

    Raises:
        ConfigurationError: there is none.
    """
    if name == "prefill":
        return None
    for dialect in DIALECTS:
        if dialect.name == name:
            return dialect
    known = ", ".join(repr(dialect.name) for dialect in DIALECTS)
    raise ConfigurationError(f"resume must be 'prefill' or one of {known}, not {name!r:.40}")


def dialect_of(base_url: str, owners: Iterable[str | None] | None) -> PrefillDialect | None:
    """Return how a server continues answers, as far as that is known.

    Args:
        base_url: where it is.
        owners: what its models say in ``owned_by``; None: not asked for yet.

    Returns:
        The dialect; None: it cannot be told by the host alone.

    Raises:
        ConfigurationError: the server is known, and this address does not continue answers; or its
            models are known, and it is none of the table.
    """
    url = urlsplit(base_url)
    found = next((one for one in DIALECTS if url.hostname in one.hosts), None)
    if found is None and owners is None:
        return None
    if found is None:
        names = {owner.lower() for owner in owners or () if owner}
        found = next((one for one in DIALECTS if not names.isdisjoint(one.owners)), None)
    if found is None:
        known = ", ".join(repr(dialect.name) for dialect in DIALECTS)
        raise ConfigurationError(
            f"it is not known how {url.netloc} continues an answer, so that streams cannot be "
            f"resumed there; if it is one of these, say so: resume= one of {known}"
        )
    if found.hosts and found.path and not url.path.rstrip("/").endswith(found.path):
        raise ConfigurationError(
            f"{url.netloc} continues answers only under base_url='https://{url.netloc}{found.path}'"
        )
    return found


class Splice:
    """Joins an answer with its continuation: no character twice, none missing.

    Args:
        shown: what has been handed on.
        dialect: how it is continued; None: the whole answer is requested again.

    Attributes:
        sent: what the server gets as the beginning of its answer.
        strayed: whether an answer that was asked for again is another one.
    """

    __slots__ = ("_again", "_echo", "_held", "_skip", "sent", "strayed")

    def __init__(self, shown: str, dialect: PrefillDialect | None) -> None:
        sent = shown
        if sent and ord(sent[-1]) in _HIGH:
            sent = sent[:-1]  # half of a character beyond the BMP: UTF-8 cannot carry it
        if dialect is not None and dialect.strips:
            sent = sent.rstrip()
        self.sent = sent
        self._skip = shown[len(sent) :]
        self._echo = shown if dialect is None else sent if dialect.echoes else ""
        self._held = ""
        self._again = dialect is None
        self.strayed = False

    def feed(self, text: str) -> str:
        """Return what of a piece of the continuation is new."""
        if not self._echo and not self._skip:
            return text
        text, self._held = self._held + text, ""
        if self._echo:
            if not text.startswith(self._echo):
                if self._echo.startswith(text):
                    self._held = text
                    return ""
                self._echo = ""  # it does not repeat what it was given
                self.strayed = self._again
            else:
                text, self._echo = text[len(self._echo) :], ""
        return self._past_tail(text)

    def _past_tail(self, text: str) -> str:
        """Leave out what was shown and not sent, as far as it comes again."""
        skip, at = self._skip, 0
        while at < len(text) and at < len(skip) and text[at] == skip[at]:
            at += 1
        rest = text[at:]
        self._skip = skip[at:] if not rest else ""
        if rest and len(skip) - at == 1 and ord(skip[at]) in _HIGH and ord(rest[0]) >= _ASTRAL:
            high, low = divmod(ord(rest[0]) - _ASTRAL, 0x400)
            if 0xD800 + high == ord(skip[at]):
                rest = chr(0xDC00 + low) + rest[1:]
        return rest

    def flush(self) -> str:
        """Return what was held back at the end: it was no repetition after all.

        Of an answer that was asked for again, nothing: it ended before what was shown does.
        """
        held, self._held = self._held, ""
        if self._again:
            self.strayed |= bool(held)
            return ""
        return held


def usage_of_all(usages: Iterable[Usage]) -> Usage | None:
    """Return what several calls used together; None: none of them reported anything."""
    found = list(usages)
    if not found:
        return None
    if len(found) == 1:
        return found[0]
    return Usage(
        prompt_tokens=sum(usage.prompt_tokens for usage in found),
        completion_tokens=sum(usage.completion_tokens for usage in found),
        total_tokens=sum(usage.total for usage in found),
    )
