"""What is lost of texts in legacy encodings, undeclared and declared, and of mail.

    python -m benchmarks.bench_encodings [--samples 10] [--sizes 40,80,300,3000]

The texts are the messages of the translated programs of this machine (``/usr/share/locale``), in 42
languages and the encodings in which each was written before UTF-8. The reference is Python's own
codec, and for mail Python's `email`. Missed is the share of words, counted with repetitions.
A sample begins with a line that is not ASCII; a size is of bytes, at least, in whole lines.
"""

from __future__ import annotations

import argparse
import collections
import email
import email.policy
import gettext
import random
import re
import time
import unicodedata
from collections.abc import Iterator
from email.message import EmailMessage, Message
from importlib.resources import files
from pathlib import Path

from konko_async.documents import Document
from konko_async.documents._read_bytes import documents_of

from .bench_documents import words

WESTERN = ("cp1252", "iso8859_15", "mac_roman", "cp850")
CENTRAL = ("cp1250", "iso8859_2", "cp852")
BALTIC = ("cp1257", "iso8859_13", "iso8859_4")
CYRILLIC = ("cp1251", "koi8_r", "iso8859_5", "cp866", "mac_cyrillic")
SLAVIC = ("cp1251", "iso8859_5")
WIDE = ("utf_16_le", "utf_16_be")
NATIVE: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(["de", "fr", "es", "it", "pt", "pt_BR", "nl", "sv", "da", "nb"], WESTERN),
    **dict.fromkeys(["fi", "is", "ca", "gl", "eu", "ga"], WESTERN),
    **dict.fromkeys(["pl", "cs", "hu", "sk", "sl", "hr", "ro"], CENTRAL),
    **dict.fromkeys(["lt", "lv", "et"], BALTIC),
    **dict.fromkeys(["ru", "bg"], CYRILLIC),
    **dict.fromkeys(["sr", "be", "mk"], SLAVIC),
    "uk": ("cp1251", "koi8_u", "iso8859_5"), "el": ("cp1253", "iso8859_7"), "tr": ("cp1254",),
    "he": ("cp1255", "iso8859_8"), "ar": ("cp1256", "iso8859_6"), "fa": ("cp1256",),
    "th": ("cp874",), "vi": ("cp1258",), "kk": ("ptcp154",), "tg": ("koi8_t",),
    "ja": ("cp932", "euc_jp", "iso2022_jp", *WIDE),
    "zh_CN": ("gb18030", "gb2312", "hz", *WIDE),
    "zh_TW": ("big5", "big5hkscs", "utf_16_le"),
    "ko": ("cp949", "euc_kr", "iso2022_kr", "johab", "utf_16_le"),
}  # fmt: skip
RARE = {"mac_roman", "cp850", "cp852", "cp866", "mac_cyrillic", "ptcp154", "koi8_t", "johab"}
ESCAPED = ("iso2022_jp", "iso2022_kr", "hz")
FORMATTING = re.compile(r"<[^>]*>|%[-\d$.*]*\w|\{[^}]*\}|&\w+;")
CEDILLAS = str.maketrans("șțȘȚ", "şţŞŢ")  # what Romanian is in encodings older than its letters


def messages(language: str) -> list[str]:
    """Return the translated messages of a language, without tags and placeholders."""
    found: dict[str, None] = {}
    folder = Path("/usr/share/locale") / language / "LC_MESSAGES"
    for path in sorted(folder.glob("*.mo")):
        if not path.name.startswith("iso"):
            try:
                with path.open("rb") as file:
                    catalog = gettext.GNUTranslations(file)
            except (OSError, UnicodeDecodeError):  # a few are damaged
                continue
            for original, text in catalog._catalog.items():  # type: ignore[attr-defined]
                if original and isinstance(text, str) and len(text) > 20 and text != original:
                    found[" ".join(FORMATTING.sub(" ", text).split())] = None
    return list(found)


def encoded(text: str, codec: str) -> bytes | None:
    """Return a text in an encoding, None if it has other characters."""
    for form in (text, text.translate(CEDILLAS), unicodedata.normalize("NFD", text)):
        try:
            return form.encode(codec)
        except UnicodeEncodeError:
            continue
    return None


def samples(lines: list[str], codec: str, size: int, number: int) -> Iterator[bytes]:
    """Yield texts of whole lines that begin at random."""
    drawn = random.Random(f"{codec}{size}")
    for _ in range(number):
        start, parts, length = drawn.randrange(len(lines)), [], 0
        for line in [*lines[start:], *lines[:start]]:
            data = encoded(line, codec)
            if data is not None and (parts or codec in ESCAPED or not data.isascii()):
                parts.append(data)
                length += len(data)
            if length >= size:
                break
        if parts:
            yield "\n".encode(codec.replace("utf_16", "utf-16")).join(parts)


def read(data: bytes, kind: str) -> collections.Counter[str]:
    """Count the words that we find."""
    text = ""
    for found in documents_of(data, "it", kind):
        if isinstance(found, Document):
            text += f"{found.title or ''}\n{found.text}\n"
    return words(text)


def page(data: bytes, codec: str) -> bytes:
    head = f'<html><head><meta charset="{codec}"></head><body><p>'.encode(codec)
    return head + data + "</p></body></html>".encode(codec)


