"""Mail and mailboxes: what a person sees of them, in any charset, and what is said to be lost."""

import email.policy
import time
from email.message import EmailMessage

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from konko_async.documents import Document, DocumentError
from konko_async.documents._mail import mail_text, mailbox
from konko_async.documents._read_bytes import documents_of

POLICY = email.policy.SMTP.clone(max_line_length=998)
CHARSETS = {
    "iso-8859-1": "Grüße aus Köln: „schön“ wär's. ".replace("„", '"').replace("“", '"'),
    "windows-1250": "Zażółć gęślą jaźń. ",
    "koi8-r": "Съешь ещё этих мягких булок. ",
    "iso-2022-jp": "吾輩は猫である。名前はまだ無い。",
    "gb18030": "这是一个测试文本。",
    "big5": "這是一個測試文本。",
    "euc-kr": "이것은 시험용 문장입니다. ",
    "utf-8": "Ünïcödé 吾輩 🎈. ",
}


def message(subject="Plans", **headers):
    mail = EmailMessage(POLICY)
    mail["Subject"], mail["From"], mail["To"] = subject, "Ada <a@example.com>", "b@example.com"
    for name, value in headers.items():
        mail[name] = value
    return mail


@pytest.mark.parametrize("way", ["base64", "quoted-printable", "8bit"])
@pytest.mark.parametrize("charset", sorted(CHARSETS))
def test_each_charset_is_read_in_each_transfer_encoding(charset, way):
    text = CHARSETS[charset] * 3
    mail = message(text[:40])
    mail.set_content(text.encode(charset), "text", "plain", cte=way, params={"charset": charset})
    found, subject, warnings = mail_text(bytes(mail), "a.eml")
    assert text.strip() in found
    assert subject == text[:40].strip()
    assert found.startswith(f"# {subject}\n\nFrom: Ada <a@example.com>\nTo: b@example.com\n\n")
    assert not warnings


@settings(max_examples=40, deadline=None)
@given(st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=60))
def test_no_letter_of_a_subject_or_a_body_is_lost(text):
    mail = message(text)
    mail.set_content(text)
    found, subject, _ = mail_text(bytes(mail), "a.eml")
    assert subject == text
    assert found.endswith(text)


def test_bytes_without_a_charset_are_decoded_by_a_guess():
    raw = "Subject: Grüße\r\nFrom: Jörg <j@example.com>\r\n\r\nSchöne Grüße.\r\n"
    for charset in ("utf-8", "cp1252"):
        found, subject, warnings = mail_text(raw.encode(charset), "a.eml")
        assert (subject, warnings) == ("Grüße", ())
        assert "From: Jörg" in found
        assert "Schöne Grüße." in found


def test_a_character_that_is_cut_between_two_encoded_words_is_whole():
    raw = b"Subject: =?utf-8?q?Gr=C3?= =?utf-8?q?=BC=C3=9Fe?=\n\nHello.\n"
    assert mail_text(raw, "a.eml")[1] == "Grüße"


def test_the_plain_form_is_taken_unless_it_says_much_less():
    mail = message()
    mail.set_content("The plan is ready, see below.")
    mail.add_alternative("<p>The <b>plan</b> is ready, see below.</p>", subtype="html")
    found = mail_text(bytes(mail), "a.eml")[0]
    assert found.count("plan is ready") == 1
    stand_in = message()
    stand_in.set_content("No HTML?")
    stand_in.add_alternative("<h1>News</h1><p>All that has happened this week.</p>", subtype="html")
    found = mail_text(bytes(stand_in), "a.eml")[0]
    assert "# News\n\nAll that has happened" in found
    assert "No HTML?" not in found


def test_attached_texts_are_read_and_other_files_are_named_in_a_warning():
    mail = message()
    mail.set_content("See the files.")
    mail.add_attachment("a;b\n1;2\n", filename="figures.csv", subtype="csv")
    mail.add_attachment(b"GIF", maintype="image", subtype="gif", filename="a.gif", cid="<a@x>")
    mail.add_attachment(b"%PDF", maintype="application", subtype="pdf", filename="Grüße.pdf")
    inner = message("The question", Date="Mon, 30 Nov 2026 10:00:00 +0000")
    inner.set_content("What is the answer?")
    mail.add_attachment(inner)
    (found,) = documents_of(bytes(mail), "a.eml", "email")
    assert isinstance(found, Document)
    assert found.title == "Plans"
    assert "## figures.csv\n\na;b\n1;2" in found.text
    assert "Subject: The question" in found.text
    assert "What is the answer?" in found.text
    assert found.warnings == (
        "attachments are not read: a.gif (image/gif), Grüße.pdf (application/pdf)",
    )


def test_damage_is_reported_and_what_can_be_decoded_is_read():
    cut = message()
    cut.set_content("Some text.")
    cut.add_attachment("More text.", filename="more.txt")
    data = bytes(cut)
    found, _, warnings = mail_text(data[: data.rindex(b"--==")], "a.eml")
    assert "More text." in found
    assert warnings == ("the message is damaged or was cut; what could be decoded is read",)
    bad = b"Content-Type: text/plain; charset=utf-8\n\n" + "Grüße, ".encode() * 9 + b"\xff."
    assert "could not be decoded, replaced: 1" in mail_text(bad, "a.eml")[2][0]


def test_a_sentence_that_begins_with_from_begins_no_message():
    one = message("One")
    one.set_content("Dear all,\n\nFrom now on, at 10:00.\n\n>From here it is quoted.\n")
    two = message("Two")
    two.set_content("Bye.\n")
    line = b"From a@example.com Mon Nov 30 10:00:00 2026\n"
    data = b"".join(line + bytes(mail).replace(b"\r\n", b"\n") + b"\n" for mail in (one, two))
    found = list(documents_of(data, "x.mbox", "mbox"))
    assert [(each.name, each.title) for each in found] == [("x.mbox#1", "One"), ("x.mbox#2", "Two")]
    assert "From now on" in found[0].text
    assert "\nFrom here it is quoted." in found[0].text
    assert len(list(mailbox(b"Subject: alone\n\nx\n\n" + data))) == 3


def test_a_message_at_which_the_parser_fails_costs_that_message():
    deep = b"Content-Type: message/rfc822\n\n" * 1_100
    line = b"From x Mon Nov 30 10:00:00 2026\n"
    data = line + deep + b"\n\n" + line + b"\nHello\n"
    first, second = documents_of(data, "x.mbox", "mbox")
    assert isinstance(first, DocumentError)
    # How deep a parser may go depends on the process.
    assert first.code in {"broken", "empty"}
    assert second.text == "Hello"


@pytest.mark.parametrize(
    "hostile",
    [
        b"From x\n\n" * 20_000,
        b"Subject: " + b"=?utf-8?q?=C3?= " * 20_000 + b"\n\nx",
        b"Content-Type: multipart/mixed; boundary=a\n\n" + b"--a\n\nx\n" * 2_000,
        b"Subject: x\n" * 20_000 + b"\nx",
    ],
)
def test_hostile_mail_takes_linear_time(hostile):
    started = time.process_time()
    for each in mailbox(hostile):
        mail_text(each, "a.eml")
        if hostile.startswith(b"From"):
            break
    assert time.process_time() - started < 20
