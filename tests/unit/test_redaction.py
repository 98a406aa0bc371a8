"""What is masked of a server's words: secrets in any spelling, and nothing else."""

import base64
import gc
import html
import json
import urllib.parse

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from multidict import CIMultiDict

from konko_async import APIStatusError, ResponseDecodeError
from konko_async._core.redaction import (
    NOTHING_SECRET,
    REDACTED,
    Redactor,
    SecretsInUse,
    looks_secret,
    secrets_in,
    shown_url,
)

KEY = "sk-canary+A/b=0123456789&xyz"
SHORT = "ab12cd34"

SECRETS = [
    "sk-proj-4fA9", "sk-A/B", "sk_live_51H8", "hf_AbCdEf", "gsk_abc123", "AIzaSyA1", "eyJhbGciOi",
    "5f4dcc3b5aa765d6", "correcthorsebattery", "CANARY_KEY_DO_NOT_LEAK", "tok-SECONDcanary",
    "no secret at all but very long indeed".replace(" ", "-"),
]  # fmt: skip
DUMMIES = [
    "1", "null", "none", "x", "token", "ollama", "EMPTY", "dummy", "not-needed", "lm-studio",
    "sk-no-key-required", "sk-xxxx", "sk-A1", "AIzabc", "eyJabc", "placeholder", "no-key-required", "xxxxxxxxxxxxxxx1", "",
]  # fmt: skip


@pytest.mark.parametrize("value", SECRETS)
def test_a_key_looks_secret_and_is_masked(value):
    assert looks_secret(value)
    assert Redactor([value]).text(f"bad key {value}.") == f"bad key {REDACTED}."


@pytest.mark.parametrize("value", DUMMIES)
def test_a_dummy_key_is_left_in_the_words_around_it(value):
    assert not looks_secret(value)
    text = f"1 token of ollama is null, none, x: {value}"
    assert Redactor([value]).text(text) == text


def escaped(text, form):
    return "".join(form % ord(character) for character in text)


SPELLINGS = {
    "as it is": lambda key: key,
    "as JSON": lambda key: json.dumps(key)[1:-1],
    "slashes escaped": lambda key: key.replace("/", "\\/"),
    "JSON escapes": lambda key: escaped(key, "\\u%04x"),
    "JSON escapes in capitals": lambda key: escaped(key, "\\u%04X"),
    "JSON in JSON": lambda key: escaped(key, "\\\\u%04x"),
    "one escape": lambda key: f"\\u{ord(key[0]):04x}{key[1:]}",
    "in a URL": lambda key: urllib.parse.quote(key, safe=""),
    "in a URL in a URL": lambda key: urllib.parse.quote(urllib.parse.quote(key, safe=""), safe=""),
    "in HTML": html.escape,
    "as references": lambda key: escaped(key, "&#%d;"),
    "as hexadecimal references": lambda key: escaped(key, "&#x%x;"),
    "in repr()": lambda key: escaped(key, "\\x%02x"),
}
AROUND = [("", ""), ("key: ", "."), ('"', '"'), ("\\n", "\\n"), ("%20", "%20"), ("api_key_", "_")]


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("around", AROUND)
@pytest.mark.parametrize("key", [KEY, SHORT])
def test_it_is_found_in_any_spelling(spelling, around, key):
    before, after = around
    assert Redactor([key]).text(before + SPELLINGS[spelling](key) + after) == (
        before + REDACTED + after
    )


def test_a_short_one_is_masked_in_whole_words_only():
    redactor = Redactor([SHORT])
    for text in (f"x{SHORT}", f"{SHORT}5", f"0{SHORT}0", f"{SHORT}5."):
        assert redactor.text(text) == text
    assert Redactor([KEY]).text(f"x{KEY}x") == f"x{REDACTED}x"  # no word is so long


@given(st.integers(0, len(KEY)))
def test_a_text_that_is_cut_within_a_key_shows_at_most_half_of_it(length):
    text = Redactor([KEY]).text(f"the key {KEY[:length]}")
    assert text == f"the key {REDACTED}" or (text.endswith(KEY[:length]) and length <= 14)


