"""Keys do not show themselves."""

import copy
import hashlib
import io
import json
import logging
import pickle
import traceback

import msgspec
import pytest

from konko_async import AsyncKonko, ConfigurationError
from konko_async._core.config import Settings, check_headers, resolve
from konko_async._core.secret import Secret, check_header_value, masked
from konko_async.wire._codec import encode

CANARY = "sk-canary-4711"


def shown_by_traceback(error):
    """Return what a logger that prints local variables would show of an exception."""
    whole = traceback.TracebackException.from_exception(error, capture_locals=True)
    # The frames of this test know the key, and so do those that `make mutants` puts in between.
    kept = (f for f in whole.stack if f.filename != __file__ and "mutmut" not in f.filename)
    whole.stack = traceback.StackSummary.from_list(kept)
    return "".join(whole.format())


@pytest.mark.parametrize(
    "show",
    [
        repr,
        str,
        format,
        "{0}".format,
        "{0!r:>80}".format,
        "{0:>80}".format,
        "{0!s}".format,
        lambda s: "%s %r" % (s, s),  # noqa: UP031 - as loggers do
        lambda s: repr([s, {"k": s}, (s,)]),
        lambda s: repr(Settings(base_url="https://a", api_key=s)),
        lambda s: repr(s._value),
        lambda s: repr(s.header("Bearer ")),
        lambda s: repr({"Authorization": s.header("Bearer ")}),
        lambda s: repr(s.__getstate__()),
    ],
)
def test_no_way_of_showing_it_shows_it(show):
    text = show(Secret(CANARY))
    assert "canary" not in text
    assert "redacted" in text


@pytest.mark.parametrize("way", [pickle.dumps, copy.copy, copy.deepcopy, json.dumps, msgspec.json.encode,
                                 msgspec.to_builtins, lambda s: pickle.dumps(s, 0)])  # fmt: skip
def test_no_way_of_carrying_it_off(way):
    with pytest.raises(TypeError) as caught:
        way(Secret(CANARY))
    assert "canary" not in str(caught.value)
    with pytest.raises((TypeError, ConfigurationError)):
        encode({"key": Secret(CANARY)})


def test_it_is_a_header():
    secret = Secret(f"  {CANARY} ")
    assert secret.header() == CANARY
    assert secret.header("Bearer ") == f"Bearer {CANARY}"
    assert secret.header("Bearer ").encode() == f"Bearer {CANARY}".encode()
    assert not hasattr(secret, "__dict__")


def test_the_fingerprint_tells_keys_apart_and_is_no_key():
    secret = Secret(CANARY)
    assert secret.fingerprint == hashlib.blake2b(CANARY.encode(), digest_size=4).hexdigest()
    assert secret.fingerprint != Secret("other").fingerprint
    assert len(secret.fingerprint) == 8


@pytest.mark.parametrize("wrong", [f"{CANARY}\r\nX-Evil: 1", f"{CANARY}\n", f"\r{CANARY}", f"{CANARY}\0",
                                   f"{CANARY}\x1b", f"{CANARY}\x7f", f"{CANARY}\u20ac", f"{CANARY}\ud800"])  # fmt: skip
def test_what_no_header_can_carry_is_refused_and_not_echoed(wrong):
    for call in (
        lambda: Secret(wrong),
        lambda: check_header_value("the header", wrong),
        lambda: check_headers({"X-Key": wrong}),
        lambda: resolve(api_key=wrong, base_url=None, openai_api_key=None, default_headers=None, allow_http=False),
    ):  # fmt: skip
        with pytest.raises(ConfigurationError) as caught:
            call()
        assert "canary" not in shown_by_traceback(caught.value)
        assert caught.value.__context__ is None


@pytest.mark.parametrize("wrong", ["", "   ", "\t"])
def test_an_empty_key_is_refused(wrong):
    with pytest.raises(ConfigurationError, match="is empty"):
        Secret(wrong)


@pytest.mark.parametrize("wrong", [None, 5, b"key", ["key"]])
def test_a_key_is_text(wrong):
    with pytest.raises(ConfigurationError, match="must be a string"):
        Secret(wrong)


def test_a_traceback_with_locals_shows_no_key(monkeypatch):
    monkeypatch.setenv("KONKO_API_KEY", CANARY)
    monkeypatch.setenv("OPENAI_API_KEY", CANARY)
    for given in (
        {"api_key": CANARY, "openai_api_key": CANARY},
        {"api_key": None, "openai_api_key": None},
    ):
        with pytest.raises(ConfigurationError) as caught:
            resolve(base_url="https://api.konko.ai", default_headers={"X-A": f"{CANARY}\n"}, allow_http=False, **given)  # fmt: skip
        assert "canary" not in shown_by_traceback(caught.value)


def test_header_values_are_redacted_too():
    headers = check_headers({"api-key": CANARY})
    assert headers == {"api-key": CANARY}
    assert "canary" not in repr(headers)


def test_a_log_record_shows_no_key():
    stream = io.StringIO()
    values = (Secret(CANARY), Secret(CANARY), [masked(CANARY)])
    record = logging.LogRecord("test", logging.ERROR, "", 1, "%s %r %s", values, None)
    logging.StreamHandler(stream).handle(record)
    assert "redacted" in stream.getvalue()
    assert "canary" not in stream.getvalue()


def test_masked():
    assert masked(CANARY) == CANARY
    assert repr(masked(CANARY)) == "'<redacted>'"
    assert masked(None) is None
    assert hash(masked("a")) == hash("a")


@pytest.mark.parametrize(
    "wrong",
    [
        {"api_key": f"{CANARY}\n"},
        {"api_key": CANARY, "base_url": "nowhere"},
        {"api_key": CANARY, "timeout": -1},
        {"api_key": "k", "openai_api_key": f"{CANARY}\0"},
        {"api_key": "k", "default_headers": {"X-Key": f"{CANARY}\r"}},
        {"api_key": "k", "default_headers": {"X-Key": CANARY}, "max_body_bytes": 0},
        {"base_url": CANARY, "api_key": "https://api.konko.ai"},
    ],
)
def test_a_client_that_cannot_be_made_shows_no_key(wrong):
    with pytest.raises(ConfigurationError) as caught:
        AsyncKonko(**wrong)
    shown = shown_by_traceback(caught.value)
    if "base_url" not in wrong or wrong["base_url"] != CANARY:
        assert "canary" not in shown
    assert "canary" not in str(caught.value)
    assert "<AsyncKonko not made>" in shown


def test_what_is_shown_instead_and_the_last_character_of_latin_1():
    secret = Secret(CANARY)
    assert repr(secret) == str(secret) == "Secret('<redacted>')"
    assert f"{secret:>30}" == "Secret('<redacted>')".rjust(30)
    assert check_header_value("x", "\u00ff \t") == "\u00ff \t"
    for value, what in (
        ("", "is empty"),
        ("a\nb", "holds a control character"),
        ("\u0100", "holds a character that HTTP headers cannot carry, at 0"),
    ):
        with pytest.raises(ConfigurationError, match=f"^the API key {what}"):
            Secret(value)
        with pytest.raises(ConfigurationError, match=f"^my key {what}"):
            Secret(value, name="my key")
