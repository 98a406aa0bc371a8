"""The SSE decoder against the standard: by hand, by oracle, cut everywhere."""

import doctest

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from sse_oracle import interpret, utf8_decode

import konko_async.sse
from konko_async import ConfigurationError, ResponseDecodeError
from konko_async._streaming.loose_sse import LooseSSEDecoder, NamedEvent
from konko_async.sse import MAX_EVENT_BYTES, ServerSentEvent, SSEDecoder, encode_event

BOM = b"\xef\xbb\xbf"


def run(pieces, **options):
    """Return what a decoder makes of a body that comes in these pieces."""
    decoder = SSEDecoder(**options)
    events = []
    for piece in pieces:
        events += decoder.feed(piece)
    events += decoder.flush()
    return [(e.event, e.data, e.id, e.retry) for e in events]


def all_ways(body):
    """Yield a body whole, byte by byte, with empty reads between, and cut in two at every place."""
    yield [body]
    single = [body[i : i + 1] for i in range(len(body))]
    yield single
    yield [piece for byte in single for piece in (b"", byte, b"")]
    for place in range(len(body) + 1):
        yield [body[:place], body[place:]]


def message(data, id=None, retry=None, event="message"):
    return (event, data, id, retry)


A, B = message("a"), message("b")

VECTORS = [
    # nothing
    (b"", []),
    (b"\n", []),
    (b"\r", []),
    (b"\r\n\r\n\n\n\r\r", []),
    (b" ", []),
    (b" \n\n", []),
    (b"\0", []),
    # the plain event
    (b"data: a\n\n", [A]),
    (b"data:a\n\n", [A]),
    (b"data: a\n\ndata: b\n\n", [A, B]),
    (b"data: a\n\n\n\n\ndata: b\n\n", [A, B]),
    (b"\n\n\ndata: a\n\n", [A]),
    (b"data: a\ndata: b\n\n", [message("a\nb")]),
    (b"data\n\n", [message("")]),
    (b"data:\n\n", [message("")]),
    (b"data: \n\n", [message("")]),
    (b"data\ndata\n\n", [message("\n")]),
    (b"data:\ndata:\ndata:\n\n", [message("\n\n")]),
    (b"data:a\ndata\ndata:b\n\n", [message("a\n\nb")]),
    (b"data\ndata:a\n\n", [message("\na")]),
    (b"data:a\ndata\n\n", [message("a\n")]),
    # one space is taken off, one only, and no other white space
    (b"data:  a\n\n", [message(" a")]),
    (b"data:   \n\n", [message("  ")]),
    (b"data:\ta\n\n", [message("\ta")]),
    (b"data: \ta\n\n", [message("\ta")]),
    (b"data:\xc2\xa0a\n\n", [message("\xa0a")]),
    (b"data: a \n\n", [message("a ")]),
    (b"data:\x0ba\n\n", [message("\x0ba")]),
    # colons
    (b"data::a\n\n", [message(":a")]),
    (b"data: :a\n\n", [message(":a")]),
    (b"data: a:b: c\n\n", [message("a:b: c")]),
    (b"data:::\n\n", [message("::")]),
    (b'data: {"a": "b:c"}\n\n', [message('{"a": "b:c"}')]),
    # line ends
    (b"data: a\r\rdata: b\r\r", [A, B]),
    (b"data: a\r\n\r\ndata: b\r\n\r\n", [A, B]),
    (b"data: a\r\n\ndata: b\n\r\n", [A, B]),
    (b"data: a\n\rdata: b\r\n\r", [A, B]),
    (b"data: a\r\ndata: b\rdata: c\ndata: d\r\n\r\n", [message("a\nb\nc\nd")]),
    (b"data: a\r\n", []),
    (b"data: a\r", []),
    (b"data: a\r\r", [A]),
    (b"data: a\r\n\r", [A]),
    (b"data: a\n\r", [A]),
    (b"data: a\r\r\n", [A]),
    (b"data: a\r\r\n\n", [A]),
    (b"data:\rdata:\r\n\r", [message("\n")]),
    (b"\rdata: a\n\n", [A]),
    (b"\n\rdata: a\n\n", [A]),
    # what is no line end, though str.splitlines() takes it for one
    (b"data: a\x0bb\x0cc\n\n", [message("a\x0bb\x0cc")]),
    (b"data: a\x1cb\x1dc\x1ed\n\n", [message("a\x1cb\x1dc\x1ed")]),
    ("data: a\x85b\n\n".encode(), [message("a\x85b")]),
    ("data: a\u2028b\u2029c\n\n".encode(), [message("a\u2028b\u2029c")]),
    ("data: a\u2028data: b\n\n".encode(), [message("a\u2028data: b")]),
    (b"data: a\x0c\x0cdata: b\n\n", [message("a\x0c\x0cdata: b")]),
    (b"data: a\\n\\ndata: b\n\n", [message("a\\n\\ndata: b")]),
    # byte order marks
    (BOM, []),
    (BOM + b"data: a\n\n", [A]),
    (BOM + b"\ndata: a\n\n", [A]),
    (BOM + b":c\ndata: a\n\n", [A]),
    (BOM + BOM + b"data: a\n\n", []),
    (BOM + BOM + b"data: a\ndata: b\n\n", [B]),
    (b"\n" + BOM + b"data: a\n\n", []),
    (b"data: a\n\n" + BOM + b"data: b\n\n", [A]),
    (b"data: " + BOM + b"a\n\n", [message("\ufeffa")]),
    (b"data:" + BOM + b" a\n\n", [message("\ufeff a")]),
    (b"id: " + BOM + b"\ndata: a\n\n", [message("a", "\ufeff")]),
    (b"\xef\xbb", []),
    (b"\xef", []),
    (b"\xef\xbbdata: a\n\n", []),
    (b"\xef\xbb\ndata: a\n\n", [A]),
    (b"\xfe\xffdata: a\n\n", []),
    (b"\xff\xfed\0a\0t\0a\0", []),
    # comments
    (b": a\n\n", []),
    (b":\n\n", []),
    (b":\n", []),
    (b": OPENROUTER PROCESSING\n\ndata: a\n\n", [A]),
    (b"data: a\n: between\ndata: b\n\n", [message("a\nb")]),
    (b":data: a\n\n", []),
    (b"data: a\n:\n\n", [A]),
    (b":\0\xff\n\ndata: a\n\n", [A]),
    (b" : no comment, a field named ' '\ndata: a\n\n", [A]),
    # unknown fields, and known ones misspelt
    (b"Data: a\n\n", []),
    (b"DATA: a\n\n", []),
    (b"data : a\n\n", []),
    (b" data: a\n\n", []),
    (b"\tdata: a\n\n", []),
    (b"dat: a\n\n", []),
    (b"dataa: a\n\n", []),
    (b"data\0: a\n\n", []),
    (b"data\xff: a\n\n", []),
    (b"data\n: a\n\n", [message("")]),
    (b"{}\n\n", []),
    (b"{}\ndata: a\n\n", [A]),
    (b"foo: bar\ndata: a\nbaz\n\n", [A]),
    (b"Event: x\nID: 5\nRetry: 5\ndata: a\n\n", [A]),
    ("d\u0430ta: a\n\n".encode(), []),  # a Cyrillic letter
    # event
    (b"event: x\ndata: a\n\n", [message("a", event="x")]),
    (b"data: a\nevent: x\n\n", [message("a", event="x")]),
    (b"event:x\ndata: a\n\n", [message("a", event="x")]),
    (b"event:  x \ndata: a\n\n", [message("a", event=" x ")]),
    (b"event: x\nevent: y\ndata: a\n\n", [message("a", event="y")]),
    (b"event: x\nevent:\ndata: a\n\n", [A]),
    (b"event: x\nevent\ndata: a\n\n", [A]),
    (b"event: \ndata: a\n\n", [A]),
    (b"event\ndata: a\n\n", [A]),
    (b"event: message\ndata: a\n\n", [A]),
    (b"event: x\n\ndata: a\n\n", [A]),
    (b"event: x\ndata: a\n\ndata: b\n\n", [message("a", event="x"), B]),
    (b"event: a\0b\ndata: a\n\n", [message("a", event="a\0b")]),
    (b"event: \xff\ndata: a\n\n", [message("a", event="\ufffd")]),
    (b"event: error\ndata: {}\n\n", [message("{}", event="error")]),
    (b"event: x:y\ndata: a\n\n", [message("a", event="x:y")]),
    # id
    (b"id: 5\ndata: a\n\n", [message("a", "5")]),
    (b"data: a\nid: 5\n\n", [message("a", "5")]),
    (b"id: 5\ndata: a\n\ndata: b\n\n", [message("a", "5"), message("b", "5")]),
    (b"id: 5\n\ndata: a\n\n", [message("a", "5")]),
    (b"id: 5\n: c\n\nevent: x\n\ndata: a\n\n", [message("a", "5")]),
    (b"id: 5\nid: 6\ndata: a\n\n", [message("a", "6")]),
    (b"data: a\n\nid: 5\ndata: b\n\n", [A, message("b", "5")]),
    (b"id: 5\ndata: a\n\nid:\ndata: b\n\n", [message("a", "5"), message("b", "")]),
    (b"id: 5\ndata: a\n\nid\ndata: b\n\n", [message("a", "5"), message("b", "")]),
    (b"id: 5\ndata: a\n\nid: \n\ndata: b\n\n", [message("a", "5"), message("b", "")]),
    (b"id\ndata: a\n\n", [message("a", "")]),
    (b"id: 5\0\ndata: a\n\n", [A]),
    (b"id: \0\ndata: a\n\n", [A]),
    (b"id: 5\nid: 6\0\ndata: a\n\n", [message("a", "5")]),
    (b"id: 5\ndata: a\n\nid: \x007\ndata: b\n\n", [message("a", "5"), message("b", "5")]),
    (b"id:  5 \ndata: a\n\n", [message("a", " 5 ")]),
    (b"id: a:b\ndata: a\n\n", [message("a", "a:b")]),
    (b"id: \xe2\x82\xac\xff\ndata: a\n\n", [message("a", "\u20ac\ufffd")]),
    (b"data: a\n\nid: 5\n", [A]),
    (b"data: a\n\nid: 5\ndata: b\n", [A]),
    # retry
    (b"retry: 5\ndata: a\n\n", [message("a", retry=5)]),
    (b"data: a\nretry:5\n\n", [message("a", retry=5)]),
    (b"retry: 0\ndata: a\n\n", [message("a", retry=0)]),
    (b"retry: 007\ndata: a\n\n", [message("a", retry=7)]),
    (b"retry: 5\nretry: 6\ndata: a\n\n", [message("a", retry=6)]),
    (b"retry: 5\nretry: x\ndata: a\n\n", [message("a", retry=5)]),
    (b"retry: 5\n\ndata: a\n\n", [A]),
    (b"retry: 5\ndata: a\n\ndata: b\n\n", [message("a", retry=5), B]),
    (b"retry:\ndata: a\n\n", [A]),
    (b"retry\ndata: a\n\n", [A]),
    (b"retry:  5\ndata: a\n\n", [A]),
    (b"retry: 5 \ndata: a\n\n", [A]),
    (b"retry: 1 000\ndata: a\n\n", [A]),
    (b"retry: 1_000\ndata: a\n\n", [A]),
    (b"retry: +5\ndata: a\n\n", [A]),
    (b"retry: -5\ndata: a\n\n", [A]),
    (b"retry: 5.0\ndata: a\n\n", [A]),
    (b"retry: 5e3\ndata: a\n\n", [A]),
    (b"retry: 0x5\ndata: a\n\n", [A]),
    (b"retry: 5s\ndata: a\n\n", [A]),
    (b"retry: 5\0\ndata: a\n\n", [A]),
    (b"retry: \xff5\ndata: a\n\n", [A]),
    ("retry: \u0665\ndata: a\n\n".encode(), [A]),  # Arabic-Indic five
    ("retry: \xb2\ndata: a\n\n".encode(), [A]),
    ("retry: \uff15\ndata: a\n\n".encode(), [A]),
    (b"retry: 18446744073709551616\ndata: a\n\n", [message("a", retry=2**64)]),
    (b"retry: " + b"9" * 100 + b"\ndata: a\n\n", [message("a", retry=10**100 - 1)]),
    (b"retry: " + b"0" * 5000 + b"7\ndata: a\n\n", [message("a", retry=7)]),
    # the end
    (b"data: a", []),
    (b"data: a\n", []),
    (b"data: a\n\ndata: b", [A]),
    (b"data: a\n\ndata: b\n", [A]),
    (b"data: a\n\ndata: b\r", [A]),
    (b"data: a\n\ndata: b\n:\n", [A]),
    (b"data: a\n\ndata: b\ndata", [A]),
    # NUL and other controls
    (b"data: a\0b\n\n", [message("a\0b")]),
    (b"data: \0\n\n", [message("\0")]),
    (b"data: \x1b[31m\x07\n\n", [message("\x1b[31m\x07")]),
    # UTF-8, valid
    ("data: \u00e9\u20ac\U0001f600\n\n".encode(), [message("\u00e9\u20ac\U0001f600")]),
    ("data: \u0080\u07ff\u0800\uffff\U00010000\U0010ffff\n\n".encode(),
     [message("\u0080\u07ff\u0800\uffff\U00010000\U0010ffff")]),
    ("data: \ud7ff\ue000\n\n".encode(), [message("\ud7ff\ue000")]),
    # UTF-8, invalid: one U+FFFD for each "maximal subpart"
    (b"data: \xff\n\n", [message("\ufffd")]),
    (b"data: \x80\x80\n\n", [message("\ufffd" * 2)]),
    (b"data: \xc0\x80\n\n", [message("\ufffd" * 2)]),  # overlong NUL
    (b"data: \xc1\xbf\n\n", [message("\ufffd" * 2)]),
    (b"data: \xe0\x80\xaf\n\n", [message("\ufffd" * 3)]),
    (b"data: \xf0\x80\x80\xaf\n\n", [message("\ufffd" * 4)]),
    (b"data: \xed\xa0\x80\n\n", [message("\ufffd" * 3)]),  # a surrogate
    (b"data: \xed\xa0\xbd\xed\xb8\x80\n\n", [message("\ufffd" * 6)]),  # CESU-8
    (b"data: \xf4\x90\x80\x80\n\n", [message("\ufffd" * 4)]),
    (b"data: \xf5\x80\x80\x80\n\n", [message("\ufffd" * 4)]),
    (b"data: \xf8\x88\x80\x80\x80\n\n", [message("\ufffd" * 5)]),
    (b"data: \xe2\x82\n\n", [message("\ufffd")]),
    (b"data: \xe2\x82a\n\n", [message("\ufffda")]),
    (b"data: \xf0\x9f\x98\n\n", [message("\ufffd")]),
    (b"data: \xf0\x9f\x98\xe2\x82\xac\n\n", [message("\ufffd\u20ac")]),
    (b"data: \xe2\ndata: \x82\xac\n\n", [message("\ufffd\n\ufffd\ufffd")]),
    (b"data: \xe2\x82\r\n\r\n", [message("\ufffd")]),
    (b"data: a\n\n\xe2\x82", [A]),
    (b"data: a\n\n\xe2\x82\n\ndata: b\n\n", [A, B]),
    (b"data:\xe2 \x82\n\n", [message("\ufffd \ufffd")]),
    (b"data\xe2:a\n\n", []),
    (b"\xe2:data\ndata: a\n\n", [A]),
    # all at once
    (BOM + b":hi\r\nevent: add\rid: 1\ndata: x\r\ndata\rretry: 9\n\r\ndata: y\r\r\n",
     [message("x\n", "1", 9, "add"), message("y", "1")]),
    (b"data: YHOO\ndata: +2\ndata: 10\n\n", [message("YHOO\n+2\n10")]),
    (b": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n",
     [message("first event", "1"), message("second event", "")]),
    (b"data\n\ndata\ndata\n\ndata:\n", [message(""), message("\n")]),
    (b"data:test\n\ndata: test\n\n", [message("test")] * 2),
]  # fmt: skip


