"""Documents of each format, made here; odd encodings, broken files; splitting, by properties."""

import io
import os
import time
import zipfile

import docx
import pypdf
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reportlab.lib.styles import getSampleStyleSheet
from reportlab.platypus import PageBreak, Paragraph, SimpleDocTemplate

from konko_async.documents import (
    Document,
    DocumentError,
    find_files,
    read_documents,
    read_file,
    split_text,
)
from konko_async.documents._html import html_markdown
from konko_async.summarize import tokens_in

GERMAN = (
    "Müßiggang ist aller Laster Anfang. Früh übt sich, was ein Meister werden will. Größe zählt."
)
RUSSIAN = "Съешь же ещё этих мягких французских булок, да выпей чаю. Москва не сразу строилась."
JAPANESE = "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。"


def pdf(*pages, title=None, password=None):
    file = io.BytesIO()
    style = getSampleStyleSheet()["BodyText"]
    story = []
    for page in pages:
        story += [*(Paragraph(text, style) for text in page), PageBreak()]
    SimpleDocTemplate(file, title=title).build(story)
    if password is None:
        return file.getvalue()
    writer = pypdf.PdfWriter(clone_from=io.BytesIO(file.getvalue()))
    writer.encrypt(user_password=password, owner_password="owner", algorithm="AES-256")
    locked = io.BytesIO()
    writer.write(locked)
    return locked.getvalue()


def word(*paragraphs, title="", rows=()):
    file = io.BytesIO()
    document = docx.Document()
    document.core_properties.title = title
    for text in paragraphs:
        document.add_paragraph(text)
    if rows:
        table = document.add_table(len(rows), len(rows[0]))
        for row, cells in zip(table.rows, rows, strict=True):
            for cell, text in zip(row.cells, cells, strict=True):
                cell.text = text
    document.save(file)
    return file.getvalue()


@pytest.fixture
def read(tmp_path):
    """Read bytes as the one document of a file of that name."""

    def reader(name, data):
        path = tmp_path / name
        path.write_bytes(data)
        (found,) = read_file(path)
        return found

    return reader


def test_text_and_markdown_are_as_they_are(read):
    found = read("a.md", b"# Title\r\n\r\nSome *text*.   \r\n\r\n\r\n\r\nMore.\r\n")
    assert isinstance(found, Document)
    assert found.text == "# Title\n\nSome *text*.\n\nMore."
    assert (found.format, found.encoding) == ("markdown", "utf-8")
    assert read("README", b"Hello").format == "text"


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        (GERMAN, "latin-1"),
        (GERMAN, "cp1252"),
        (RUSSIAN, "cp1251"),
        (RUSSIAN, "koi8-r"),
        (JAPANESE, "shift_jis"),
        (JAPANESE, "euc_jp"),
        (GERMAN, "utf-8-sig"),
        (GERMAN, "utf-16"),
        (RUSSIAN, "utf-32"),
        (GERMAN, "utf-16-le"),
    ],
)
def test_text_in_odd_encodings(text, encoding, read):
    found = read("a.txt", (text * 5).encode(encoding))
    assert found.text == text * 5


def test_a_utf_8_text_with_one_bad_byte_is_still_read(read):
    found = read("a.txt", (GERMAN * 20).encode() + b"\xff end")
    assert found.text.endswith("end")


def test_html_is_read_without_scripts_and_navigation(read):
    page = """<!doctype html><html><head><title> The  Title </title><style>p {}</style></head>
    <body><nav>Home | About</nav><h1>Heading</h1><p>One <b>bold</b>
    word.</p><script>alert(1)</script><ul><li>first<li>second</ul>
    <table><tr><td>a</td><td>b</td></tr></table><pre>x  =  1
y</pre><!-- hidden --><footer>Imprint</footer></body></html>"""
    found = read("a.html", page.encode())
    assert found.title == "The Title"
    assert found.text.startswith("# Heading\n\nOne **bold** word.\n\n- first\n- second")
    assert "| a | b |" in found.text
    assert "x  =  1\ny" in found.text
    for gone in ("alert", "Home", "Imprint", "hidden", "p {}"):
        assert gone not in found.text


def test_html_tells_its_encoding_itself(read):
    page = f'<meta charset="koi8-r"><p>{RUSSIAN}</p>'
    assert read("a.htm", page.encode("koi8-r")).text == RUSSIAN
    assert read("unnamed", f"<!DOCTYPE html><p>{GERMAN}</p>".encode()).format == "html"


