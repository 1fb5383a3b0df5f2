"""What every way of packing gives: instances of a fixed length as arrays, found by their number."""

# n instances, T seq_length

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from tp_ext.data.store import Store

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Batch:
    """Instances, read from a dataset."""

    window: Array
    """Ids [n, T + 1], in the dataset's type; 0 where nothing is left."""
    seg: Array
    """1 where the next id is a target, 0 where it is padding or begins a document; uint8 [n, T]."""
    documents: Array | None = None
    """The number of each id's document within its instance, int32 [n, T]; None when documents may see each other."""

    @property
    def src(self) -> Array:
        """The ids that are read [n, T]."""
        return self.window[:, :-1]

    @property
    def tgt(self) -> Array:
        """The id after each [n, T]."""
        return self.window[:, 1:]

    def rows(self, which: Array | slice) -> Batch:
        """Some of the instances, in the order of `which`."""
        documents = None if self.documents is None else self.documents[which]
        return Batch(self.window[which], self.seg[which], documents)

    @staticmethod
    def join(batches: Sequence[Batch]) -> Batch:
        """The instances of all `batches`, which are of one kind, one after the other."""
        documents = [batch.documents for batch in batches if batch.documents is not None]
        return Batch(
            np.concatenate([batch.window for batch in batches]),
            np.concatenate([batch.seg for batch in batches]),
            np.concatenate(documents) if documents else None,
        )


class Instances(Protocol):
    """A dataset as instances that are numbered from 0."""

    store: Store
    """The dataset."""

    @property
    def seq_length(self) -> int:
        """Positions of an instance."""

    @property
    def targets_num(self) -> int:
        """Targets of all instances."""

    def __len__(self) -> int: ...

    def targets(self, indices: Array) -> Array:
        """How many targets each of the instances `indices` [n] has: 1 to seq_length."""

    def read(self, indices: Array) -> Batch:
        """The instances `indices` [n]."""

    def spans(self, index: int) -> list[tuple[int, int]]:
        """The runs of tokens an instance is made of: where each starts in the dataset, and its length."""


def numbered(begins: Array) -> Array:
    """Numbers of documents, int32 [n, T], from an array that is 1 where a document begins and 0 elsewhere."""
    numbers: Array = np.cumsum(begins, axis=1, dtype=np.int32)
    return numbers


def ranges(starts: Array, lengths: Array) -> Array:
    """start, start + 1 ... start + length - 1 of each pair, one after the other, int64."""
    before = np.cumsum(lengths) - lengths
    found: Array = np.repeat(starts - before, lengths) + np.arange(int(lengths.sum()))
    return found
