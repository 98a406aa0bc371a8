"""Texts, and two renderers of them that can be compared."""

import re
from pathlib import Path
from urllib.parse import unquote

from bs4 import BeautifulSoup
from bs4.element import NavigableString
from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[2]

SAMPLES = [
    "plain",
    "two\nlines\n\nand a paragraph",
    "# One\n## Two ##\n### Three\n#### Four\n##### Five\n###### Six\n####### no",
    "Title\n===\n\nOther\n---\ntext",
    "a\n\n---\n\n***\n___\nb",
    "*em* **strong** ***both*** _em_ __strong__ ~~gone~~ `code` `` a`b ``",
    "snake_case_name and 2*3*4 and * not * and **not closed",
    "*a **b** c* and **a *b* c** and *a **b*c**",
    "\\*not\\* \\# \\` &amp; &lt;b&gt; &#65; &#x42; &copy;x",
    "[text](http://a.example/x?y=1&z=2) [t](<http://a.example/b c>) [t](http://a.example 'title')",
    "[a *b* `c`](http://a.example) ![picture](http://a.example/i.png)",
    "<http://a.example/x> <mailto:me@a.example>",
    "[not a link] [nor](this [x]: y",
    "- a\n- b\n- c",
    "- a\n\n- b\n\n- c",
    "* a\n  * b\n    * c\n* d",
    "1. one\n2. two\n   1. deep\n3. three",
    "7) seven\n8) eight",
    "- a\n  continued\nlazy\n- b\n\n  second paragraph\n\nafter",
    "- a\n- b\n\n\n1. x\n+ y",
    "1. Do:\n   ```sh\n   ls\n   ```\n2. Then",
    "> quote\n> more\nlazy\n\n> other\n> > deep\n> - list\n>   more",
    "```python\ndef f():\n    return 1\n\n\n# end\n```\nafter",
    "~~~\n```\n~~~\n\n````md\n```\n````",
    "```\nnever closed\n\n- x",
    "    indented\n\n    code\nnot",
    "text\n    not code",
    "| a | b |\n|---|:-:|\n| 1 | `x` |\n| **2** | 3 \\| 4 |\n\nafter",
    "a | b\n--|--:\n1 | 2\n3",
    "intro\n\n| a |\n|---|\n| 1 |\n> quote",
    "hard  \nbreak\\\nbreak",
    "a\tb\n\n-\ttab\n\n\tcode",
    "1. a\n1. b\n\n   c\n\n   ```\n   d\n   ```\n\n2. e",
    "- [link](http://a.example)\n- **bold**: text\n- `code`",
    "para\n- list\n- list\n\npara\n1. list",
    "para\n2. not a list",
    "***\n**bold\nover lines**\n*em\nover*",
    "-\n- x\n\n-\n\n  y",
    "# \n#\nx",
    "> ```\n> code\n> ```\n> text\n\nout",
    "> a\n\n> b",
    "* * *\n- - -\n* a\n",
    "Ümlaut *schön* “quoted” *“x”* 日本語**太字**です",
    "a`b\nc`d ``x` y``",
]

DOCUMENTS = [
    path.read_text(encoding="utf-8")
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
]

# Pieces from which random texts are made: what matters, and what is between.
PIECES = [
    "a", "word", "two words", " ", "  ", "\n", "\n\n", "\n    ", "\n  ", "*", "**", "***", "_", "__", "~~", "`", "``", "```", "\n```", "\n```py\n",
    "~~~\n", "[", "](", "](http://x.y)", ")", "![", "<", ">", "<b>", "<br>", "<http://x.y>", "http://x.y/z", "https://x.y/(a)", "&amp;", "&", "\\", "\\*",
    "# ", "\n## ", "\n- ", "\n* ", "\n1. ", "\n2) ", "\n  - ", "\n> ", "> ", "|", "\n|", "\n| a | b |\n|---|---|\n", "\n---\n", "\n===\n", "---", "\n***\n",
    "\t", "\n\t", "é", "日本", "語。", "🙂", "\u00A0", "[ ] ", "[x] ", "\r\n", "\r", ".", ",", "(", '"', "'", "\n- a\n\n  b", "\n\n1. x\n   - y",
    "[^1]", "\n[^1]: ", "[^1](", "\n    ", "$a$", "$$", "\\(x\\)", "'", "# c\n", '"""\n', "/*", "*/", "\n```js\n", "\n```html\n",
]  # fmt: skip

# Those that are read within a paragraph; of the long one, what was opened before is out of reach.
INLINE_PIECES = [
    *(piece for piece in PIECES if "\n\n" not in piece and "```" not in piece and "\r" not in piece),
    " several words ", " and more. ", "x " * 300, "[a](http://a.b 'c d')", "[a *b](http://a.b) c*", "**bold words**", "`code of words`", "<br />",
]  # fmt: skip
PIECES = [*PIECES, "word " * 90, "*em* `c` [l](http://a.b) " * 20]

_reference = MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"])


def expected(text):
    """What the reference implementation makes of a text, in the form of `canonical`."""
    return canonical(_reference.render(text))


def canonical(html):
    """What HTML says: nested lists of tag and contents."""
    soup = BeautifulSoup(html, "lxml")
    return _canonical(soup.body) if soup.body else []


def actual(html):
    """What the page has made of it, in the same form."""
    soup = BeautifulSoup(f"<div id=whole>{html}</div>", "lxml")
    for box in soup.select("div.code"):
        box.replace_with(box.pre)
    for box in soup.select("div.table"):
        box.replace_with(box.table)
    for piece in soup.select("pre code span"):
        piece.unwrap()
    return _canonical(soup.select_one("#whole"))


def _canonical(element):  # noqa: PLR0912 - one branch per element
    """Nested lists of tag and contents; text with its white space made one."""
    found = []
    for child in element.children:
        if isinstance(child, NavigableString):
            found.append(str(child))
            continue
        name = child.name
        if name in {"thead", "tbody"}:
            found += _canonical(child)
            continue
        if name == "p" and element.name == "li":  # tight or loose is the style's business
            found += [" ", *_canonical(child), " "]
            continue
        if name == "img":
            label = child.get("alt", "") or child.get("src", "")
            follows = child.get("src", "").startswith("http")
            found.append([f"a {child['src']}", label] if follows else label)
            continue
        if name == "pre":
            found.append(["pre", child.get_text().rstrip("\n")])
            continue
        if name in {"h1", "h2", "h3", "h4", "h5", "h6"}:
            level = next((c[-1] for c in child.get("class", []) if c.startswith("level-")), name[1])
            name = f"h{level}"
        if name == "a" and not child.get("href", "").startswith(("http", "mailto")):
            found += _canonical(child)  # leads nowhere that the page would go
            continue
        if name == "a" and unquote(child.get_text()) in unquote(child["href"]):
            found.append(child.get_text())  # the page makes links of bare addresses, too
            continue
        if name == "a":
            name = f"a {child.get('href', '').rstrip('/')}"
        if name == "s":
            name = "del"
        if name == "br":
            found.append("\n")
            continue
        if name == "ol":
            name = f"ol {child.get('start', '1')}"
        found.append([name, *_canonical(child)])
    return _joined(found)


def _joined(nodes):
    out = []
    for node in nodes:
        if isinstance(node, str) and out and isinstance(out[-1], str):
            out[-1] += node
        else:
            out.append(node)
    out = [re.sub(r"\s+", " ", node).strip() if isinstance(node, str) else node for node in out]
    return [node for node in out if node != ""]
