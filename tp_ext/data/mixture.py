"""Datasets as endless streams of instances: one, in epochs, or several, mixed by their share of the targets."""

# n positions

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from tp_ext.data.batch import Array, Batch, Instances
from tp_ext.data.order import Order
from tp_ext.data.turns import Turns


@dataclass(frozen=True)
class Place:
    """The instance at a position of a stream."""

    source: str | None
    """The name of its dataset, where there are several."""
    instances: Instances
    index: int
    """Its number among the instances of its dataset."""


class Stream(Protocol):
    """Instances at positions 0, 1, 2 ... without end; what is at a position is a formula, so any is found at once."""

    @property
    def seq_length(self) -> int:
        """Positions of an instance."""

    def targets(self, positions: Array) -> Array:
        """How many targets the instance at each of `positions` [n] has."""

    def read(self, positions: Array) -> Batch:
        """The instances at `positions` [n]."""

    def places(self, positions: Array) -> list[Place]:
        """Where the instance at each of `positions` [n] is found."""


@dataclass(frozen=True)
class Epochs:
    """One dataset again and again, in another order each time; without `shuffle` always in its own."""

    instances: Instances
    seed: int
    shuffle: bool = True

    @property
    def seq_length(self) -> int:
        """Positions of an instance."""
        return self.instances.seq_length

    def indices(self, positions: Array) -> Array:
        """The number of the instance at each of `positions` [n]."""
        if self.shuffle:
            return Order(len(self.instances), self.seed).at(positions)
        in_turn: Array = positions % len(self.instances)
        return in_turn

    def targets(self, positions: Array) -> Array:
        """How many targets the instance at each of `positions` [n] has."""
        return self.instances.targets(self.indices(positions))

    def read(self, positions: Array) -> Batch:
        """The instances at `positions` [n]."""
        return self.instances.read(self.indices(positions))

    def places(self, positions: Array) -> list[Place]:
        """Where the instance at each of `positions` [n] is found."""
        return [Place(None, self.instances, index) for index in self.indices(positions).tolist()]


class Mixture:
    """Several datasets of one tokenizer, each in its own epochs; `shares` of the targets come from each.

    A dataset whose instances have few targets has more turns, so that its share of what is learned from is as wanted.
    """

    def __init__(self, datasets: Mapping[str, Instances], shares: Mapping[str, float], seed: int, shuffle: bool = True):
        """`shares` are above 0 and have the names of `datasets`; what counts is their proportion."""
        self.names = sorted(datasets)
        self._epochs = [Epochs(datasets[name], seed + (zlib.crc32(name.encode()) << 20), shuffle) for name in self.names]
        means = [datasets[name].targets_num / len(datasets[name]) for name in self.names]
        wanted = [shares[name] / mean for name, mean in zip(self.names, means, strict=True)]
        self._turns = Turns([turns / sum(wanted) for turns in wanted])

    @property
    def seq_length(self) -> int:
        """Positions of an instance."""
        return self._epochs[0].seq_length

    def passes(self, instances_num: int) -> dict[str, float]:
        """How often each dataset is gone through in the first `instances_num` positions."""
        sizes = [len(epochs.instances) for epochs in self._epochs]
        turns = zip(self.names, self._turns.shares, sizes, strict=True)
        return {name: share * instances_num / size for name, share, size in turns}

    def targets(self, positions: Array) -> Array:
        """How many targets the instance at each of `positions` [n] has."""
        number, place = self._turns.at(positions)
        counts = np.empty(len(positions), dtype=np.int64)
        for index, epochs in enumerate(self._epochs):
            rows = number == index
            counts[rows] = epochs.targets(place[rows])
        return counts

    def read(self, positions: Array) -> Batch:
        """The instances at `positions` [n]."""
        number, place = self._turns.at(positions)
        rows = [np.flatnonzero(number == index) for index in range(len(self._epochs))]
        batches = [epochs.read(place[row]) for epochs, row in zip(self._epochs, rows, strict=True) if len(row)]
        return Batch.join(batches).rows(np.argsort(np.concatenate(rows)))

    def places(self, positions: Array) -> list[Place]:
        """Where the instance at each of `positions` [n] is found."""
        found = []
        for number, place in zip(*self._turns.at(positions), strict=True):
            epochs = self._epochs[number]
            found.append(Place(self.names[number], epochs.instances, int(epochs.indices(np.array([place]))[0])))
        return found
