"""The order in which rows are processed."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import blake2b

__all__ = ["shuffled"]

_ROUNDS = 4


def shuffled(count: int, seed: int) -> Iterator[int]:
    """Yield 0 to ``count - 1`` in an order that looks random and depends on ``seed`` alone.

    A Feistel network over the numbers of as many bits: a permutation that is computed, not stored,
    so that it needs no memory. Numbers that fall outside are put through again ("cycle walking";
    Black and Rogaway, "Ciphers with Arbitrary Finite Domains", 2002).
    """
    # Rounded up to an even number of bits, for two equal halves: the domain has at most four times
    # ``count`` numbers, so that few tries fall outside.
    half = max((count - 1).bit_length() + 1, 2) // 2
    mask = (1 << half) - 1
    # Odd, since a factor with low zero bits would shift bits of the other one out of the product.
    keys = [
        int.from_bytes(blake2b(b"%d %d" % (seed, number), digest_size=8).digest(), "big") | 1
        for number in range(_ROUNDS)
    ]
    for place in range(count):
        value = place
        while True:
            left, right = value >> half, value & mask
            for key in keys:
                # The upper bits of a product depend on all bits of the factors.
                mixed = ((right + 1) * key & 0xFFFFFFFFFFFFFFFF) * (key >> 7 | 1)
                left, right = right, left ^ (mixed >> 29 & mask)
            value = left << half | right
            if value < count:
                break
        yield value
