"""A hash table from short byte strings to numbers that works on whole arrays and compares keys, never hashes alone."""

# n keys, w words of a key

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Numbers = NDArray[np.uint32]
Words = NDArray[np.uint64]

_FIRST_BITS = 12
FACTORS = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0xD6E8FEB86659FD93], np.uint64)
"""Odd constants with well mixed bits, one a word (multiplicative hashing, Knuth volume 3, 6.4)."""
MOST_WORDS = len(FACTORS)


class Table:
    """Numbers by keys of a fixed count of 64-bit words; open addressing, at most half full. 0 is no number."""

    def __init__(self, words_num: int) -> None:
        self._words_num = words_num
        self._used = 0
        self._allocate(_FIRST_BITS)

    def _allocate(self, bits: int) -> None:
        self._bits = bits
        self._keys = [np.zeros(1 << bits, np.uint64) for _ in range(self._words_num)]
        self.numbers: Numbers = np.zeros(1 << bits, np.uint32)
        """By slot."""

    @property
    def arrays(self) -> list[Words | Numbers]:
        """Its keys, by word and slot, and the numbers by slot."""
        return [*self._keys, self.numbers]

    @property
    def nbytes(self) -> int:
        """The memory it takes."""
        return sum(each.nbytes for each in self.arrays)

    def find(self, keys: Sequence[Words]) -> Numbers:
        """The number of each key [n], 0 where there is none; `keys` are w arrays [n]."""
        slots = self._home(keys)
        numbers: Numbers = self.numbers.take(slots)
        left = np.flatnonzero(self._differ(keys, slots))
        while left.size:
            left = left[numbers[left] != 0]
            slots[left] = self._next(slots[left])
            numbers[left] = self.numbers[slots[left]]
            left = left[self._differ([key[left] for key in keys], slots[left])]
        return numbers

    def claim(self, keys: Sequence[Words]) -> tuple[Ints, Ints]:
        """Put in keys that are not there: the slot of each [n], and the first or another of those equal to it [n].

        The caller writes what belongs to each key into `numbers` before the table is used again.
        """
        self._make_room(keys[0].size)
        claims = np.arange(1, keys[0].size + 1, dtype=np.uint32)
        slots = self._home(keys)
        left = np.arange(keys[0].size)
        while left.size:
            open_ = left[self.numbers[slots[left]] == 0]
            self.numbers[slots[open_]] = claims[open_]  # the last of those that want a slot gets it
            won = open_[self.numbers[slots[open_]] == claims[open_]]
            for mine, key in zip(self._keys, keys, strict=True):
                mine[slots[won]] = key[won]
            self._used += won.size
            left = left[self._differ([key[left] for key in keys], slots[left])]
            slots[left] = self._next(slots[left])
        return slots, self.numbers[slots].astype(np.int64) - 1

    def _make_room(self, more: int) -> None:
        if 2 * (self._used + more) <= 1 << self._bits:
            return
        taken = np.flatnonzero(self.numbers)
        keys, numbers = [mine[taken] for mine in self._keys], self.numbers[taken]
        self._allocate((2 * (self._used + more)).bit_length())
        self._used = 0
        if taken.size:
            slots, _ = self.claim(keys)
            self.numbers[slots] = numbers

    def _home(self, keys: Sequence[Words]) -> Ints:
        mixed = keys[0] * FACTORS[0]
        for key, factor in zip(keys[1:], FACTORS[1 : len(keys)], strict=True):
            mixed ^= key * factor
        mixed >>= np.uint64(64 - self._bits)
        slots: Ints = mixed.view(np.int64)
        return slots

    def _next(self, slots: Ints) -> Ints:
        return (slots + 1) & ((1 << self._bits) - 1)

    def _differ(self, keys: Sequence[Words], slots: Ints) -> NDArray[np.bool_]:
        differ: NDArray[np.bool_] = self._keys[0].take(slots) != keys[0]
        for mine, key in zip(self._keys[1:], keys[1:], strict=True):
            differ |= mine.take(slots) != key
        return differ