def test_html_that_is_only_a_form_or_nested_very_deep_is_read(read):
    assert read("a.html", b"<form><p>Fill in</p></form>").text == "Fill in"
    assert "deep" in read("b.html", b"<div>" * 200 + b"deep").text
    assert isinstance(read("c.html", b"<div>" * 50_000 + b"x"), (Document, DocumentError))


@pytest.mark.parametrize("blank", ["&nbsp;", "\xa0", "&#160;", "&#xA0;"])
def test_a_long_run_of_blanks_costs_no_more_than_its_length(blank):
    started = time.process_time()
    text, _ = html_markdown(f"<html><body><p>a{blank * 3}b</p><p>c{blank * 600_000}d</p>")
    assert text.split() == ["a", "b", "c", "d"]
    assert time.process_time() - started < 8  # 0.1 s in fact; the square of it is 20 s


def test_pdf(read):
    found = read("a.pdf", pdf(["First page, one.", "Second one."], ["Next page."], title="A title"))
    assert (found.format, found.title) == ("pdf", "A title")
    assert " ".join(found.text.split()) == "First page, one. Second one. Next page."
    assert "\n\nNext page." in found.text, "pages are paragraphs"
    assert read("wrong-name.txt", pdf(["Text."])).format == "pdf"


def test_pdf_without_a_password_but_encrypted_is_read(read):
    assert read("a.pdf", pdf(["Open to all."], password="")).text == "Open to all."


def test_docx(read):
    data = word("One.", "", "Two.", title="Minutes", rows=[["Name", "Age"], ["Ann", "41"]])
    found = read("a.docx", data)
    assert (found.format, found.title) == ("docx", "Minutes")
    assert found.text == "One.\n\nTwo.\n\n| Name | Age |\n| --- | --- |\n| Ann | 41 |"
    assert read("unnamed", data).format == "docx"


