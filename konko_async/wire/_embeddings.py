"""Embeddings: base64 of little-endian float32 on the wire, floats to the user."""

from __future__ import annotations

import array
import base64
import binascii
import sys

import msgspec

from konko_async.wire._base import Answered, Wire

__all__ = ["CreateEmbeddingResponse", "Embedding", "EmbeddingUsage", "unpack_vector"]


class EmbeddingUsage(Wire):
    """Tokens of an embeddings call."""

    prompt_tokens: int = 0
    total_tokens: int = 0

    @property
    def total(self) -> int:
        """Tokens in all."""
        return self.total_tokens or self.prompt_tokens


class Embedding(Wire):
    """One vector, in the order of the input by ``index``."""

    embedding: list[float] = []
    index: int = 0
    object: str = "embedding"


class CreateEmbeddingResponse(Answered, Wire):
    """The vectors of a call."""

    data: list[Embedding] = []
    model: str = ""
    object: str = "list"
    usage: EmbeddingUsage | None = None
    request_id: str | None = msgspec.field(default=None, name="_request_id")


class WireEmbedding(Wire):
    """A vector as sent: a list of numbers, or base64 where the server supports it."""

    embedding: list[float] | str = ""
    index: int = 0
    object: str = "embedding"


class WireEmbeddings(Wire):
    """The answer with its vectors as sent."""

    # No default: an answer without data is no empty list, but most likely an error.
    data: list[WireEmbedding]
    model: str = ""
    object: str = "list"
    usage: EmbeddingUsage | None = None


def unpack_vector(packed: str) -> list[float]:
    """Return the float32 values in a base64 text.

    Raises:
        ValueError: not base64, or not a whole number (1 or more) of float32 values.
    """
    if not packed:
        raise ValueError("there is none")
    try:
        # validate: without it, characters that are not base64 are skipped, and the vector is
        # another one.
        values = array.array("f", base64.b64decode(packed, validate=True))
    except binascii.Error as error:
        raise ValueError(f"not base64: {error}") from None
    # The wire is little-endian whatever the server runs on.
    if sys.byteorder == "big":  # pragma: no cover - no machine of the tests is
        values.byteswap()
    return values.tolist()
