"""Batches in a shuffled order that is a formula: any position is found at once, on any number of processes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from tp_ext.data.pack import Batch, Instances

Array = np.ndarray[Any, np.dtype[Any]]
_ROUNDS = 6


class Order:
    """A permutation of 0 ... size - 1 for each epoch, that takes no memory.

    A Feistel network (Luby and Rackoff 1988) on the smallest square of a power of two that holds `size`, walked until
    the value is below `size`.
    """

    def __init__(self, size: int, seed: int) -> None:
        self.size, self.seed = size, seed
        self._bits = max(1, ((size - 1).bit_length() + 1) // 2)

    def at(self, positions: Array) -> Array:
        """The instance at each of `positions` (int64, counted over all epochs)."""
        epoch, place = positions // self.size, (positions % self.size).astype(np.uint64)
        value = self._mix(place, epoch.astype(np.uint64))
        while (outside := value >= self.size).any():
            value[outside] = self._mix(value[outside], epoch[outside].astype(np.uint64))
        return value.astype(np.int64)

    def _mix(self, value: Array, epoch: Array) -> Array:
        mask = np.uint64((1 << self._bits) - 1)
        left, right = value >> np.uint64(self._bits), value & mask
        for number in range(_ROUNDS):
            key = np.uint64((self.seed * 1_000_003 + number * 7_919) & 0xFFFFFFFFFFFFFFFF)
            left, right = right, left ^ (_hash(right + (epoch << np.uint64(40)) ^ key) & mask)
        mixed: Array = (left << np.uint64(self._bits)) | right
        return mixed


def _hash(value: Array) -> Array:
    """SplitMix64's finaliser (Steele et al. 2014)."""
    value = value + np.uint64(0x9E3779B97F4A7C15)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: Array = value ^ (value >> np.uint64(31))
    return mixed


@dataclass(frozen=True)
class MicroBatch:
    """What one process computes at once, and what the mean of its loss counts for.

    The mean over all processes and accumulation steps of `weight` x mean loss is the mean loss over the global batch.
    """

    batch: Batch
    weight: float


@dataclass(frozen=True)
class Loader:
    """Global batches of `instances`, cut into micro-batches for one process of many.

    Position p is the p-th instance of the run, over all epochs; the order depends on `seed` alone, so a run goes on at
    any position on any number of processes.
    """

    instances: Instances
    global_batch_size: int
    micro_batch_size: int
    seed: int
    rank: int = 0
    world_size: int = 1
    shuffle: bool = True

    @property
    def accumulation_steps(self) -> int:
        """Micro-batches of one process in a global batch."""
        return self.global_batch_size // (self.micro_batch_size * self.world_size)

    def indices(self, position: int) -> Array:
        """The instances of the global batch that begins at `position`."""
        positions = np.arange(position, position + self.global_batch_size, dtype=np.int64)
        if not self.shuffle:
            in_turn: Array = positions % len(self.instances)
            return in_turn
        return Order(len(self.instances), self.seed).at(positions)

    def global_batch(self, position: int) -> Iterator[MicroBatch]:
        """This process's micro-batches of the global batch that begins at `position`."""
        indices = self.indices(position)
        mean_targets = self.instances.targets_num(indices) / (self.accumulation_steps * self.world_size)
        for mine in indices.reshape(-1, self.world_size, self.micro_batch_size)[:, self.rank]:
            yield MicroBatch(self.instances.read(mine), self.instances.targets_num(mine) / mean_targets)
