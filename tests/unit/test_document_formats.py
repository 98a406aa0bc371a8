"""What is kept of each format, which encodings are found, and what is reported as lost."""

import email.message
import io
import json
import os
import time
import unicodedata
import zipfile
from pathlib import Path

import docx
import pypdf
import pytest
from docx.oxml import parse_xml
from docx.oxml.ns import nsdecls
from hypothesis import given
from hypothesis import strategies as st
from pypdf.generic import DecodedStreamObject, NameObject
from reportlab.pdfgen import canvas

from konko_async.documents import Document, DocumentError, find_files, read_documents, split_text
from konko_async.documents._readers import Readers
from konko_async.documents._second_look.packages import epub_text, odt_text
from konko_async.documents._text import decode, lookup, tidy

WORDS = {
    "german": "Müßiggang ist aller Laster Anfang. Größe zählt, und früh übt sich. ",
    "russian": "Съешь же ещё этих мягких французских булок, да выпей чаю. ",
    "japanese": "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。",
    "chinese": "这是一个测试文本。它说明了编码的问题。",
    "korean": "이것은 시험용 문장입니다. 인코딩을 확인합니다. ",
    "greek": "Το γρήγορο καφέ αλεπού πηδάει πάνω από το σκυλί. ",
    "thai": "นี่คือข้อความทดสอบสำหรับการเข้ารหัส ",
}


@pytest.fixture
def read(tmp_path):
    """Read files, given by their names and bytes, in one go; the documents by name."""

    def reader(**files):
        folder = tmp_path / "files"
        folder.mkdir(exist_ok=True)
        for name, data in files.items():
            (folder / name.replace("__", ".")).write_bytes(data)
        found = read_documents([folder])
        return {Path(entry.name).name.replace(".", "__"): entry for entry in found}

    return reader


# Encodings


@pytest.mark.parametrize(
    ("label", "codec"),
    [
        ("gb2312", "gb18030"),
        ("GBK", "gb18030"),
        ("Shift_JIS", "cp932"),
        ("x-sjis", "cp932"),
        ("euc-kr", "cp949"),
        ("ks_c_5601-1987", "cp949"),
        ("Big5", "big5hkscs"),
        ("ISO-8859-1", "cp1252"),
        ("us-ascii", "cp1252"),
        ("iso-8859-9", "cp1254"),
        ("utf8", "utf_8"),
        ("no-such-charset", None),
        (None, None),
    ],
)
def test_labels_mean_what_browsers_take_them_for(label, codec):
    assert lookup(label) == codec


@pytest.mark.parametrize(
    ("label", "codec", "language", "extra"),
    [
        ("gb2312", "gbk", "chinese", "镕"),
        ("shift_jis", "cp932", "japanese", "①"),
        ("euc-kr", "cp949", "korean", "똠"),
        ("big5", "big5hkscs", "chinese", "㗎"),
        ("iso-8859-1", "cp1252", "german", "„“"),
    ],
)
def test_a_declared_charset_stands_for_its_superset(label, codec, language, extra, read):
    text = WORDS[language] if codec != "big5hkscs" else "這是一個測試文本。"
    page = f'<html><head><meta charset="{label}"></head><body><p>{text}{extra}</p></body></html>'
    found = read(a__html=page.encode(codec))["a__html"]
    assert text.strip() in found.text
    assert extra in found.text
    assert not found.warnings