def test_another_key_that_begins_like_it_is_another():
    other = KEY[:20] + "0000"
    assert Redactor([KEY]).text(other) == other


def test_the_longer_of_two_is_masked_first():
    assert Redactor(["tok-A1b2", "tok-A1b2-C3d4"]).text("tok-A1b2-C3d4") == REDACTED


TEXTS = st.text(st.sampled_from('ab12-/\\u%&;: "sk')) | st.just(KEY) | st.just(SHORT)
JSON = st.recursive(
    TEXTS | st.none() | st.booleans() | st.integers(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=10,
)


@given(JSON)
@example({KEY: [{"a": f"x {KEY}"}, SHORT, 1]})
def test_of_json_all_texts_are_masked_and_the_rest_stays(value):
    masked = Redactor([KEY, SHORT]).value(value)
    assert KEY not in json.dumps(masked)
    assert Redactor([KEY, SHORT]).value(masked) == masked
    assert NOTHING_SECRET.value(value) == value
    if KEY not in json.dumps(value) and SHORT not in json.dumps(value):
        assert masked == value


def test_json_that_is_nested_without_end_is_bounded():
    value = KEY
    for _ in range(900):
        value = [value]
    assert KEY not in repr(Redactor([KEY]).value(value))


def test_bytes_that_are_no_utf_8_stay_as_they_are_around_it():
    body = b"\xff\xfe " + KEY.encode() + b" \x80"
    assert Redactor([KEY]).value(body) == b"\xff\xfe <redacted> \x80"


def test_credentials_in_headers_are_known_and_other_values_are_not():
    headers = {
        "Authorization": "Bearer tok-A1b2C3",
        "Cookie": "theme=dark; session=5f4dcc3b5aa765d6",
        "X-Anything": "Q1w2E3r4T5",
        "OpenAI-Organization": "org-A1b2C3d4E5",
        "X-Request-Id": "5f4dcc3b-5aa7-65d6",
        "User-Agent": "MyApp/2.0.1",
        "X-Short": "on",
        "X-Number": 12345678901234567890,
    }
    found = set(secrets_in(headers))
    assert {"tok-A1b2C3", "5f4dcc3b5aa765d6", "Q1w2E3r4T5"} <= found
    assert not {"Bearer", "dark", "on", "org-A1b2C3d4E5", "5f4dcc3b-5aa7-65d6"} & found
    assert "MyApp/2.0.1" not in found


def test_of_an_error_all_is_masked_but_the_answer():
    error = APIStatusError(
        f"HTTP 401: {KEY}",
        status_code=401,
        headers={"x-echo": f"Bearer {KEY}"},
        body={"error": {"message": KEY}},
        code=KEY,
        type="invalid_api_key",
        request_id=KEY,
    )
    error.add_note(f"tried with {KEY}")
    error.partial = [KEY]
    try:
        raise error
    except APIStatusError as raised:
        masked = Redactor([KEY]).error(raised)
    assert masked is error
    assert error.__traceback__ is None  # whose frames have seen what was sent
    assert error.partial == [KEY]
    error.partial = None
    assert KEY not in f"{error!r} {error} {vars(error)} {error.__reduce__()}"
    assert (error.status_code, error.type) == (401, "invalid_api_key")
    broken = Redactor([KEY]).error(ResponseDecodeError("no JSON", body=KEY.encode(), offset=3))
    assert (broken.body, broken.offset) == (b"<redacted>", 3)


def test_it_shows_no_secret_itself():
    redactor = Redactor([KEY])
    redactor.text(KEY)
    assert KEY not in f"{redactor!r} {redactor}"


def test_long_texts_take_linear_time():
    text = "\\u0073k-canary%2BA " * 4000
    assert Redactor([KEY]).text(text) == text


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32"])
def test_it_is_found_in_text_that_was_read_in_a_wrong_encoding(encoding):
    words = f"bad key {KEY}."
    data = words.encode(encoding)
    redactor = Redactor([KEY])
    assert redactor.value(data).endswith(b"bad key <redacted>.")
    assert redactor.text(data.decode("latin-1")).endswith("bad key <redacted>.")
    for other in ("bad\0key", "sk-can\0other"):
        assert redactor.text(other) == other, "what holds no secret stays as it is"


def test_the_password_of_a_basic_login_is_a_secret():
    encoded = base64.b64encode(b"user:passwordX9:123zz").decode()
    assert "passwordX9:123zz" in secrets_in({"Authorization": f"Basic {encoded}"})
    assert "passwordX9:123zz" in secrets_in({"x-login": f"basic {encoded}"})
    assert secrets_in({"authorization": f"Bearer {encoded}"}) == [encoded]
    for broken in ("Basic", "Basic ", "Basic %%%", "Basic /w==", "Basic dXNlcg=="):
        assert "user" not in secrets_in({"authorization": broken})


def test_what_all_owners_know_is_masked_while_they_are_there():
    class Owner:
        pass

    known, one, two = SecretsInUse(), Owner(), Owner()
    assert known.redactor.text(KEY) == KEY
    known.put(one, [KEY])
    known.put(two, ["sk-two-0123456789ab"])
    assert known.redactor.text(f"{KEY}, sk-two-0123456789ab") == f"{REDACTED}, {REDACTED}"
    known.put(one, ["sk-new-0123456789ab"])
    assert known.redactor.text(f"{KEY}, sk-new-0123456789ab") == f"{KEY}, {REDACTED}"
    del two
    gc.collect()
    known.put(one, [])
    assert known.redactor.text("sk-two-0123456789ab") == "sk-two-0123456789ab"


def test_more_secrets_are_masked_beside_those_that_are_known():
    known = Redactor([KEY])
    assert known.plus(["none", "token"]) is known
    more = known.plus(["none", "sk-two-0123456789ab"])
    assert more.text(f"{KEY}, sk-two-0123456789ab, none") == f"{REDACTED}, {REDACTED}, none"
    assert known.text("sk-two-0123456789ab") == "sk-two-0123456789ab"


def test_a_secret_within_a_longer_one_leaves_none_of_the_longer():
    inner, outer = "zz-Abc12345", "a1B2-zz-Abc12345-c3D4"
    for order in ((inner, outer), (outer, inner)):
        assert Redactor(order).text(f"{outer}; {inner}") == f"{REDACTED}; {REDACTED}"


@pytest.mark.parametrize("wrap", [lambda value: [value], lambda value: {"a": value}])
def test_what_is_nested_deeper_than_any_json_is_left_out(wrap):
    for depth, shown in ((101, "word"), (102, REDACTED)):
        value = "word"
        for _ in range(depth):
            value = wrap(value)
        found = Redactor([KEY]).value(value)
        while isinstance(found, (list, dict)):
            found = found["a"] if isinstance(found, dict) else found[0]
        assert found == shown, depth


def test_headers_that_stand_several_times_stay_so():
    given = CIMultiDict([("Set-Cookie", f"a={KEY}"), ("set-cookie", "b=1"), ("X", "y")])
    shown = Redactor([KEY]).headers(given)
    assert list(shown.items()) == [
        ("Set-Cookie", f"a={REDACTED}"),
        ("set-cookie", "b=1"),
        ("X", "y"),
    ]
    assert KEY in given["set-cookie"]
    assert Redactor([KEY]).headers({"X": "y"}) == {"X": "y"}


def test_addresses_are_shown_without_what_opens_them():
    for url, shown in (
        (
            "https://h.example:8443/v1/acct-5f4dcc3b5aa7/x",
            "https://h.example:8443/v1/acct-5f4dcc3b5aa7/x",
        ),
        ("https://u:p@h.example/v1/sk-proj-4fA9xyz/x?q=1#f", f"https://h.example/v1/{REDACTED}/x"),
    ):
        assert shown_url(url) == shown