@pytest.mark.parametrize(("body", "expected"), VECTORS, ids=[repr(b)[:60] for b, _ in VECTORS])
def test_vector(body, expected):
    assert interpret(body) == expected, "the oracle disagrees with the table"
    for pieces in all_ways(body) if len(body) < 300 else [[body]]:
        assert run(pieces) == expected, pieces


def test_long_lines_and_many_lines_survive_any_cut():
    text = "\u20ac\U0001f600x" * 20_000
    body = f"data: {text}\r\ndata: {text}\r\n\r\n".encode()
    for size in (1, 7, 4096, 65536):
        pieces = [body[i : i + size] for i in range(0, len(body), size)]
        assert run(pieces) == [message(f"{text}\n{text}")]
    assert run([b"data: x\n" * 50_000 + b"\n"]) == [message("\n".join("x" * 50_000))]


# -- properties ------------------------------------------------------------------------------------


def cut(body, places):
    """Cut a body at the places, given as fractions so that they can be drawn before it."""
    ends = sorted({int(place * len(body)) for place in places})
    return [body[a:b] for a, b in zip([0, *ends], [*ends, len(body)], strict=True)]


CUTS = st.lists(st.floats(0, 1), max_size=12)
SPICE = st.sampled_from(
    [b"\r", b"\n", b"\r\n", b"\n\n", b"data", b"data:", b"data: ", b"event: ", b"id: ", b"retry: ",
     b":", b" ", b"\0", BOM, b"7", b"\xe2\x82\xac", b"\xf0\x9f", b"\xff", b"x", b"\x0c", b"\xc2\x85"]
)  # fmt: skip
BODIES = st.one_of(
    st.binary(max_size=60),
    st.lists(SPICE, max_size=40).map(b"".join),
    st.lists(st.one_of(SPICE, st.binary(max_size=3)), max_size=40).map(b"".join),
)
NAMES = st.sampled_from(["data", "event", "id", "retry", "", " data", "Data", "x", "data "])
VALUES = st.one_of(
    st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=8),
    st.integers(-1, 10**30).map(str),
)
LINES = st.builds(lambda n, c, v, e: n + c + v + e, NAMES, st.sampled_from(["", ":", ": ", ":  "]),
                  VALUES, st.sampled_from(["\n", "\r", "\r\n"]))  # fmt: skip
