"""Reads mail (RFC 5322, MIME) by Python's `email`: what a person sees, and what is left out."""

from __future__ import annotations

import re
from collections.abc import Iterator
from email import errors, message_from_bytes, policy
from email.header import decode_header
from email.message import Message
from typing import Final

from konko_async.documents._document import DocumentError
from konko_async.documents._text import decode, tidy

__all__ = ["mail_text", "mailbox"]

_SHOWN: Final = ("From", "To", "Cc", "Date")
# An HTML message's stand-in ("Please use a modern client") is not the message.
_LEAST_KEPT: Final = 0.3
# Signatures: of these, no person misses anything, nor of the pictures within a page.
_SILENT: Final = ("application/pgp-", "application/pkcs7-", "application/x-pkcs7-")
_LONGEST_HEADER: Final = 64 * 1024  # decoding takes more than linear time
_BEGINS: Final = re.compile(rb"(?:\A|(?<=\n\n)|(?<=\n\r\n))From [^\n]*\n")
_DATED: Final = re.compile(
    rb"From (?:\S+ +)?(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun),? |From .*\d:\d\d.*\b\d{4}\b"
)
_QUOTED: Final = re.compile(rb"^>(>*From )", re.MULTILINE)
_DEFECTS: Final = (
    errors.StartBoundaryNotFoundDefect,
    errors.CloseBoundaryNotFoundDefect,
    errors.NoBoundaryInMultipartDefect,
    errors.MultipartInvariantViolationDefect,
    errors.InvalidBase64CharactersDefect,
    errors.InvalidBase64LengthDefect,
)


