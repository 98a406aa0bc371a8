"""Computes deterministic embeddings: texts that share words are near each other."""

import array
import base64
import math
import re
import sys
from hashlib import blake2b
from typing import Any, Final

_WORD: Final = re.compile(r"\w+")
_TIMES: Final = 8
DIMENSIONS: Final = 384


def embed(text: str, dimensions: int) -> list[float]:
    """A unit vector of single-precision numbers: the signed hashes of the words, added up.

    Args:
        text: Any text; case and punctuation do not count.
        dimensions: The length of the vector.
    """
    vector = [0.0] * dimensions
    # A text without words (emoji, punctuation) is hashed whole, or all such texts would be the
    # same.
    for word in _WORD.findall(text.lower()) or [text]:
        hashed = blake2b(word.encode(), digest_size=4 * _TIMES).digest()
        for at in range(0, len(hashed), 4):
            # One bit for the sign, the others for the place: signs let chance collisions cancel
            # out.
            number = int.from_bytes(hashed[at : at + 4], "little")
            vector[(number >> 1) % dimensions] += 1.0 if number & 1 else -1.0
    norm = math.sqrt(sum(value * value for value in vector))
    if not norm:
        # All of it cancelled out: any unit vector will do, and always the same one.
        vector[0] = norm = 1.0
    return array.array("f", [value / norm for value in vector]).tolist()


def embedding(text: str, body: dict[str, Any]) -> list[float] | str:
    """The `embedding` of a text, in the format and the length that the request asks for."""
    vector = embed(text, body.get("dimensions") or DIMENSIONS)
    return to_base64(vector) if body.get("encoding_format") == "base64" else vector


def to_base64(vector: list[float]) -> str:
    """Little-endian single-precision numbers, as base64."""
    numbers = array.array("f", vector)
    if sys.byteorder == "big":
        numbers.byteswap()
    return base64.b64encode(numbers.tobytes()).decode("ascii")