@pytest.mark.parametrize("codec", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@given(st.sampled_from(sorted(WORDS)), st.integers(1, 5))
def test_unicode_needs_no_declaration(codec, language, times):
    text = "<p>" + WORDS[language] * times + "</p> and plain words of a page. " * 10
    decoded = decode(text.encode(codec), "x")
    assert (decoded.text, decoded.replaced) == (text, 0)


@pytest.mark.parametrize("language", sorted(WORDS))
@pytest.mark.parametrize("bad", [b"\xff", b"\xc3", b"\x80"])
def test_a_stray_byte_in_utf_8_costs_one_character(language, bad):
    data = (WORDS[language] * 20).encode()
    decoded = decode(data + bad + b" the end", "x")
    assert decoded.encoding == "utf-8"
    assert decoded.replaced == 1
    assert decoded.text.count(WORDS[language]) == 20


@pytest.mark.parametrize(
    "text", ["one café here", "The naïve plan failed.", "£ 5 for the façade", "Señor Núñez"]
)
def test_a_short_text_with_few_accents_is_western(text):
    assert decode(text.encode("cp1252"), "x").text == text


@pytest.mark.parametrize(
    ("language", "codec"),
    [("russian", "cp1251"), ("russian", "koi8-r"), ("japanese", "euc_jp"), ("greek", "cp1253")],
)
def test_the_encoding_is_found_where_the_head_of_a_long_text_is_ascii(language, codec):
    text = "plain words\n" * 30_000 + (WORDS[language] + "\n") * 3_000
    assert decode(text.encode(codec), "x").text == text


@pytest.mark.parametrize(
    ("codec", "language"),
    [("iso-2022-jp", "japanese"), ("iso-2022-kr", "korean"), ("hz", "chinese")],
)
def test_encodings_of_seven_bits_are_found_by_their_escapes(codec, language, read):
    text = WORDS[language].strip() * 3
    assert decode(text.encode(codec), "x").text == text
    page = f'<meta charset="{codec}"><p>{text}</p>'
    assert read(a__html=page.encode(codec))["a__html"].text == text


def test_a_text_about_the_escapes_of_hz_is_no_chinese():
    text = "It writes ~{ and ~} around them, as in ~{VPND~}; in shells, ~{ab,cd~} is a path."
    assert decode(text.encode(), "x").text == text


@pytest.mark.parametrize("codec", ["utf-32-le", "utf-32-be", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("language", ["japanese", "chinese", "korean", "russian", "german"])
def test_wide_characters_without_a_mark_are_found(codec, language):
    text = (WORDS[language] + "\n") * 4
    assert decode(text.encode(codec), "x").text == text


# Each was read as another language by the statistics of earlier versions.
@pytest.mark.parametrize(
    ("codec", "text"),
    [
        ("cp1252", "Não há nenhuma informação disponível; a operação não é possível. É só.\n" * 20),
        ("cp1252", "Grüße aus Köln. " * 9),
        ("iso8859_2", "Zażółć gęślą jaźń: źle, że nikt się nie śmieje.\n"),
        ("cp1254", "Dosya açılamadı: böyle bir dosya ya da dizin yok, işlem bırakıldı.\n"),
        ("cp1256", "پرونده پیدا نشد، لطفا دوباره تلاش کنید".replace("ی", "ي") + "\n"),
        ("cp1258", "Không thể mở tập tin" + "\n"),
        ("mac_roman", "Äpfel, Birnen und Brötchen für größere Fälle: heiß und süß.\n" * 3),
        ("cp852", "Soubor nebyl nalezen. Zkuste to prosím znovu později, až bude připojen.\n"),
    ],
)
def test_short_texts_without_a_declaration(codec, text):
    pytest.importorskip("chardet")  # of the extra `docs`
    text = unicodedata.normalize("NFD", text) if codec == "cp1258" else text
    assert decode(text.encode(codec, "ignore"), "x").text == text.encode(codec, "ignore").decode(
        codec
    )


def test_a_program_is_not_taken_for_utf_16():
    program = b"\x7fELF\x02\x01\x01" + b"\0" * 9 + b"\x03\0>\0\x01\0\0\0" * 2_000
    with pytest.raises(DocumentError, match="not text"):
        decode(program, "x")


def test_the_user_may_name_the_encoding(tmp_path):
    (tmp_path / "a.txt").write_bytes("Größe".encode("cp437"))
    (found,) = read_documents([tmp_path], encoding="cp437")
    assert (found.text, found.encoding) == ("Größe", "cp437")


def test_replaced_characters_are_counted_in_a_warning(read):
    data = (WORDS["german"] * 20).encode() + b"\xff and \xfe"
    assert read(a__txt=data)["a__txt"].warnings == (
        "2 characters were not valid utf-8, and replaced",
    )


@given(st.text(st.sampled_from("a \t\xa0\n\r\f\x00é"), max_size=300))
def test_tidying_is_idempotent_and_keeps_what_is_seen(text):
    once = tidy(text)
    assert tidy(once) == once
    assert [c for c in once if not c.isspace()] == [
        c for c in text if not c.isspace() and c != "\0"
    ]


# HTML


def test_what_a_person_sees_of_a_page(read):
    page = b"""<html><body><nav>Home</nav><p>Sales.<img src="a.png" alt="Sales rose by 40 percent"></p>
    <p hidden>ONE</p><p style="display:none">TWO</p><p aria-hidden="true">THREE</p><script>FOUR</script>
    <ol><li>first step<li>second step</ol><h2>Part</h2><p>Words &amp; more</p></body></html>"""
    text = read(a__html=page)["a__html"].text
    for seen in (
        "Sales rose by 40 percent",
        "1. first step",
        "2. second step",
        "## Part",
        "Words & more",
    ):
        assert seen in text
    for gone in ("ONE", "TWO", "THREE", "FOUR", "Home"):
        assert gone not in text


@pytest.mark.parametrize("tag", ["form", "aside", "nav", "footer", "article", "main", "menu"])
def test_a_page_that_stands_in_one_element_is_read(tag, read):
    body = "<p>" + "The council decided on the budget. " * 50 + "</p>"
    page = f'<html><body><a href="#c">Skip to content</a><{tag}>{body}</{tag}></body></html>'
    assert read(a__html=page.encode())["a__html"].text.count("council") == 50


def test_a_short_article_beside_a_long_page_is_not_the_page(read):
    body = "<p>" + "The council decided on the budget. " * 200 + "</p>"
    comment = "<article><p>" + "I do not agree with any of this. " * 8 + "</p></article>"
    page = f"<html><body><div>{body}</div>{comment}</body></html>"
    assert read(a__html=page.encode())["a__html"].text.count("council") == 200


# Word, PowerPoint, EPUB, mail, notebooks


def word_bytes(document):
    file = io.BytesIO()
    document.save(file)
    return file.getvalue()


def test_what_word_shows_is_read_and_what_was_deleted_is_not(read):
    namespace = nsdecls("w")
    run = "<w:r><w:t>{}</w:t></w:r>".format
    document = docx.Document()
    paragraph = document.add_paragraph("start ")._p
    for xml in (
        f'<w:ins {namespace} w:id="1" w:author="a">{run("INSERTED")}</w:ins>',
        f'<w:del {namespace} w:id="2" w:author="a"><w:r><w:delText>GONE</w:delText></w:r></w:del>',
        f"<w:sdt {namespace}><w:sdtContent>{run('CONTROL')}</w:sdtContent></w:sdt>",
        f'<w:fldSimple {namespace} w:instr="REF x">{run("FIELD")}</w:fldSimple>',
    ):
        paragraph.append(parse_xml(xml))
    table = document.add_table(2, 3)
    for row in table.rows:
        for cell in row.cells:
            cell.text = "same"
    document.add_table(1, 1).cell(0, 0).add_table(1, 1).cell(0, 0).text = "INNER"
    text = read(a__docx=word_bytes(document))["a__docx"].text
    for seen in ("INSERTED", "CONTROL", "FIELD", "INNER"):
        assert seen in text
    assert "GONE" not in text
    assert text.count("same") == 6, "equal cells are all kept"


def test_epub_rtf_mail_notebook_and_mailbox(read):
    epub = io.BytesIO()
    with zipfile.ZipFile(epub, "w") as archive:
        archive.writestr("mimetype", "application/epub+zip")
        archive.writestr(
            "META-INF/container.xml",
            '<?xml version="1.0"?><container version="1.0" '
            'xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles><rootfile '
            'full-path="c.opf" media-type="application/oebps-package+xml"/></rootfiles></container>',
        )
        archive.writestr(
            "c.opf",
            '<?xml version="1.0"?><package xmlns="http://www.idpf.org/2007/opf" version="2.0">'
            '<metadata xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:title>A Book</dc:title>'
            '</metadata><manifest><item id="a" href="a.xhtml" media-type="application/xhtml+xml"/>'
            '</manifest><spine><itemref idref="a"/></spine></package>',
        )
        archive.writestr(
            "a.xhtml",
            '<html xmlns="http://www.w3.org/1999/xhtml"><body><h1>Chapter</h1><p>Its words.</p>'
            "</body></html>",
        )
    mail = email.message.EmailMessage()
    mail["Subject"], mail["From"], mail["To"] = "Grüße", "a@example.com", "b@example.com"
    mail.set_content("Bis morgen.\n")
    notebook = {
        "cells": [
            {"cell_type": "markdown", "metadata": {}, "source": ["# Study\n", "Of it."]},
            {"cell_type": "code", "metadata": {}, "source": ["x = 41 + 1"], "outputs": [],
             "execution_count": 1},
        ],
        "metadata": {}, "nbformat": 4, "nbformat_minor": 5,
    }  # fmt: skip
    mailbox = b"".join(b"From a@example.com Thu Jan  1\n" + bytes(mail) + b"\n" for _ in range(2))
    found = read(
        a__epub=epub.getvalue(),
        b__rtf=rb"{\rtf1\ansi Hello \b bold\b0  caf\'e9\par Second\par}",
        c__eml=bytes(mail),
        d__ipynb=json.dumps(notebook).encode(),
        e__mbox=mailbox,
    )
    assert "Its words." in found["a__epub"].text
    assert found["a__epub"].title == "A Book"
    assert "café" in found["b__rtf"].text
    assert "Grüße" in found["c__eml"].text
    assert "Bis morgen." in found["c__eml"].text
    assert "Of it." in found["d__ipynb"].text
    assert "x = 41 + 1" in found["d__ipynb"].text
    assert {"e__mbox#1", "e__mbox#2"} <= found.keys()


def test_a_format_that_is_broken_is_named(read):
    found = read(x__epub=b"PK\x03\x04" + b"\0" * 60 + b"mimetypeapplication/epub+zip")["x__epub"]
    assert isinstance(found, DocumentError)
    assert found.code == "broken"
    assert "EPUB" in found.message


# PDF


def pdf_bytes(*pages):
    file = io.BytesIO()
    sheet = canvas.Canvas(file)
    for lines in pages:
        for number, line in enumerate(lines):
            sheet.drawString(72, 760 - 15 * number, line)
        sheet.showPage()
    sheet.save()
    return file.getvalue()


def test_words_broken_at_line_ends_are_joined_and_compounds_keep_their_hyphens(read):
    lines = ["The state-of-the-", "art method and an exam-", "ple of it."]
    text = read(a__pdf=pdf_bytes(lines))["a__pdf"].text
    assert "state-of-the-art method and an example of it." in " ".join(text.split())


def test_headers_footers_and_page_numbers_are_left_out(read):
    pages = [
        ["Handbook of things", f"Words of chapter {name}.", "More words.", "And more.", f"Page {n}"]
        for n, name in enumerate(("one", "two", "three", "four", "five", "six"), 1)
    ]
    text = read(a__pdf=pdf_bytes(*pages))["a__pdf"].text
    assert text.count("Words of chapter") == 6
    assert "Handbook" not in text
    assert "Page" not in text


def test_a_page_that_cannot_be_read_costs_that_page_and_is_reported(read):
    whole = pdf_bytes(*([f"Words of page {n}, and some more of them."] for n in range(6)))
    writer = pypdf.PdfWriter(clone_from=io.BytesIO(whole))
    stream = DecodedStreamObject()
    stream.set_data(b"garbage")
    stream[NameObject("/Filter")] = NameObject("/NoSuchFilter")
    writer.pages[2][NameObject("/Contents")] = writer._add_object(stream)
    damaged = io.BytesIO()
    writer.write(damaged)
    found = read(a__pdf=damaged.getvalue())["a__pdf"]
    assert "page 1," in found.text
    assert "page 5," in found.text
    assert found.warnings == ("no text on page 3 of 6 pages (images, or broken)",)


# Titles, files


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("---\ntitle: The Real Title\nauthor: A\n---\n\n# Heading\n\nText.", "The Real Title"),
        ('---\nTitle: "Quoted"\n---\nText.', "Quoted"),
        ("---\nauthor: A\n---\n# Heading #\n\nText.", "Heading"),
        ("# Heading\n\nText.", "Heading"),
        ("Heading\n=======\n\nText.", "Heading"),
        ("Text.\n\n# Later heading", None),
        ("Text alone.", None),
    ],
)
def test_the_title_of_markdown(text, title, read):
    assert read(a__md=text.encode())["a__md"].title == title


def test_files_are_in_natural_order_and_those_left_out_are_reported(tmp_path):
    for name in ("10.txt", "2.txt", "a.xyz", "b.bin", "skip/c.txt", "keep.txt"):
        path = tmp_path / "papers" / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text("Text.")
    (tmp_path / "elsewhere.txt").write_text("Text.")
    papers = tmp_path / "papers"
    (papers / "link.txt").symlink_to(tmp_path / "elsewhere.txt")
    left_out = []
    found = find_files(
        [papers], {".txt"}, exclude=["skip"], on_left_out=lambda path: left_out.append(path.name)
    )
    assert [path.name for path in found] == ["2.txt", "10.txt", "keep.txt"]
    assert left_out == ["a.xyz", "b.bin", "link.txt"]
    included = find_files([papers], {".txt"}, include=["*.xyz", "skip/*"])
    assert [path.name for path in included] == ["a.xyz", "c.txt"]


@pytest.mark.skipif(os.name == "nt", reason="names on Windows are Unicode")
def test_a_name_that_is_not_utf_8_is_escaped(tmp_path):
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.txt")).write_text("Text.")
    (found,) = read_documents([tmp_path])
    assert found.name == f"{tmp_path}/caf\\xe9.txt"
    assert json.dumps(found.name).encode()


# Reader processes


def test_a_document_that_takes_too_long_is_an_error_and_its_reader_is_replaced(tmp_path):
    page = tmp_path / "a.html"
    page.write_text("<html><p>Fine.</p></html>")
    with Readers(workers=1, seconds=0.001) as readers:  # starting a process takes longer
        for _ in range(2):
            future = readers.submit(page, "a", "html", field=None, encoding=None)
            (error,) = future.result()
            assert (error.code, error.name) == ("timeout", "a")
    (found,) = read_documents([page])
    assert found.text == "Fine."


def test_reading_may_be_left_early(tmp_path):
    for number in range(20):
        (tmp_path / f"{number}.html").write_text(f"<html><p>Page {number}.</p></html>")
    found = read_documents([tmp_path])
    assert next(found).text == "Page 0."
    found.close()


# Splitting

CLUSTERS = st.sampled_from(["👨‍👩‍👧", "é", "กำ", "🇩🇪", "👍🏽", "한", "a", " "])


@given(st.lists(CLUSTERS, min_size=1, max_size=80), st.integers(8, 20))
def test_no_character_as_it_is_seen_is_cut(clusters, limit):
    text = "".join(clusters).strip()
    whole = {cluster for cluster in clusters if cluster.strip()}
    for part in split_text(text, limit):
        left = part
        while left:
            match = next(
                (c for c in sorted(whole, key=len, reverse=True) if left.startswith(c)), None
            )
            assert match is not None or left[0].isspace(), (part, left)
            left = left[len(match) if match else 1 :]


def test_parts_are_slices_so_indentation_and_empty_cells_survive():
    code = "def f(x):\n    if x:\n        y = 1\n\n        z = 2\n\n    return y\n\n" * 20
    rows = "\n".join(["name\tq1\tq2"] + [f"\t{n}\t{n + 1}" for n in range(80)])
    for whole in (code, rows):
        parts = split_text(whole, 200)
        assert len(parts) > 2
        assert all(part in whole for part in parts)


def test_sentences_without_spaces_between_them_stay_so():
    whole = WORDS["japanese"] * 60
    assert "".join(split_text(whole, 200)) == whole


@pytest.mark.parametrize(
    "above", ["# Heading\n\n", "## A\n\n### B\n\n", "The numbers:\n", "word " * 80 + "\n", ""]
)
@pytest.mark.parametrize("first", ["", "| " + "long " * 90 + "| 0 |\n"])
def test_a_table_below_something_repeats_its_header_and_loses_nothing(above, first):
    header = "| name | n |\n| --- | --- |\n"
    rows = first + "".join(f"| row {n} | {n} |\n" for n in range(60))
    parts = split_text(above + header + rows, 300)
    assert all(len(part) <= 300 for part in parts)
    for part in parts:
        if "| row " in part:
            assert header in part, part
    assert "".join("".join(part.replace(header, "") for part in parts).split()) == "".join(
        (above + rows).split()
    )
    assert sum(part.count(header) for part in parts) >= 2
    code = "```\n" + header + "".join(f"| row {n} | {n} |\n" for n in range(60)) + "```"
    assert sum(part.count(header) for part in split_text(code, 300)) == 1, "code is code"


def test_a_markdown_table_repeats_its_header_and_a_fence_stays_whole():
    table = "| name | n |\n| --- | --- |\n" + "".join(f"| row {n} | {n} |\n" for n in range(60))
    parts = split_text(table, 300)
    assert len(parts) > 3
    assert all(part.startswith("| name | n |\n| --- | --- |\n| row") for part in parts)
    assert all(len(part) <= 300 for part in parts)
    assert [row for part in parts for row in part.splitlines()[2:]] == table.splitlines()[2:]
    fence = "```\nfirst\n\nsecond\n\nthird\n```"
    text = "Words before it. " * 9 + "\n\n" + fence + "\n\n" + "Words after it. " * 9
    assert any(fence in part for part in split_text(text, 180))


def test_documents_are_what_callers_expect(read):
    found = read(a__txt=b"Text.")["a__txt"]
    assert found == Document(name=found.name, text="Text.", format="text", encoding="utf-8")


def odt(body):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("mimetype", "application/vnd.oasis.opendocument.text")
        archive.writestr(
            "META-INF/manifest.xml",
            '<manifest:manifest xmlns:manifest="urn:oasis:names:tc:opendocument:xmlns:manifest:1.0"><manifest:file-entry manifest:full-path="/" manifest:media-type="application/vnd.oasis.opendocument.text"/></manifest:manifest>',
        )
        archive.writestr(
            "content.xml",
            f"""<?xml version="1.0"?><office:document-content
 xmlns:office="urn:oasis:names:tc:opendocument:xmlns:office:1.0" xmlns:text="urn:oasis:names:tc:opendocument:xmlns:text:1.0"
 xmlns:table="urn:oasis:names:tc:opendocument:xmlns:table:1.0" xmlns:xlink="http://www.w3.org/1999/xlink">
<office:body><office:text>{body}</office:text></office:body></office:document-content>""",
        )
    return file.getvalue()


def test_of_opendocument_no_words_are_lost(read):
    def cell(inner):
        return f"<table:table-cell>{inner}</table:table-cell>"

    link = '<text:p><text:a xlink:href="https://a.example/?a=1&amp;b=2"><text:span>linked</text:span> words</text:a></text:p>'
    listed = "<text:list><text:list-item><text:p>first point</text:p></text:list-item></text:list>"
    row = f"<table:table-row>{cell(link)}{cell('<text:p>plain &lt;cell&gt;</text:p>')}{cell(listed)}</table:table-row>"
    body = f"""<text:tracked-changes><text:deletion><text:p>deleted words</text:p></text:deletion></text:tracked-changes>
<text:h text:outline-level="2">A heading</text:h><text:p>Grown<text:span>together</text:span><text:s text:c="2"/>apart<text:line-break/>below
<office:annotation><text:p>a comment</text:p></office:annotation></text:p><table:table>{row * 3}</table:table>"""
    found = read(a__odt=odt(body))["a__odt"]
    for words in ("A heading", "Growntogether", "apart", "below", "linked words", "first point"):
        assert words in found.text, words
    assert "cell" in found.text
    assert found.text.count("linked words") == 3
    assert "deleted" not in found.text
    assert "a comment" not in odt_text(odt(body))
    assert "## A heading" in odt_text(odt(body))
    assert "linked words" in odt_text(odt(body)).split("|")[1]


@pytest.mark.parametrize(
    "hostile",
    ["<text:p", "<text:s text:c='", "<office:annotation>", "<text:tracked-changes", '<a "', "</"],
)
def test_broken_opendocument_takes_linear_time(hostile):
    before = time.process_time()
    odt_text(odt(hostile * 100_000))
    assert time.process_time() - before < 30  # 1 s in fact; the square of it is minutes
    assert (
        odt_text(odt('<text:p>a<text:s text:c="999999999"/>b<text:s text:c="x"/></text:p>'))
        .strip()
        .startswith("a ")
    )


def test_an_epub_at_which_kreuzberg_panics_is_read(read):
    contents = f"<html><body><nav><ol><li>{'é' * 400}</li></ol></nav></body></html>"
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("mimetype", "application/epub+zip")
        archive.writestr(
            "META-INF/container.xml",
            '<container version="1.0" xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles><rootfile full-path="E/c.opf" media-type="application/oebps-package+xml"/></rootfiles></container>',
        )
        archive.writestr(
            "E/c.opf",
            """<package xmlns="http://www.idpf.org/2007/opf" version="3.0"><metadata xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:title>L&apos;été</dc:title></metadata>
<manifest><item id="n" href="nav.xhtml" media-type="application/xhtml+xml" properties="nav"/><item id="b" href="text/b%20.xhtml" media-type="application/xhtml+xml"/>
<item id="a" href="text/a.xhtml" media-type="application/xhtml+xml"/><item id="gone" href="gone.xhtml" media-type="application/xhtml+xml"/></manifest>
<spine><itemref idref="n"/><itemref idref="a"/><itemref idref="gone"/><itemref idref="b"/></spine></package>""",
        )
        archive.writestr("E/nav.xhtml", contents)
        archive.writestr(
            "E/text/a.xhtml", "<html><body><h1>Premier</h1><p>Les mots.</p></body></html>"
        )
        archive.writestr("E/text/b .xhtml", "<html><body><p>La fin.</p></body></html>")
    found = read(a__epub=file.getvalue())["a__epub"]
    assert "Les mots." in found.text
    assert found.text.index("Les mots.") < found.text.index("La fin.")
    text, title = epub_text(file.getvalue(), "a.epub")
    assert (text, title) == ("# Premier\n\nLes mots.\n\nLa fin.", "L'été")
