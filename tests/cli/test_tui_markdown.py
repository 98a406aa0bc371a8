"""Markdown drawn while it grows: any way of cutting it ends in the same lines, within the width."""

import io
import re
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console
from rich.markdown import Markdown as RichMarkdown
from tui_kit import new_screen, screen_lines

from konko_async.cli.terminal.live import screen_console
from konko_async.cli.terminal.pane import Pane
from konko_async.cli.terminal.screen_region import Region

DOCUMENT = """# Überschrift

Some *emph* and **bold** `code`, a [link](http://x.y), <http://foo.bar> and a List<T>
over two lines.

- one
- two
  - nested 日本語 wide
    more
- ```py
  x = 1
  ```

9. a
1. b

  ~~~python title="x"
  def f(x):
    \"\"\"doc

      string\"\"\"
      return "日本語" + x  # a long line of code that goes on and on
  ```
  ~~~~

> quote
> more

| a | b |
|---|--:|
| 1 | 2 |

setext
---

    indented

***
end ![img](foo.png)
"""
FRAGMENTS = [
    *"\n\n\n- a`*_#>|=~ 1.)[]()\\&<\t\r\0",
    *("```", "```py\n", "~~~~", "- ", "  - ", "    ", "1. ", "10) ", "* * *", "---\n", "===\n"),
    *(
        "| a | b |\n",
        "|---|---|\n",
        "> ",
        "**",
        "\n\n",
        "\n- x\n\n- y\n",
        "日本語",
        "👩‍👩‍👧",
        "e\u0301",
    ),
    *(
        "def f():\n",
        '"""',
        "/*",
        "[a]: http://b\n",
        "[a]",
        "&#27;",
        "&amp;",
        "\x1b[2J",
        "word " * 9,
    ),
    *("<div>\n", "<!--", "https://x.y/z", "- [ ] task\n", "   ", "\n\n    code\n", "x" * 50),
]
texts = st.lists(st.sampled_from(FRAGMENTS), max_size=20).map("".join)
SGR = re.compile(r"\x1b\[[0-9;]*m")


def colours(**options):
    return Console(file=io.StringIO(), force_terminal=True, color_system="256", **options)


def drawn(pieces, width=30, paint=True):
    """The lines of a text that comes in pieces."""
    pane = Pane(colours(), width)
    lines = []
    for piece in pieces:
        pane.add(piece)
        if paint:
            lines += pane.settle()
            pane.draft()
    return [*lines, *pane.finish()]


def cut(text, places):
    ends = sorted({min(place, len(text)) for place in places})
    starts = [0, *ends]
    return [text[a:b] for a, b in zip(starts, [*ends, len(text)], strict=True)]


@given(text=texts, places=st.lists(st.integers(0, 300), max_size=20))
@example(text=DOCUMENT, places=list(range(len(DOCUMENT))))
@settings(max_examples=40, deadline=None)
def test_any_way_of_cutting_ends_in_the_same_lines(text, places):
    whole = drawn([text])
    assert drawn(cut(text, places)) == whole
    assert drawn(text) == whole, "one character at a time"
    assert drawn(cut(text, places), paint=False) == whole


@given(text=texts, width=st.integers(1, 50))
@settings(max_examples=60, deadline=None)
def test_no_line_is_too_wide_and_none_can_steer_the_terminal(text, width):
    for line in drawn([text], width):
        plain = SGR.sub("", line.text)
        assert plain.isprintable() or not re.search(r"[\x00-\x1f\x7f-\x9f]", plain)
        assert line.width == cell_len(plain)
        if width >= 20:  # tables and lists in lists need some room
            assert line.width <= width


def on_screen(pieces, width, height):
    """What a terminal shows of a text that comes in pieces, drawn after each of them."""
    screen = new_screen(width, height)
    stream = io.StringIO()
    region = Region(stream, lambda: (width, height), reflow=False)
    pane = Pane(colours(), width - 1)
    terminal = __import__("pyte").Stream(screen)
    screen.set_mode(20)  # a line feed is a new line, as the driver of a terminal makes it

    def show():
        terminal.feed(stream.getvalue())
        stream.seek(0)
        stream.truncate()

    for piece in pieces:
        pane.add(piece)
        region.paint(pane.settle(), pane.draft())
        show()
    region.paint(pane.finish(), [])
    region.close()
    show()
    return screen_lines(screen)


