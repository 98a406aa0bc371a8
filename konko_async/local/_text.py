"""From a README to plain prose: small models copy whatever noise they are shown."""

import re

_MAX_INPUT = 20_000  # characters looked at: the opening says what a document is

_TARGET = r"(?:\([^()\n]*\)|\[[^\[\]\n]*\])"
_IMAGE = re.compile(rf"!\[[^\[\]\n]*\]{_TARGET}")
_EMPTY_LINK = re.compile(rf"\[\s*\]{_TARGET}")
_LINKS = (  # each keeps its text as group 1
    re.compile(rf"\[([^\[\]\n]*)\]{_TARGET}"),
    re.compile(r"<a\b[^<>]*>([^<>]*)</a>", re.IGNORECASE),
    re.compile(r"`([^`<>\n]+?)\s*<[^<>`\n]*>`__?"),
)
_WRAPPED_LINK = re.compile(rf"\[([^\[\]]{{0,200}})\]{_TARGET}")  # its text spans lines
_BLOCKS = (
    re.compile(r"<!--.*?-->", re.DOTALL),
    re.compile(r"^(```|~~~).*?^\1[^\n]*$", re.DOTALL | re.MULTILINE),  # fenced code
    re.compile(r"^\.\. [^\n]*(?:\n[ \t]+[^\n]*)*", re.MULTILINE),  # reStructuredText directives
    re.compile(r"<(style|script)\b.*?</\1>", re.DOTALL | re.IGNORECASE),
)
# A literal block of reStructuredText: what is indented after a double colon.
_LITERAL = re.compile(r"::[ \t]*\n[ \t]*\n(?:[ \t]+\S[^\n]*\n|[ \t]*\n)+")
_LINE_NOISE = re.compile(
    r"^(?:[ \t]*(?:>>>|\.\.\.|\$)[ \t].*"  # an interactive session
    r"|[ \t]*:[\w-]+:.*"  # a field list
    r"|\[[^\[\]\n]+\]:.*"  # a link target
    r"|[ \t]*\|.*)$",  # a table
    re.MULTILINE,
)
_MARKS = (
    re.compile(r"</?[a-zA-Z][^<>]*>"),  # what is left of HTML
    re.compile(r"<?https?://[^\s>)]+>?"),
    re.compile(r"\|[\w .-]+\|_?"),  # a substitution
    re.compile(r":[a-z:]+:(?=`)"),  # a role
    re.compile(r"\[!\w+\]"),  # an admonition
    re.compile(r"^>\s", re.MULTILINE),
    re.compile(r"(?<=`)__?(?=\W|$)"),  # the end of a reference
    re.compile(r"[*`#]+|_{2,}|={3,}|-{3,}|~{3,}|(?<=\w)_(?=[\s.,;:)]|$)|(?<=\s)_(?=\w)"),
)


def condense(text: str, max_chars: int) -> str:
    """Return the opening of ``text`` as one line of prose.

    Markup, badges, tables, links and code are left out. The cut is made after a sentence if
    one ends in the second half, else after a word.

    Args:
        text: Plain text, Markdown, reStructuredText or HTML.
        max_chars: Longest result, in characters.

    Returns:
        At most ``max_chars`` characters without a line break; empty if nothing is left.
    """
    text = text[:_MAX_INPUT].replace("\r\n", "\n")
    for pattern in _BLOCKS:
        text = pattern.sub("", text)
    text = _LINE_NOISE.sub("", _LITERAL.sub(":\n", text))
    text = _EMPTY_LINK.sub("", _IMAGE.sub("", text))
    text = "\n".join(map(_unlink, text.split("\n")))
    text = _WRAPPED_LINK.sub(r"\1", text)
    for pattern in _MARKS:
        text = pattern.sub("", text)
    return _cut(" ".join(text.split()), max_chars)


def _unlink(line: str) -> str:
    """Replace links by their text; a line of nothing but links is navigation, and goes."""
    bare = line
    for pattern in _LINKS:
        bare = pattern.sub("", bare)
    if bare != line and not re.search(r"\w", re.sub(r"<[^<>]*>", "", bare)):
        return ""
    for pattern in _LINKS:
        line = pattern.sub(r"\1", line)
    return line


def _cut(text: str, limit: int) -> str:
    if len(text) <= limit:
        return text
    head = text[:limit]
    sentence = max(head.rfind(mark) for mark in (". ", "! ", "? "))
    if sentence >= limit // 2:
        return head[: sentence + 1]
    word = head.rfind(" ")
    return head[:word] if word > 0 else head