def test_jsonl_has_a_document_on_each_line(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(
        '{"id": "x", "title": "T", "text": "one"}\n\n"two"\n{"body": "three"}\n{"no": 1}\nbroken\n{"text": " "}\n7\n'
    )
    found = list(read_file(path))
    texts = [entry.text for entry in found if isinstance(entry, Document)]
    assert texts == ["one", "two", "three"]
    assert found[0].title == "T"
    assert [entry.name for entry in found[:2]] == [f"{path}#1 (x)", f"{path}#3"]
    assert [(entry.code, entry.name) for entry in found[3:]] == [
        ("broken", f"{path}#5"), ("broken", f"{path}#6"), ("empty", f"{path}#7"), ("broken", f"{path}#8"),
    ]  # fmt: skip
    assert next(iter(read_file(path, field="id"))).text == "x"


@pytest.mark.parametrize(
    ("name", "data", "code"),
    [
        ("a.txt", b"", "empty"),
        ("a.md", b" \n\t\n", "empty"),
        ("a.html", b"<script>1</script>", "empty"),
        ("a.pdf", b"%PDF-1.7\nnonsense", "broken"),
        ("b.pdf", b"not a pdf at all", "broken"),
        ("a.docx", b"PK\x03\x04nonsense", "broken"),
        ("b.docx", b"no zip", "broken"),
        ("c.docx", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 600, "encrypted"),
        ("a.txt", bytes(range(256)) * 20, "binary"),
        ("core", b"\x7fELF\x02\x01\x01" + b"\0" * 64, "binary"),
    ],
)
def test_what_cannot_be_read_is_an_error_with_a_reason(name, data, code, read):
    found = read(name, data)
    assert isinstance(found, DocumentError), found
    assert found.code == code
    assert found.name in found.message


def test_encrypted_pdf(read):
    assert read("a.pdf", pdf(["Secret."], password="pw")).code == "encrypted"


def test_files_that_were_cut_are_errors_or_shorter(tmp_path):
    whole = pdf(["Text."] * 40)
    for size in range(5, len(whole), 97):
        (tmp_path / f"{size}.pdf").write_bytes(b"%PDF-" + whole[5:size])
    whole = word("Text.")
    sizes = range(40, len(whole), 1501)
    for size in sizes:
        (tmp_path / f"{size}.docx").write_bytes(whole[:size])
    found = list(read_documents([tmp_path]))
    assert len(found) == len(list(tmp_path.iterdir()))
    broken = [entry for entry in found if entry.name.endswith(".docx")]
    assert [entry.code for entry in broken] == ["broken"] * len(sizes)


def test_a_docx_that_unpacks_to_too_much(read):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("word/document.xml", b"0" * (257 * 2**20), compresslevel=1)
    assert read("bomb.docx", file.getvalue()).code == "too_large"


def test_folders_are_searched_and_links_do_not_lead_round(tmp_path):
    for name in (
        "b.md",
        "a.txt",
        "sub/c.html",
        "sub/d.xyz",
        ".hidden/e.txt",
        ".f.txt",
        "LICENSE",
        "GPL-2.0",
    ):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("Text.")
    (tmp_path / "program").write_bytes(b"\x7fELF\0\0")
    (tmp_path / "sub" / "loop").symlink_to(tmp_path)
    (tmp_path / "again.txt").symlink_to(tmp_path / "a.txt")
    names = [
        str(path.relative_to(tmp_path))
        for path in find_files([tmp_path, tmp_path / "b.md"], {".md", ".txt", ".html"})
    ]
    assert names == ["GPL-2.0", "LICENSE", "a.txt", "b.md", "sub/c.html"]


def test_what_is_not_there_or_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe.txt")
    missing, pipe = read_documents([tmp_path / "nosuch.txt", tmp_path / "pipe.txt"])
    assert (missing.code, pipe.code) == ("missing", "unreadable"), "and nobody waits for the pipe"


def test_a_folder_that_may_not_be_listed(tmp_path):
    (tmp_path / "locked").mkdir(mode=0)
    found = list(read_documents([tmp_path]))
    # Root may list any folder.
    assert [error.code for error in found] == ([] if os.geteuid() == 0 else ["unreadable"])


TEXTS = st.text(st.sampled_from("ab .!?\n\t。é語😀"), max_size=400)


def squeezed(text):
    return "".join(text.split())


@given(TEXTS, st.integers(1, 60))
def test_nothing_is_lost_and_every_part_fits(text, limit):
    parts = split_text(text, limit)
    assert squeezed("".join(parts)) == squeezed(text)
    assert all(0 < len(part) <= limit for part in parts)
    assert all(part == part.rstrip() and part.splitlines()[0].strip() for part in parts)


@given(TEXTS, st.integers(2, 40))
def test_every_part_fits_by_another_measure(text, limit):
    parts = split_text(text, limit, tokens_in)
    assert squeezed("".join(parts)) == squeezed(text)
    assert all(tokens_in(part) <= limit for part in parts)


@given(TEXTS, TEXTS)
def test_the_measure_is_as_splitting_needs_it(one, other):
    assert max(tokens_in(one), tokens_in(other)) <= tokens_in(one + other)
    assert tokens_in(one + other) <= tokens_in(one) + tokens_in(other)


def test_cuts_are_at_paragraphs_then_sentences_then_words_then_hard():
    paragraphs = ["One one one.", "Two two two.", "Three three."]
    assert split_text("\n\n".join(paragraphs), 15) == paragraphs
    assert split_text("A first one. A second one! A third?", 14) == [
        "A first one.",
        "A second one!",
        "A third?",
    ]
    assert split_text("alpha beta gamma", 11) == ["alpha", "beta gamma"]
    assert split_text("abcdefgh", 3) == ["abc", "def", "gh"]
    assert split_text('He said "no." Then he left.', 16) == ['He said "no."', "Then he left."]


def test_parts_are_of_about_the_same_length():
    text = "\n\n".join(f"Paragraph {number} of a long text." for number in range(110))
    sizes = [len(part) for part in split_text(text, 1000)]
    assert max(sizes) < 1.4 * min(sizes)


def test_a_heading_goes_with_what_follows():
    text = "# Title\n\n" + "A sentence of the text. " * 40
    assert split_text(text, 300)[0].startswith("# Title\n\nA sentence")


def test_text_that_fits_is_left_alone():
    assert split_text(" a\n\nb ", 10) == ["a\n\nb"]
    assert split_text(" \n ", 10) == []
    with pytest.raises(ValueError, match="at least 1"):
        split_text("a", 0)


def test_a_megabyte_in_one_line_is_split_in_no_time():
    assert len(split_text("x" * 1_000_000, 1000)) == 1000
    assert squeezed("".join(split_text("ab " * 300_000, 1000))) == "ab" * 300_000
