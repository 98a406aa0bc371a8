"""Splits text into tokens and generates replies: pure functions of their arguments.

A token is optional white space and then up to eight word characters, or one other character;
what white space is left at the end is one token too. The tokens of a text, joined, are the text.
"""

import re
from hashlib import blake2b
from typing import Any, Final

import msgspec

_TOKEN: Final = re.compile(r"\s*\w{1,8}|\s*[^\w\s]|\s+")
# 256 words of at most eight letters, so that a byte of a digest picks one, and each is a token.
WORDS: Final[tuple[str, ...]] = tuple(
    """
    amber anchor apple arch arrow aspen atlas autumn badge bamboo banner barley basil basin beacon
    birch blanket blossom border bottle branch brass breeze brick bridge bronze brook bucket
    button cabin cable camel candle canoe canvas canyon carbon cargo carpet castle cedar chalk
    channel cherry circle citrus clay cliff clock cloud clover coast cobalt comet compass copper
    coral corner cotton cradle crane creek crown crystal curtain cypress dawn delta desert diamond
    dolphin dragon drift dune dust eagle echo ember emerald engine fabric falcon feather fern
    field flame flint flute forest fossil fountain fox frost galaxy garden garnet gate ginger
    glacier glass globe gold granite grape grass gravel grove hammer harbor harvest hazel heron
    hill honey horizon hound ice indigo iris iron island ivory jacket jade jasmine jewel jungle
    juniper kettle kite ladder lagoon lake lantern larch laurel lava leaf lemon lens light lilac
    linen lion lotus lunar maple marble market marsh meadow melon mercury meteor mint mirror mist
    moon moss mountain needle nest nickel night noon north nutmeg oak oasis ocean olive onyx opal
    orbit orchard orchid otter owl paper path pearl pebble pepper petal pine planet plum pocket
    pond poplar prairie prism quarry quartz quill rain raven reed reef ribbon ridge river robin
    rocket rose ruby saddle saffron sage sail salt sand sapphire satin shadow shell shore silk
    silver sky slate smoke snow spark spice spring spruce star steel stone storm stream summer sun
    swan sycamore table tailor temple thistle thunder tiger timber topaz tower trail tulip turtle
    valley velvet violet walnut water wheat willow winter
    """.split()  # noqa: SIM905 - a list would take 256 lines
)
_SENTENCE: Final = 8
_SHORTEST, _SPREAD = 16, 49
_ECHOED: Final = 8
_encode = msgspec.json.Encoder().encode


def tokenize(text: str) -> list[str]:
    """The tokens of a text; joined, they are the text again."""
    return _TOKEN.findall(text)


def count_tokens(text: str) -> int:
    """The number of tokens of a text."""
    return len(_TOKEN.findall(text))


def digest(*parts: Any) -> bytes:
    """64 bytes that depend on these JSON values, and on nothing else."""
    return blake2b(_encode(parts)).digest()


def reply_tokens(question: str, seed: bytes, index: int, length: int | None) -> list[str]:
    """A deterministic reply: the first tokens of the question, and then words that `seed` picks.

    Args:
        question: What is answered; at most eight tokens of its first line are repeated.
        seed: 64 bytes, from `digest()`.
        index: The number of the choice; up to 256 of them differ from the first token on.
        length: The exact number of tokens; `None` for 16 to 64 of them, as `seed` has it.

    Returns:
        The tokens, which are the ones `tokenize()` finds in their text.
    """
    picked = digest(seed.hex(), index)
    if length is None:
        length = _SHORTEST + picked[0] % _SPREAD
    # Cut first: only the beginning is repeated, and a prompt may have a million characters.
    lines = question[:400].strip().splitlines()
    # The first word differs with the choice, so that a test that confuses choices fails at once.
    tokens = [_MIDDLE[(seed[0] + index) % 256].strip().capitalize(), " answers"]
    if lines:
        tokens += [' "', *tokenize(lines[0].strip())[:_ECHOED], '"']
    tokens.append(":")
    missing = length - len(tokens)
    if missing > 0:
        tokens += _sentences(picked, missing)
    return tokens[:length]


def _sentences(picked: bytes, length: int) -> list[str]:
    """This many tokens of sentences, the last of them a full stop."""
    block = picked
    # A digest has 64 bytes; a chain of them gives any length, from the same seed.
    while len(picked) < length:
        block = blake2b(block).digest()
        picked += block
    tokens = [_MIDDLE[byte] for byte in picked[:length]]
    tokens[0] = _FIRST[picked[0]]
    # Up to `length - 2`: the last token is a full stop, and two in a row would not be a sentence's
    # end.
    for stop in range(_SENTENCE, length - 2, _SENTENCE + 1):
        tokens[stop] = "."
        tokens[stop + 1] = _FIRST[picked[stop + 1]]
    tokens[-1] = "."
    return tokens


# The space belongs to the token, as in the vocabularies of real models.
_MIDDLE: Final = tuple(" " + word for word in WORDS)
_FIRST: Final = tuple(" " + word.capitalize() for word in WORDS)


def cut_tokens(tokens: list[str], characters: int) -> list[str]:
    """The tokens of the first `characters` characters; the last of them may be cut short."""
    kept: list[str] = []
    for token in tokens:
        if characters <= 0:
            break
        kept.append(token[:characters])
        characters -= len(token)
    return kept


def limit_tokens(
    tokens: list[str], stop: list[str], max_tokens: int | None
) -> tuple[list[str], str]:
    """Apply `stop` and `max_tokens` to an answer; returns what is left and the finish_reason.

    Args:
        tokens: The whole answer.
        stop: The strings before the first of which it ends.
        max_tokens: The most tokens that may be given; `None` for any number.

    Returns:
        The tokens given, and `"stop"` or `"length"`.
    """
    reason = "stop"
    if max_tokens is not None and len(tokens) > max_tokens:
        tokens, reason = tokens[:max_tokens], "length"
    if stop:
        text = "".join(tokens)
        # After the limit: a stop string that `max_tokens` has cut off was never generated.
        found = [at for at in map(text.find, stop) if at >= 0]
        if found:
            return cut_tokens(tokens, min(found)), "stop"
    return tokens, reason


def pieces(tokens: list[str], size: int) -> list[str]:
    """The tokens in groups of `size`, each group joined: one for each delta of a stream."""
    if size == 1:
        return tokens
    return ["".join(tokens[at : at + size]) for at in range(0, len(tokens), size)]
