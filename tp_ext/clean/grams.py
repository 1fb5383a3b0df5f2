"""Hashes of all stretches of so many characters of a text."""

# c characters, g grams: one for each character but the last few

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_SHIFT = np.uint64(29)


def codes_of(text: str) -> Array:
    """Code points, uint32 [c]."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")


def hashes_of(codes: Array, width: int) -> Array:
    """A hash of each stretch of `width` characters, uint64 [g]; equal stretches have equal ones."""
    count = len(codes) - width + 1
    if count <= 0:
        return np.zeros(0, dtype=np.uint64)
    powers, size = codes.astype(np.uint64), 1  # hashes of stretches of `size`, which doubles
    hashes, have = np.zeros(0, dtype=np.uint64), 0
    left = width
    while left:
        if left & 1:
            hashes = _joined(hashes, powers[have:]) if have else powers
            have += size
        left >>= 1
        if left:
            powers = _joined(powers, powers[size:])
            size *= 2
    return hashes[:count]


def _joined(first: Array, second: Array) -> Array:
    """Hashes of pairs of neighbours."""
    count = min(len(first), len(second))
    joined: Array = first[:count] * _FACTOR
    joined ^= joined >> _SHIFT
    joined += second[:count]
    joined *= _FACTOR
    joined ^= joined >> _SHIFT
    return joined
