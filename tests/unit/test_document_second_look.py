"""RTF by its control words, notes of slides, and where they are taken beside kreuzberg's reading."""

import io
import time
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from konko_async.documents import Document, read_file
from konko_async.documents._second_look.packages import slide_notes
from konko_async.documents._second_look.rtf import rtf_text


def escaped(text):
    """Text as writers put it: Unicode with a question mark for those that know none."""
    units = memoryview(text.encode("utf-16-le")).cast("H")
    return b"".join(
        b"\\u%d?" % (unit if unit < 0x8000 else unit - 0x10000)
        if unit > 126 or chr(unit) in "\\{}" else bytes([unit])
        for unit in units
    )  # fmt: skip


def paragraphs(*texts):
    return b"{\\rtf1\\ansi\\ansicpg1252\\uc1 " + b"".join(t + b"\\par\n" for t in texts) + b"}"


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1), min_size=1))
def test_no_character_is_lost(texts):
    assert rtf_text(paragraphs(*map(escaped, texts))) == "\n\n".join(texts)


@pytest.mark.parametrize(
    ("rtf", "text"),
    [
        (rb"caf\'e9, 5\~\'80\line next", "café, 5\u00a0€\nnext"),
        (rb"{\fonttbl{\f0\fcharset0 A;}{\f1\fcharset204 B;}}\f1 \'cc\'e8\'f0\f0  \'e9", "Мир é"),
        (rb"{\fonttbl{\f2\fcharset128 C;}}{\f2 \'93\'fa\'96\'7b} x", "日本 x"),
        (rb"\uc2\u26085\'93\'fa\u8212--ok", "日—ok"),
        (rb"{\uc0\u233}t\u233 ?", "ét\u00e9"),
        (rb"a{\v secret}b{\*\generator X;}c{\info{\title T}}d", "abcd"),
        (rb"{\header Page 1}{\field{\*\fldinst HYPERLINK \"x\"}{\fldrslt link}}", "link"),
        (rb"x{\pict\bin4 }}{{y}z", "xz"),
        (rb"{\shp{\*\shpinst{\sp{\sn a}}{\shptxt In a box}}{\shprslt again}}", "In a box"),
        (rb"\pard\outlinelevel1 Title\par\pard text", "## Title\n\ntext"),
        (rb"\trowd\intbl a\par b\cell c|d\cell\row\trowd\intbl 1\cell 2\cell\row\pard after",
         "| a b | c\\|d |\n| --- | --- |\n| 1 | 2 |\n\nafter"),
        (rb"{\b bold} \{x\} \\ \endash\emdash \lquote q\rquote", "bold {x} \\ \u2013—\u2018q\u2019"),
    ],
)  # fmt: skip
def test_what_is_seen(rtf, text):
    assert rtf_text(b"{\\rtf1\\ansi " + rtf + b"}") == text


def test_it_is_taken_where_kreuzberg_loses_words(tmp_path):
    code = [b'if [ -f "$1" ] || true; then \\{ print "%s" ; \\} fi | sort'] * 9
    text = [
        b"The command " + bytes([97 + n]) * 9 + b" is explained in words here:" for n in range(9)
    ]
    data = paragraphs(*(part for pair in zip(text, code, strict=True) for part in pair))
    (tmp_path / "a.rtf").write_bytes(data)
    (found,) = read_file(tmp_path / "a.rtf")
    assert isinstance(found, Document)
    assert all(each.decode() in found.text.replace("\\", "") for each in text)
    assert found.text.replace("\\", "").count("then {") == 9


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(
    [b"{", b"}", b"\\", b"\\par", b"\\cell", b"\\row", b"\\u", b"\\u55357", b"\\'", b"\\'e9", b"x ",
     b"\\bin9", b"\\*", b"\\uc5", b"\\intbl", b"\\f1", b"\\ansicpg9", b"\\ansicpg932", b"\x81"]
)))  # fmt: skip
def test_whatever_is_damaged_fails_at_nothing(parts):
    assert isinstance(rtf_text(b"{\\rtf1" + b"".join(parts)), str)


@pytest.mark.parametrize("hostile", [b"{", b"{\\*", b"\\cell", b"\\u1?", b"\\'", b"\\uc9999999 "])
def test_hostile_rtf_takes_linear_time(hostile):
    started = time.process_time()
    rtf_text(b"{\\rtf1" + hostile * (50_000 // len(hostile)))
    assert time.process_time() - started < 15


def test_notes_of_slides_are_read_with_the_numbers_of_their_slides():
    def shape(kind, *texts):
        runs = "".join(f"<a:p><a:r><a:t>{text}</a:t></a:r></a:p>" for text in texts)
        return f'<p:sp><p:nvPr><p:ph type="{kind}"/></p:nvPr><p:txBody>{runs}</p:txBody></p:sp>'

    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for number, notes in ((1, None), (2, 7), (3, 1)):
            target = (
                f'<Relationship Target="../notesSlides/notesSlide{notes}.xml"/>' if notes else ""
            )
            archive.writestr(f"ppt/slides/_rels/slide{number}.xml.rels", target)
        archive.writestr(
            "ppt/notesSlides/notesSlide7.xml",
            shape("sldNum", "2") + shape("body", "Say &lt;this&gt;.", "And that."),
        )
        archive.writestr("ppt/notesSlides/notesSlide1.xml", shape("body", " "))
    assert slide_notes(file.getvalue()) == "Slide 2: Say <this>.\n\nAnd that."
