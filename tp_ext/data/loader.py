"""Global batches of a stream, cut into micro-batches for one process of many."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tp_ext.data.batch import Array, Batch
from tp_ext.data.mixture import Stream


@dataclass(frozen=True)
class MicroBatch:
    """What one process computes at once, and what the mean of its loss counts for.

    The mean over all processes and accumulation steps of `weight` x mean loss is the mean loss over the global batch.
    """

    batch: Batch
    weight: float


@dataclass(frozen=True)
class GlobalBatch:
    """One process's share of an optimizer step."""

    micro_batches: list[MicroBatch]
    targets_num: int
    """Targets of all processes."""


@dataclass(frozen=True)
class Loader:
    """Global batches of a stream for one process of many.

    What is in a global batch depends on the stream alone, so a run goes on at any position on any number of processes.
    """

    stream: Stream
    global_batch_size: int
    micro_batch_size: int
    rank: int = 0
    world_size: int = 1

    @property
    def accumulation_steps(self) -> int:
        """Micro-batches of one process in a global batch."""
        return self.global_batch_size // (self.micro_batch_size * self.world_size)

    def positions(self, position: int) -> Array:
        """The positions of the global batch that begins at `position` [accumulation_steps, world_size, micro_batch_size]."""
        positions = np.arange(position, position + self.global_batch_size, dtype=np.int64)
        return positions.reshape(self.accumulation_steps, self.world_size, self.micro_batch_size)

    def global_batch(self, position: int) -> GlobalBatch:
        """This process's share of the global batch that begins at `position`; all of it is read at once."""
        positions = self.positions(position)
        targets = self.stream.targets(positions.flatten())
        targets_num = int(targets.sum())
        mean_targets = targets_num / (self.accumulation_steps * self.world_size)
        weights = targets.reshape(positions.shape)[:, self.rank].sum(1) / mean_targets
        share = self.stream.read(positions[:, self.rank].flatten())
        size = self.micro_batch_size
        micro_batches = [
            MicroBatch(share.rows(slice(number * size, (number + 1) * size)), float(weight))
            for number, weight in enumerate(weights)
        ]
        return GlobalBatch(micro_batches, targets_num)