class _Reading:
    """The parts of one message, as they are found."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.texts: list[str] = []
        self.left_out: list[str] = []
        self.replaced = 0
        self.damaged = False

    def add(self, part: Message) -> None:
        """Add a part, and what is within."""
        self.damaged |= any(isinstance(defect, _DEFECTS) for defect in part.defects)
        kind = part.get_content_type()
        if kind == "multipart/alternative" and part.is_multipart():
            self._add_one_of(_parts(part))
        elif kind.startswith("message/") and part.is_multipart():
            # Forwarded messages and delivery reports: their headers are part of what is said.
            for inner in _parts(part):
                self.texts.append(_headers(inner, with_subject=True))
                self.add(inner)
        elif part.is_multipart():
            for inner in _parts(part):
                if kind != "multipart/related" or inner.get_content_maintype() != "image":
                    self.add(inner)
        elif kind.startswith(("text/", "message/", "multipart/")):
            self._add_text(part, kind)
        elif not kind.startswith(_SILENT):
            self.left_out.append(f"{_file_name(part) or 'a part'} ({kind})")

    def _add_one_of(self, parts: list[Message]) -> None:
        """Add the plain form of a text if it says as much as the last, the richest form."""
        forms = []
        for part in parts:
            form = _Reading(self.name)
            form.add(part)
            forms.append((form, part.get_content_type()))
        if not forms:
            return
        longest = max(_letters(form) for form, _ in forms)
        told = [entry for entry in forms if _letters(entry[0]) >= longest * _LEAST_KEPT]
        best = next((form for form, kind in told if kind == "text/plain"), told[-1][0])
        self.texts += best.texts
        self.replaced += best.replaced
        self.damaged |= any(form.damaged for form, _ in forms)
        # Files that hang in one form only, such as an invitation.
        self.left_out += best.left_out

    def _add_text(self, part: Message, kind: str) -> None:
        data = part.get_payload(decode=True)
        self.damaged |= any(isinstance(defect, _DEFECTS) for defect in part.defects)
        if not isinstance(data, bytes) or not data.strip():
            return
        file = _file_name(part)
        if file is not None:
            self.texts.append(f"## {file}")
        try:
            if kind == "text/html":
                from konko_async.documents._html import html_text  # noqa: PLC0415 - an extra

                text, _, decoded = html_text(data, self.name, label=_charset(part))
            else:
                decoded = decode(data, self.name, declared=_charset(part))
                text = decoded.text
        except DocumentError:
            self.left_out.append(f"{file or 'a part'} ({kind}, not text)")
            return
        self.replaced += decoded.replaced
        self.texts.append(tidy(text))


def _letters(form: _Reading) -> int:
    return sum(map(len, form.texts))


def mail_text(data: bytes, name: str) -> tuple[str, str | None, tuple[str, ...]]:
    """Return a message as Markdown, its subject, and warnings.

    The subject is its heading. Of forms of the same text the plain one is taken, unless it says
    much less; texts that are attached are part of the message, other files are named in a warning.

    Raises:
        DocumentError: Python's `email` fails at it.
    """
    reading = _Reading(name)
    try:
        message = message_from_bytes(data, policy=policy.compat32)
        reading.add(message)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        # Of its bugs at hostile input, and of parts within parts a thousand times; it costs this
        # message, and not the mailbox.
        raise DocumentError(
            f"{name} cannot be read as mail: {type(error).__name__}", name=name, code="broken"
        ) from None
    subject = _header(message, "Subject")
    warnings = []
    if reading.left_out:
        warnings.append(f"attachments are not read: {', '.join(reading.left_out)}")
    if reading.damaged:
        warnings.append("the message is damaged or was cut; what could be decoded is read")
    if reading.replaced:
        warnings.append(f"characters that could not be decoded, replaced: {reading.replaced}")
    head = [f"# {subject}" if subject else "", _headers(message, with_subject=False)]
    texts = [*head, *reading.texts] if any(reading.texts) or subject else []
    return "\n\n".join(filter(None, texts)), subject or None, tuple(warnings)


def mailbox(data: bytes) -> Iterator[bytes]:
    """Yield the messages of a mailbox; each begins with a line ``From `` (RFC 4155).

    Such a line stands at the beginning or below an empty line, and has a date: a sentence that
    begins with "From" begins no message. Where no line has one, any such line begins a message.
    """
    every = list(_BEGINS.finditer(data))
    begins = [found for found in every if _DATED.match(found[0])] or every
    starts = [(found.start(), found.end()) for found in begins]
    if not starts or data[: starts[0][0]].strip():
        starts.insert(0, (0, 0))  # what stands before the first of them is a message too
    ends = [start for start, _ in starts[1:]]
    for (_, begin), end in zip(starts, [*ends, len(data)], strict=True):
        yield _QUOTED.sub(rb"\1", data[begin:end])


def _parts(part: Message) -> list[Message]:
    payload = part.get_payload()
    return (
        [each for each in payload if isinstance(each, Message)] if isinstance(payload, list) else []
    )


def _charset(part: Message) -> str | None:
    label = part.get_param("charset")
    if isinstance(label, tuple):  # RFC 2231
        label = label[2]
    # Bytes beyond ASCII in what calls itself ASCII: the label says nothing.
    return None if not label or label.lower() in {"us-ascii", "ascii", "unknown-8bit"} else label


def _file_name(part: Message) -> str | None:
    try:
        name = part.get_filename()
    except (ValueError, LookupError):  # of a damaged header
        return None
    return _decoded(name) if name else None


def _headers(message: Message, *, with_subject: bool) -> str:
    names = ("Subject", *_SHOWN) if with_subject else _SHOWN
    found = [(name, _header(message, name)) for name in names]
    return "\n".join(f"{name}: {value}" for name, value in found if value)


def _header(message: Message, name: str) -> str:
    # Bytes that are not ASCII come as surrogates in a string, or in a `Header` of compat32.
    value = next((value for key, value in message._headers if key.lower() == name.lower()), "")  # type: ignore[attr-defined]  # noqa: SLF001 - the raw value; `get` replaces its bytes by "?"
    return _decoded(str(value))


def _decoded(value: str) -> str:
    """Return a header without its encoded words (RFC 2047); raw bytes are decoded by a guess."""
    pieces: list[tuple[bytes, str | None]] = []
    raw = value.encode("utf-8", "surrogateescape")
    if len(raw) > _LONGEST_HEADER:
        raw = raw[:_LONGEST_HEADER] + " …".encode()
    if b"=?" not in raw:
        pieces = [(raw, None)]
    else:
        for piece, charset in decode_header(raw.decode("latin-1")):
            body = piece.encode("latin-1") if isinstance(piece, str) else piece
            # One character may stand in two words of the same charset.
            if pieces and charset is not None and pieces[-1][1] == charset:
                pieces[-1] = (pieces[-1][0] + body, charset)
            else:
                pieces.append((body, charset))
    return " ".join("".join(_piece(body, charset) for body, charset in pieces).split())


def _piece(body: bytes, charset: str | None) -> str:
    if not body:
        return ""
    try:
        return decode(body, "a header", declared=charset).text
    except DocumentError:
        return body.decode("latin-1")
