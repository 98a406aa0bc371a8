"""Patterns as they are sent: anchored, without classes of Python's, and never wider in meaning."""

import random
import re

import pytest

from konko_async._structured.portable_pattern import portable_pattern


@pytest.mark.parametrize(
    ("pattern", "sent"),
    [
        (r"^\d{4}-\d{2}$", "^[0-9]{4}-[0-9]{2}$"), ("[a-z]+", "^.*[a-z]+.*$"), ("^a", "^a.*$"),
        (r"^[\w-]+$", r"^[A-Za-z0-9_\-]+$"), ("a$", "^.*a$"), ("^[A-Z]{2}$", "^[A-Z]{2}$"),
        (r"\Aa\Z", "^a$"), ("^a|b$", "^(a.*|.*b)$"), ("^(?:a|b)+?$", "^[ab]+$"), ("^(?:ab)+?$", "^(ab)+$"),
        ("^(?P<x>ab|c)$", "^(ab|c)$"), (r"^\W\D\S$", r"^[^A-Za-z0-9_][^0-9][^ \t\n\r]$"),
        (r"^[^\d]$", "^[^0-9]$"), (r"^[^\s,]$", r"^[^ \t\n\r,]$"), ("^[^a]*$", "^[^a]*$"),
        (r"^\x41\u00e9\n$", r"^Aé\n$"), ("^a{,3}b{2,}$", "^a{0,3}b{2,}$"), ("^a{x}$", r"^a\{x\}$"),
        (r"^[]a]\.$", r"^[\]a]\.$"), ("", "^.*.*$"), ("^(ab){3}$", "^(ab){3}$"),
        ("^.{1,5}$", "^.{1,5}$"), (r"^[\n\t]$", r"^[\n\t]$"),
    ],
)  # fmt: skip
def test_what_is_sent(pattern, sent):
    assert portable_pattern(pattern) == sent


@pytest.mark.parametrize(
    "pattern",
    ["^(?!x)a$", "(?<=a)b", "(?i)a", "^(?i:a)$", r"(a)\1", r"\ba", "a^b", "^a$b", r"[^\D\W]", r"[\Wa]",
 "^[\x00a]$", "^[\u200b]$", "^a++$", "^a{5000}$", "\x00", "("],
)  # fmt: skip
def test_what_has_no_such_form(pattern):
    assert portable_pattern(pattern) is None


def drawn(rng, depth=0):
    """Draw a pattern."""
    atoms = [
        "a",
        "b",
        "1",
        "-",
        r"\.",
        r"\d",
        r"\w",
        r"\s",
        "[ab]",
        "[^a]",
        r"[\d-]",
        ".",
        r"\D",
        r"\W",
    ]
    if depth < 3:
        atoms += [f"({drawn(rng, depth + 1)})", f"(?:{drawn(rng, depth + 1)})"] * 2
    parts = [
        rng.choice(atoms) + rng.choice(["", "", "", "*", "+", "?", "{1,2}", "{2}", "*?", "{,2}"])
        for _ in range(rng.randrange(1, 4))
    ]
    text = "".join(parts)
    return f"{text}|{rng.choice(atoms)}" if rng.random() < 0.2 else text


def test_it_never_matches_what_the_pattern_does_not():
    rng = random.Random(1)
    signs = ["a", "b", "1", "-", ".", " ", "é", "_", "Z"]
    texts = ["".join(rng.choices(signs, k=rng.randrange(6))) for _ in range(60)]
    compared = matched = 0
    for _ in range(600):
        pattern = f"{rng.choice(['', '^'])}{drawn(rng)}{rng.choice(['', '$'])}"
        sent = portable_pattern(pattern)
        if sent is None:
            continue
        assert not re.search(r"\\[dwsDWSbB]|\(\?", sent)
        for text in texts:
            compared += 1
            # In ASCII the two mean the same: what is sent knows no other letters and digits.
            wide, narrow = re.search(pattern, text, re.ASCII), re.search(sent, text)
            matched += narrow is not None
            assert bool(wide) == bool(narrow), (pattern, sent, text)
    assert compared > 20_000
    assert matched > 1000