@given(
    text=texts,
    places=st.lists(st.integers(0, 300), max_size=15),
    width=st.integers(24, 60),
    height=st.integers(3, 12),
)
@example(text=DOCUMENT, places=list(range(0, len(DOCUMENT), 3)), width=40, height=5)
@settings(max_examples=60, deadline=None)
def test_screen_and_scrollback_do_not_depend_on_the_cuts(text, places, width, height):
    # One kind of character has another width in pyte than on other terminals.
    text = text.replace("👩‍👩‍👧", "@").replace("e\u0301", "é")
    whole = on_screen([text], width, height)
    assert on_screen(cut(text, places), width, height) == whole
    expected = [SGR.sub("", line.text).rstrip() for line in drawn([text], width - 1)]
    while expected and not expected[-1]:
        expected.pop()
    assert whole == expected


def test_what_is_shown_of_a_document():
    lines = [SGR.sub("", line.text) for line in drawn([DOCUMENT], 40)]
    assert lines == [
        "Überschrift",
        "",
        "Some emph and bold code, a link",
        "(http://x.y), http://foo.bar and a",
        "List<T>",
        "over two lines.",
        "",
        " • one",
        " • two",
        "    • nested 日本語 wide",
        "      more",
        " • x = 1",
        "",
        "  9 a",
        " 10 b",
        "",
        "── python ──────────────────────────────",
        "def f(x):",
        '  """doc',
        "",
        '    string"""',
        '    return "日本語" + x  # a long line o',
        "f code that goes on and on",
        "```",
        "────────────────────────────────────────",
        "",
        "▌ quote",
        "▌ more",
        "",
        " a  b",
        " ────",
        " 1  2",
        "",
        "setext",
        "",
        "indented",
        "",
        "────────────────────────────────────────",
        "",
        "end [img] (foo.png)",
    ]


def test_paragraphs_look_as_rich_draws_them_whole():
    text = "A *long* paragraph with **bold words** and `code` that is wrapped. " * 3
    console = screen_console(io.StringIO())
    console.width = 40
    with console.capture() as captured:
        console.print(RichMarkdown(text))
    expected = [line.rstrip() for line in SGR.sub("", captured.get()).splitlines()]
    assert [SGR.sub("", line.text) for line in drawn(text, 40)] == expected


def test_code_is_coloured_as_if_it_were_there_at_once():
    code = 'x = """one\n\ntwo"""\n\n' + "def f():\n    return 'x'\n" * 4
    lines = drawn(f"```python\n{code}```\n", 80)
    assert "\x1b[32m" in lines[3].text, "a string that goes over lines is one"
    assert "\x1b[35mdef" in lines[5].text
    assert {line.text for line in drawn("```nonsense\ndef f\n```", 80)} >= {"def f"}


def test_no_colour_where_none_is_wanted():
    pane = Pane(colours(no_color=True), 40)
    pane.add("# h\n`x` **b**\n```python\ndef f(): 1\n```\n")
    codes = {code for line in pane.finish() for code in SGR.findall(line.text)}
    assert codes <= {
        "\x1b[0m",
        "\x1b[1m",
        "\x1b[2m",
        "\x1b[3m",
        "\x1b[4m",
        "\x1b[1;4m",
        "\x1b[2;3m",
    }


def test_reasoning_is_dim_and_set_apart():
    for size in (1, 3, 100):
        pane, lines = Pane(colours(), 20), []
        thought = "First a thought\nthat is long, longer than a line.\n\n"
        for start in range(0, len(thought), size):
            pane.think(thought[start : start + size])
            lines += pane.settle()
            pane.draft()
        pane.add("Yes.")
        lines += pane.finish()
        assert [SGR.sub("", line.text) for line in lines] == [
            *("First a thought", "that is long, longer", "than a line.", "", "Yes."),
        ]
        assert all("\x1b[2m" in line.text for line in lines[:3])
        assert lines[4].text == "Yes."


@pytest.mark.parametrize(
    "text",
    [
        DOCUMENT,
        "```python\n" + "def f(x):\n    return [x for x in range(10)]\n\n" * 20 + "```\n",
        "- an item of a list that has many of them\n" * 30,
    ],
    ids=["document", "code", "list"],
)
def test_the_work_grows_with_the_text_and_not_faster(text):
    def seconds(size):
        pane = Pane(colours(), 80)
        pieces = (text * (size // len(text) + 1))[:size]
        began = time.process_time()
        for start in range(0, size, 60):
            pane.add(pieces[start : start + 60])
            pane.settle()
            pane.draft()
        pane.finish()
        return time.process_time() - began

    seconds(1000)  # what is made once
    small = max(seconds(3_000) for _ in range(3))
    large = min(seconds(12_000) for _ in range(2))
    assert large < 8 * small + 0.2, "four times as much, in the best case; the square is 16 times"


def test_a_very_long_line_is_no_trouble():
    began = time.process_time()
    lines = drawn(["word " * 40_000], 80)
    assert sum(line.width for line in lines) > 190_000
    assert drawn(["```\n", "x" * 200_000, "\n```"], 80)[1].width == 80
    assert time.process_time() - began < 20