FIELDS = st.lists(st.one_of(LINES, st.sampled_from(["\n", "\r", "\r\n"])), max_size=30).map(
    lambda lines: "".join(lines).encode()
)


@given(BODIES, CUTS)
@example(b"data: a\r", [0.9])
def test_any_bytes_cut_anywhere(body, places):
    assert run(cut(body, places)) == interpret(body)


@given(FIELDS, st.booleans(), CUTS)
def test_any_fields_cut_anywhere(body, bom, places):
    body = BOM * bom + body
    assert run(cut(body, places)) == interpret(body)


@given(BODIES)
def test_the_oracles_utf8_is_pythons_too(body):
    assert utf8_decode(body) == body.removeprefix(BOM).decode("utf-8", "replace")


@given(BODIES, CUTS)
def test_an_event_is_given_out_as_soon_as_its_empty_line_begins(body, places):
    decoder, seen, fed = SSEDecoder(), 0, b""
    for piece in cut(body, places):
        seen += len(decoder.feed(piece))
        fed += piece
        assert seen == len(interpret(fed))
    assert decoder.bytes_fed == len(body)


@given(BODIES, BODIES, CUTS)
def test_after_flush_a_new_body_begins_and_only_the_id_stays(first, second, places):
    decoder = SSEDecoder()
    decoder.feed(first)
    decoder.flush()
    last = decoder.last_event_id
    events = [e for piece in cut(second, places) for e in decoder.feed(piece)]
    expected = interpret(second)
    assert [(e.event, e.data, e.retry) for e in events] == [(t, d, r) for t, d, _, r in expected]
    for got, (_, _, own_id, _) in zip(events, expected, strict=True):
        assert got.id == (last if own_id is None else own_id)


