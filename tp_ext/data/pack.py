"""Instances of a fixed length as a view of a dataset: no token is lost, no padding is a target."""

# n instances, T seq_length

from __future__ import annotations

from typing import Literal

import numpy as np

from tp_ext.data.batch import Array, Batch, Instances, numbered, ranges
from tp_ext.data.documents import Documents
from tp_ext.data.store import Store
from tp_ext.errors import DatasetError

Packing = Literal["contiguous", "document", "best_fit"]


def pack(store: Store, seq_length: int, packing: Packing = "contiguous", document_mask: bool = False) -> Instances:
    """The instances of a dataset; with `document_mask` they tell which document each position belongs to.

    Raises DatasetError when the dataset has no target.
    """
    if packing == "contiguous":
        return Windows(store, seq_length, document_mask)
    return Documents(store, seq_length, packing == "best_fit", document_mask)


def seq_length_problems(seq_length: int) -> list[str]:
    """What is wrong with a length of instances: nothing where it is from 1 to 2^31 - 1."""
    return [] if 1 <= seq_length < 1 << 31 else [f"seq_length is {seq_length}; it must be at least 1 and below 2^31"]


def instances_num(tokens_num: int, seq_length: int) -> tuple[int, int]:
    """How many windows `tokens_num` tokens give, and how many targets the last one has (1 to seq_length)."""
    targets = max(tokens_num - 1, 0)
    instances = -(-targets // seq_length)
    return instances, targets - (instances - 1) * seq_length if instances else 0


class Windows:
    """Windows of seq_length + 1 tokens, one token shared with the next window.

    Every token but the first of the dataset is a target exactly once. The last window is filled with padding that is no
    target.
    """

    def __init__(self, store: Store, seq_length: int, document_mask: bool = False) -> None:
        """Raises DatasetError when the dataset has fewer than two tokens."""
        self.store, self.seq_length, self._document_mask = store, seq_length, document_mask
        self._count, self._last_targets = instances_num(len(store.tokens), seq_length)
        if not self._count:
            raise DatasetError(f"{store.path}: {len(store.tokens)} tokens; an instance needs at least 2")
        self._whole = self._count if self._last_targets == seq_length else self._count - 1
        if self._whole:
            tokens = store.tokens.view(np.ndarray)
            self._windows = np.lib.stride_tricks.sliding_window_view(tokens, seq_length + 1)[::seq_length]

    @property
    def targets_num(self) -> int:
        """Targets of all instances."""
        return len(self.store.tokens) - 1

    def __len__(self) -> int:
        return self._count

    def targets(self, indices: Array) -> Array:
        """How many targets each of the instances `indices` [n] has: 1 to seq_length."""
        return np.where(indices == self._count - 1, self._last_targets, self.seq_length)

    def read(self, indices: Array) -> Batch:
        """The instances `indices` [n]."""
        seg = np.ones((len(indices), self.seq_length), dtype=np.uint8)
        cut = indices >= self._whole
        if not cut.any():
            window = self._windows[indices]
        else:
            window = np.zeros((len(indices), self.seq_length + 1), dtype=self.store.tokens.dtype)
            if not cut.all():
                window[~cut] = self._windows[indices[~cut]]
            window[cut, : self._last_targets + 1] = self.store.tokens[self._whole * self.seq_length :]
            seg[cut, self._last_targets :] = 0
        return Batch(window, seg, self._numbers(indices) if self._document_mask else None)

    def spans(self, index: int) -> list[tuple[int, int]]:
        """The run of tokens an instance is: where it starts in the dataset, and its length."""
        start = index * self.seq_length
        return [(start, min(self.seq_length + 1, len(self.store.tokens) - start))]

    def _numbers(self, indices: Array) -> Array:
        """The number of each id's document [n, T]; padding has one of its own."""
        starts = indices * self.seq_length
        bounds = self.store.documents
        first = np.searchsorted(bounds, starts.astype(bounds.dtype), "right")
        last = np.searchsorted(bounds, (starts + self.seq_length).astype(bounds.dtype), "left")
        begins = np.zeros((len(indices), self.seq_length), dtype=np.uint8)
        begins[:, 0] = 1
        rows = np.repeat(np.arange(len(indices)), last - first)
        begins[rows, bounds[ranges(first, last - first)].astype(np.int64) - starts[rows]] = 1
        return numbered(begins)