def mail(text: str, codec: str, drawn: random.Random, *, declared: bool) -> bytes:
    """Return a message: a subject, a body of one or two forms, in one of the transfer encodings."""
    # With labels as mail programs write them; `email` knows Python's names for few of them.
    label = {"cp932": "shift_jis", "cp949": "ks_c_5601-1987"}.get(codec, codec)
    label = re.sub(r"^cp(125\d)$", r"windows-\1", label).replace("iso8859_", "iso-8859-")
    message = EmailMessage()
    lines = text.split("\n")
    message["Subject"] = lines[0][:60]
    message["From"] = "A <a@example.com>"
    body, way = text.encode(codec), drawn.choice(("base64", "quoted-printable", "8bit"))
    for kind in ("plain", "html")[: drawn.randint(1, 2)]:
        part = page(body, codec) if kind == "html" else body
        if kind == "plain":
            message.set_content(part, "text", kind, cte=way)
        else:
            message.add_alternative(part, "text", kind, cte=way)
    if declared:
        for part in message.walk():
            if part.get_content_maintype() == "text":
                part.set_param("charset", label)
    return message.as_bytes(policy=email.policy.SMTP.clone(max_line_length=None))


class Table:
    """Words missed, and words, by rows."""

    def __init__(self) -> None:
        self.counts: dict[tuple[str, ...], list[int]] = collections.defaultdict(lambda: [0, 0])

    def add(self, key: tuple[str, ...], wanted: collections.Counter[str],
            found: collections.Counter[str]) -> None:  # fmt: skip
        counts = self.counts[key]
        counts[0] += (wanted - found).total()
        counts[1] += wanted.total()

    def show(self, title: str) -> None:
        print(f"\n{title}")
        for key, (missed, total) in sorted(self.counts.items()):
            print(f"  {' '.join(key):34} {missed / max(total, 1):8.2%} of {total} words")


def undeclared(texts: dict[str, list[str]], sizes: list[int], number: int) -> None:
    table, worst = Table(), Table()
    began, size_read = time.process_time(), 0
    for language, lines in texts.items():
        for codec in NATIVE[language]:
            kind = "DOS, Macintosh, other" if codec in RARE else "of the web"
            kind = "western" if codec in {"cp1252", "iso8859_15"} else kind
            kind = "escapes, UTF-16" if codec in (*ESCAPED, *WIDE) else kind
            for size in sizes:
                for data in samples(lines, codec, size, number):
                    wanted, found = words(data.decode(codec)), read(data, "text")
                    table.add((f"{size:5}", kind), wanted, found)
                    table.add((f"{size:5}", "all"), wanted, found)
                    worst.add((language, codec), wanted, found)
                    size_read += len(data)
    table.show(f"plain text without a declaration ({size_read / 1e6:.1f} MB)")
    shares = sorted(((m / t, k) for k, (m, t) in worst.counts.items()), reverse=True)
    print("  worst:", ", ".join(f"{' '.join(key)} {share:.1%}" for share, key in shares[:6]))
    print(f"  {time.process_time() - began:.1f} s of CPU, counting included")


def declared(texts: dict[str, list[str]], number: int) -> None:
    table = Table()
    for language, lines in texts.items():
        for codec in NATIVE[language]:
            if codec not in WIDE:
                for data in samples(lines, codec, 300, number):
                    table.add(
                        ("pages",), words(data.decode(codec)), read(page(data, codec), "html")
                    )
    table.show("pages that declare their encoding")


def generated_mail(texts: dict[str, list[str]], number: int) -> None:
    table, drawn = Table(), random.Random(1)
    for language, lines in texts.items():
        for codec in NATIVE[language]:
            for data in samples(lines, codec, 300, number):
                for known in (True, False):
                    if codec not in WIDE and (known or codec not in RARE):
                        text = data.decode(codec)
                        message = mail(text, codec, drawn, declared=known)
                        key = ("with a charset" if known else "without",)
                        table.add(key, words(text), read(message, "email"))
    table.show("mail that was made here, in three transfer encodings, with or without HTML")


def seen(message: Message) -> str:
    """Return what Python's `email` finds of a message: subject, addresses and plain text."""
    texts = [str(message.get(name, "")) for name in ("Subject", "From", "To")]
    for part in message.walk():
        if part.get_content_type() == "text/plain":
            data = part.get_payload(decode=True)
            charset = part.get_content_charset("ascii")
            if isinstance(data, bytes):
                try:
                    texts.append(data.decode(charset, "replace"))
                except LookupError:
                    texts.append(data.decode("ascii", "replace"))
    return "\n".join(texts)


def tested_mail() -> None:
    """Read the messages with which Python's `email` is tested."""
    table, failed = Table(), 0
    try:
        folder = files("test.test_email") / "data"
    except ModuleNotFoundError:
        print("\nPython's own tests are not installed: their mail is not measured")
        return
    for entry in folder.iterdir():
        if entry.name.endswith(".txt"):
            data = entry.read_bytes()
            try:
                wanted = words(seen(email.message_from_bytes(data, policy=email.policy.default)))
            except Exception:  # noqa: BLE001 - the reference itself fails at two of them
                failed += 1
                continue
            table.add(("messages",), wanted, read(data, "email"))
    table.show(f"mail of Python's own tests ({failed} that `email` itself cannot read)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--samples", type=int, default=10)
    parser.add_argument("--sizes", default="40,80,300,3000,100000")
    given = parser.parse_args()
    texts = {language: lines for language in NATIVE if (lines := messages(language))}
    print(
        f"{len(texts)} languages, {sum(len(NATIVE[each]) for each in texts)} pairs with encodings"
    )
    undeclared(texts, [int(size) for size in given.sizes.split(",")], given.samples)
    declared(texts, given.samples)
    generated_mail(texts, given.samples)
    tested_mail()


if __name__ == "__main__":
    main()
