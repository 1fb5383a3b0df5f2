"""A shuffled order that is a formula: any position is found at once and nothing is kept."""

from __future__ import annotations

from typing import TypeVar

import numpy as np

from tp_ext.data.batch import Array

_ROUNDS = 6
_FEW = 16
"""So many positions are found one by one: for few numbers numpy takes longer than Python."""
_64 = (1 << 64) - 1
_Values = TypeVar("_Values", int, Array)


class Order:
    """A permutation of 0 ... size - 1 for each epoch, that takes no memory.

    A Feistel network (Luby and Rackoff 1988) on the smallest square of a power of two that holds `size`, walked until
    the value is below `size`.
    """

    def __init__(self, size: int, seed: int) -> None:
        self.size, self.seed = size, seed
        self._bits = max(1, ((size - 1).bit_length() + 1) // 2)
        self._mask = (1 << self._bits) - 1
        self._keys = [(seed * 1_000_003 + number * 7_919) & _64 for number in range(_ROUNDS)]

    def at(self, positions: Array) -> Array:
        """The instance at each of `positions` (int64, counted over all epochs)."""
        if len(positions) <= _FEW:
            return np.array([self._one(position) for position in positions.tolist()], np.int64)
        epoch, place = np.divmod(positions, self.size)
        epoch = epoch.astype(np.uint64) << 40
        value = self._mix(place.astype(np.uint64), epoch)
        while (outside := np.flatnonzero(value >= self.size)).size:
            value[outside] = self._mix(value[outside], epoch[outside])
        return value.astype(np.int64)

    def _one(self, position: int) -> int:
        epoch, value = divmod(position, self.size)
        value = self._mix(value, epoch << 40)
        while value >= self.size:
            value = self._mix(value, epoch << 40)
        return value

    def _mix(self, value: _Values, epoch: _Values) -> _Values:
        left, right = value >> self._bits, value & self._mask
        for key in self._keys:
            left, right = right, left ^ (_hash((right + epoch) ^ key) & self._mask)
        return (left << self._bits) | right


def _hash(value: _Values) -> _Values:
    """SplitMix64's finaliser (Steele et al. 2014), on whole numbers or on an array of them."""
    value = (value + 0x9E3779B97F4A7C15) & _64
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _64
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _64
    return value ^ (value >> 31)