@given(BODIES)
def test_at_boundary_means_that_a_fresh_decoder_would_go_on_the_same(body):
    decoder = SSEDecoder()
    decoder.feed(body)
    if decoder.at_boundary:
        after = b"\ndata: z\n\n"
        assert [e.data for e in decoder.feed(after)] == ["z"]
        assert interpret(body + after)[-1][:2] == ("message", "z")
        assert [r for *_, r in interpret(body + after)][-1] is None


@pytest.mark.parametrize(
    "unfinished",
    [
        b"d",
        b"data: a\n",
        b"id: 5\n",
        b"retry: 5\n",
        b"event: x\n",
        b"foo\n",
        b"data: a\n\n\r",
        BOM[:1],
    ],
)
def test_at_boundary_is_false_inside_a_block(unfinished):
    decoder = SSEDecoder()
    decoder.feed(unfinished)
    assert not decoder.at_boundary
    decoder.flush()
    decoder.feed(b"data: a\n\n")
    assert decoder.at_boundary


def test_an_id_of_an_unfinished_block_is_not_the_last_event_id():
    decoder = SSEDecoder()
    decoder.feed(b"id: 1\n\nid: 2\ndata: lost\n")
    assert decoder.last_event_id == "1"
    decoder.flush()
    assert decoder.feed(b"data: a\n\n") == [ServerSentEvent("message", "a", "1", None)]


