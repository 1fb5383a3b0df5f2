"""Instances of a fixed length as a view of a dataset: no token is lost, no padding is a target."""

# n instances, T seq_length

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tp_ext.data.store import Store
from tp_ext.errors import DatasetError

Array = np.ndarray[Any, np.dtype[Any]]


def instances_num(tokens_num: int, seq_length: int) -> tuple[int, int]:
    """How many instances `tokens_num` tokens give, and how many targets the last one has (1 to seq_length)."""
    targets = max(tokens_num - 1, 0)
    instances = -(-targets // seq_length)
    return instances, targets - (instances - 1) * seq_length if instances else 0


@dataclass(frozen=True)
class Batch:
    """Instances as arrays [n, T]: the ids, the id after each, and 1 where that is a target, 0 where it is padding."""

    src: Array
    tgt: Array
    seg: Array


class Instances:
    """Windows of seq_length + 1 tokens, one token shared with the next window.

    Every token but the first of the dataset is a target exactly once. The last window is filled with padding that is no
    target.
    """

    def __init__(self, store: Store, seq_length: int) -> None:
        """Raises DatasetError when the dataset has fewer than two tokens."""
        self.store, self.seq_length = store, seq_length
        self.count, self.last_targets = instances_num(len(store.tokens), seq_length)
        if not self.count:
            raise DatasetError(f"{store.path}: {len(store.tokens)} tokens; an instance needs at least 2")

    def __len__(self) -> int:
        return self.count

    def targets_num(self, indices: Array) -> int:
        """Targets in the instances `indices`."""
        last = int(np.count_nonzero(indices == self.count - 1))
        return len(indices) * self.seq_length - last * (self.seq_length - self.last_targets)

    def read(self, indices: Array) -> Batch:
        """The instances `indices` [n]."""
        window = np.zeros((len(indices), self.seq_length + 1), dtype=np.int64)
        seg = np.ones((len(indices), self.seq_length), dtype=np.int64)
        for row, index in enumerate(indices):
            start = int(index) * self.seq_length
            tokens = self.store.tokens[start : start + self.seq_length + 1]
            window[row, : len(tokens)] = tokens
            seg[row, len(tokens) - 1 :] = 0
        return Batch(window[:, :-1], window[:, 1:], seg)
