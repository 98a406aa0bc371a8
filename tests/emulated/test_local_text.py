"""Summaries begin with prose: markup out, one line, cut where it does not hurt."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from konko_async.local import SUMMARY_OPTIONS, summary_messages
from konko_async.local._text import condense


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("# Title\n\nIt *does* `things`.", "Title It does things."),
        ("[![b](u)](v)\n[![c](u)](v) [![d](u)](v)\n\nProse.", "Prose."),
        ("[Docs](https://d.example) | [Chat](https://c.example)\n\nProse.", "Prose."),
        ("See [the docs](https://d.example) first.", "See the docs first."),
        ("See [the\ndocs](https://d.example) first.", "See the docs first."),
        ("See `the docs <https://d.example>`_ first.", "See the docs first."),
        ("Made with `aiohttp`_ and asyncio_.", "Made with aiohttp and asyncio."),
        ("```python\nimport x\n```\nProse.", "Prose."),
        (">>> import x\n>>> x.y\nProse.", "Prose."),
        ("$ pip install x\nProse.", "Prose."),
        ("Like this::\n\n    code\n    code\n\nProse.", "Like this: Prose."),
        (".. image:: u\n   :target: v\n\nProse.", "Prose."),
        ("<p align=center>\n<a href='u'>Docs</a> · <a href='v'>Chat</a>\n</p>\nProse.", "Prose."),
        ("<!-- hidden\nlines -->Prose &c.", "Prose &c."),
        ("| a | b |\n|---|---|\n| 1 | 2 |\nProse.", "Prose."),
        ("Title\r\n=====\r\nProse, see https://e.example for more.", "Title Prose, see for more."),
        ("> [!NOTE]\n> snake_case stays", "snake_case stays"),
        ("", ""),
    ],
)
def test_markup_goes_and_prose_stays(text, expected):
    assert condense(text, 200) == expected


def test_it_is_cut_after_a_sentence_or_a_word():
    assert condense("One two three. Four five six seven", 20) == "One two three."
    assert condense("One. Two three four five six seven", 20) == "One. Two three four"
    assert condense("x" * 50, 20) == "x" * 20


@given(st.text(alphabet="ab .:`_*[]()<>!|\n\t#=-~$'éx", max_size=200), st.integers(1, 60))
@settings(max_examples=300)
def test_any_text_becomes_one_short_line(text, limit):
    result = condense(text, limit)
    assert len(result) <= limit
    assert result == " ".join(result.split())


@pytest.mark.parametrize("piece", ["[", "![", "[a](b", "<a ", "<!--", "`", "`a <", "::\n\n", "|"])
def test_hostile_text_takes_no_time(piece):
    def seconds(times):
        started = time.process_time()
        condense(piece * times, 280)
        return time.process_time() - started

    # Only the beginning is read: eight times as much takes no longer.
    assert min(seconds(100_000) for _ in range(2)) < 3 * seconds(12_500) + 0.3


def test_examples_come_as_earlier_turns_and_fit():
    messages = summary_messages("A *new* thing. " * 1000)
    assert [m["role"] for m in messages] == ["user", "assistant"] * 8 + ["user"]
    assert messages[-1]["content"].startswith("Text: A new thing.")
    assert messages[-1]["content"].endswith("\nSummary:")
    assert len(messages[-1]["content"]) < 300
    assert len(SUMMARY_OPTIONS["stop"]) <= 4  # the API takes no more