# -- what may be fed -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_bytes_like_objects(kind):
    decoder = SSEDecoder()
    data = kind(b"data: a\n\ndata: ")
    assert [e.data for e in decoder.feed(data)] == ["a"]
    if kind is bytearray:
        data[:] = b"changed"  # what was fed is not ours to watch
    assert [e.data for e in decoder.feed(b"b\n\n")] == ["b"]


@pytest.mark.parametrize("wrong", ["data: a\n\n", 5, None, [100, 97], 1.5])
def test_what_is_no_bytes_is_refused(wrong):
    with pytest.raises(TypeError):
        SSEDecoder().feed(wrong)


@pytest.mark.parametrize("wrong", [0, -1, 1.5, "1", None, True])
def test_the_cap_is_checked(wrong):
    with pytest.raises(ConfigurationError, match="max_event_bytes"):
        SSEDecoder(max_event_bytes=wrong)


def test_events_are_frozen_values():
    event = ServerSentEvent("x", "y", "1", 2)
    assert event == ServerSentEvent(event="x", data="y", id="1", retry=2)
    assert ServerSentEvent() == ServerSentEvent("message", "", None, None)
    with pytest.raises(AttributeError):
        event.data = "z"
    assert msgspec.structs.astuple(event) == ("x", "y", "1", 2)


# -- the cap ---------------------------------------------------------------------------------------


def outcome(pieces, cap):
    """Return (events, whether the cap was reached) of a body, fed on until the failure shows."""
    decoder = SSEDecoder(max_event_bytes=cap)
    events = []
    try:
        for piece in pieces:
            events += decoder.feed(piece)
        events += decoder.flush()
    except ResponseDecodeError:
        return [(e.event, e.data, e.id, e.retry) for e in events], True
    return [(e.event, e.data, e.id, e.retry) for e in events], False


@given(st.one_of(BODIES, FIELDS), CUTS, st.integers(1, 40))
@example(b": a comment\n", [], 5)
@example(b"data: abcdef\n\n", [], 11)
def test_whether_the_cap_is_reached_does_not_depend_on_the_cuts(body, places, cap):
    events, failed = outcome([body], cap)
    assert outcome(cut(body, places), cap) == (events, failed)
    assert outcome([body[i : i + 1] for i in range(len(body))], cap) == (events, failed)
    assert events == interpret(body)[: len(events)]
    assert failed or events == interpret(body)


def test_events_completed_before_the_failure_are_not_lost():
    decoder = SSEDecoder(max_event_bytes=20)
    events = decoder.feed(b"data: a\n\ndata: b\n\ndata: " + b"x" * 50 + b"\n\ndata: c\n\n")
    assert [e.data for e in events] == ["a", "b"]
    for _ in range(3):  # and the failure does not go away
        with pytest.raises(ResponseDecodeError) as caught:
            decoder.feed(b"data: d\n\n")
    assert caught.value.offset
    assert not decoder.at_boundary
    with pytest.raises(ResponseDecodeError):
        decoder.flush()
    assert [e.data for e in decoder.feed(b"data: e\n\n")] == ["e"]  # a new body


@pytest.mark.parametrize(
    "piece",
    [b"x", b"data: x\n", b"data\n", b"id: 5\n", b"event: x\n", b"retry: 5\n", b"foo: bar\n", b":"],
    ids=repr,
)
def test_endless_events_fail_in_bounded_memory(piece):
    decoder = SSEDecoder(max_event_bytes=1000)
    with pytest.raises(ResponseDecodeError, match="1000 bytes") as caught:
        for _ in range(2000):
            assert decoder.feed(piece) == []
    assert len(caught.value.body) <= 4096
    assert decoder.bytes_fed <= 1300  # line ends do not count
    assert not decoder._line
    assert not decoder._data


def test_endless_comments_and_events_never_fail():
    decoder = SSEDecoder(max_event_bytes=30)
    for _ in range(1000):
        assert decoder.feed(b": keep-alive\n") == []
        assert [e.data for e in decoder.feed(b"data: x\n\n")] == ["x"]
    assert decoder.feed(b"data: a\n") == []
    for _ in range(100):  # inside of a block, too
        assert decoder.feed(b": keep-alive\n") == []
    assert [e.data for e in decoder.feed(b"\n")] == ["a"]


def test_the_message_of_the_failure_does_not_show_the_payload():
    with pytest.raises(ResponseDecodeError) as caught:
        SSEDecoder(max_event_bytes=10).feed(b"data: secret-text")
    assert "secret" not in str(caught.value)
    assert caught.value.body == b"data: secret-text"


def test_an_event_of_the_default_cap():
    data = b"x" * (MAX_EVENT_BYTES - 6)
    pieces = [data[i : i + 65536] for i in range(0, len(data), 65536)]
    assert len(run([b"data: ", *pieces, b"\n\n"])[0][1]) == len(data)
    with pytest.raises(ResponseDecodeError):
        run([b"data: ", *pieces, b"x\n\n"])


def test_the_work_for_a_long_line_is_linear():
    # A decoder that joins what it has at every read would hold one piece; ours holds all of them
    # until the line ends, so that each byte is copied a fixed number of times.
    decoder = SSEDecoder()
    decoder.feed(b"data: ")
    for _ in range(1000):
        decoder.feed(b"x" * 10)
    assert len(decoder._line) == 1001
    assert decoder.feed(b"\n") == []
    assert decoder._line == []
    assert len(decoder._data) == 1


# -- encoding --------------------------------------------------------------------------------------

NO_BREAK = st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=20)
EVENTS = st.builds(
    ServerSentEvent,
    NO_BREAK.filter(bool),
    st.text(st.characters(codec="utf-8"), max_size=40),
    st.none() | NO_BREAK.filter(lambda text: "\0" not in text),
    st.none() | st.integers(0, 10**20),
)


@given(st.lists(EVENTS, max_size=5), CUTS)
def test_encoding_and_decoding_give_the_events_back(events, places):
    body = b"".join(map(encode_event, events))
    last, expected = None, []
    for event in events:
        last = last if event.id is None else event.id
        data = event.data.replace("\r\n", "\n").replace("\r", "\n")
        expected.append((event.event, data, last, event.retry))
    assert run(cut(body, places)) == interpret(body) == expected


@pytest.mark.parametrize(
    "data", ["a\nid: 9", "a\r\rdata: b", "a\n\nevent: error\ndata: b", "\n\n", "\r\n", ":", " "]
)
def test_data_cannot_inject_a_field(data):
    [event] = SSEDecoder().feed(encode_event(ServerSentEvent(data=data)))
    assert (event.event, event.id, event.retry) == ("message", None, None)
    assert event.data == data.replace("\r\n", "\n").replace("\r", "\n")


@pytest.mark.parametrize(
    "event",
    [
        ServerSentEvent(event="a\nb"),
        ServerSentEvent(event="a\rdata: x"),
        ServerSentEvent(id="1\n"),
        ServerSentEvent(id="1\r"),
        ServerSentEvent(id="1\0"),
        ServerSentEvent(retry=-1),
        ServerSentEvent(data="\ud800"),
        ServerSentEvent(event="\udfff"),
    ],
)
def test_what_cannot_be_encoded_is_refused(event):
    with pytest.raises(ConfigurationError):
        encode_event(event)


def test_frames_look_as_expected():
    assert encode_event(ServerSentEvent(data="a")) == b"data: a\n\n"
    full = ServerSentEvent("x", "a\nb", "7", 1000)
    assert encode_event(full) == b"event: x\nid: 7\nretry: 1000\ndata: a\ndata: b\n\n"


def test_the_examples_of_the_docstrings_are_true():
    assert doctest.testmod(konko_async.sse).failed == 0


def test_words_that_are_cut_are_shown_and_json_that_is_cut_is_not():
    for body, events in (
        (b"data: Internal error, sorry", [b"Internal error, sorry"]),
        (b'data: {"a": 1}', [b'{"a": 1}']),
        (b'data: {"a": ', []),
    ):
        decoder = LooseSSEDecoder()
        assert decoder.feed(body) + decoder.finish() == events


def test_an_error_event_without_words_is_an_error():
    decoder = LooseSSEDecoder()
    assert decoder.feed(b"event: error\n\n") == [NamedEvent("error", b"")]


def test_a_block_of_many_lines_is_bounded_too():
    decoder = LooseSSEDecoder(max_event_bytes=100)
    with pytest.raises(ResponseDecodeError):
        decoder.feed(b"data: a\ndata: b\n" * 20)
        decoder.finish()


def test_a_retry_of_too_many_digits_says_nothing():
    decoder = SSEDecoder()
    [event] = decoder.feed(b"retry: " + b"9" * 5000 + b"\ndata: a\n\n")
    assert event.retry is None
