"""Instances made of whole documents, one or several in each; only longer documents are cut."""

# n instances, T seq_length

from __future__ import annotations

import numpy as np

from tp_ext.data.batch import Array, Batch, numbered, ranges
from tp_ext.data.best_fit import best_fit
from tp_ext.data.store import Store
from tp_ext.errors import DatasetError


class Documents:
    """Windows of seq_length + 1 tokens, each filled with whole documents and then with padding.

    A document longer than a window is cut into windows that share one token and a rest that is packed like a document.
    So every token but the first of each document is a target exactly once. The cut windows come first, then the others;
    this keeps four bytes a document and eight an instance.
    """

    def __init__(self, store: Store, seq_length: int, best_fit_packing: bool, document_mask: bool = False) -> None:
        """One document or rest an instance, or with `best_fit_packing` as many as fit.

        Raises DatasetError when no document has two tokens.
        """
        self.store, self.seq_length, self._document_mask = store, seq_length, document_mask
        self._tokens, self._starts = store.tokens.view(np.ndarray), store.documents.view(np.ndarray)  # quicker than a memmap
        targets = np.diff(store.documents).astype(np.int64) - 1
        cuts = np.maximum(targets, 0) // seq_length
        self._long = np.flatnonzero(cuts)
        self._windows_before = np.concatenate([[0], np.cumsum(cuts[self._long])])
        self._cut_num = int(self._windows_before[-1])
        rest = targets - cuts * seq_length
        kept = np.flatnonzero(rest > 0).astype(np.uint32)
        rest = rest[kept].astype(np.uint32)
        if best_fit_packing:
            order, self._bounds = best_fit(rest + 1, seq_length + 1)
            self._order, rest = kept[order], rest[order]
        else:
            self._order, self._bounds = kept, np.arange(len(kept) + 1, dtype=np.uint32)
        self._targets = np.add.reduceat(rest, self._bounds[:-1].astype(np.int64)) if len(kept) else rest
        if not len(self):
            raise DatasetError(f"{store.path}: no document has two tokens, which an instance needs")

    @property
    def targets_num(self) -> int:
        """Targets of all instances."""
        return self._cut_num * self.seq_length + int(self._targets.sum(dtype=np.int64))

    def __len__(self) -> int:
        return self._cut_num + len(self._bounds) - 1

    def targets(self, indices: Array) -> Array:
        """How many targets each of the instances `indices` [n] has: 1 to seq_length."""
        counts = np.full(len(indices), self.seq_length, dtype=np.int64)
        packed = indices >= self._cut_num
        counts[packed] = self._targets[indices[packed] - self._cut_num]
        return counts

    def read(self, indices: Array) -> Batch:
        """The instances `indices` [n]."""
        width = self.seq_length + 1
        rows, starts, lengths = self._pieces(indices)
        before = np.cumsum(lengths) - lengths
        of_row = np.flatnonzero(np.diff(rows, prepend=-1))
        places = rows * width + before - before[of_row][rows]  # where each piece begins in the flat windows
        window = np.zeros(len(indices) * width, dtype=self.store.tokens.dtype)
        counted = np.zeros(len(window), dtype=np.uint8)
        filled = ranges(places, lengths)
        window[filled] = self._tokens[filled + np.repeat(starts - places, lengths)]
        counted[filled] = 1
        begins = np.zeros_like(counted) if self._document_mask else None
        if begins is not None:
            begins[places] = 1
            ends = places + lengths
            begins[ends[ends % width > 0]] = 1  # the next piece, or padding
        counted[places] = 0
        return Batch(
            window.reshape(-1, width),
            counted.reshape(-1, width)[:, 1:],
            None if begins is None else numbered(begins.reshape(-1, width)[:, :-1]),
        )

    def spans(self, index: int) -> list[tuple[int, int]]:
        """The runs of tokens an instance is made of: where each starts in the dataset, and its length."""
        _, starts, lengths = self._pieces(np.array([index]))
        return list(zip(starts.tolist(), lengths.tolist(), strict=True))

    def _pieces(self, indices: Array) -> tuple[Array, Array, Array]:
        """The pieces of the instances `indices`: the row each belongs to, its first token and its length in tokens."""
        packed = indices >= self._cut_num
        bins = indices[packed] - self._cut_num
        first = self._bounds[bins].astype(np.int64)
        counts = np.ones(len(indices), dtype=np.int64)
        counts[packed] = self._bounds[bins + 1] - first
        rows = np.repeat(np.arange(len(indices)), counts)
        is_rest = packed[rows]
        starts = np.empty(len(rows), dtype=np.int64)
        lengths = np.full(len(rows), self.seq_length + 1, dtype=np.int64)
        if len(bins) < len(indices):
            starts[~is_rest] = self._cuts(indices[~packed])
        starts[is_rest], lengths[is_rest] = self._rests(self._order[ranges(first, counts[packed])])
        return rows, starts, lengths

    def _cuts(self, numbers: Array) -> Array:
        """The first token of each of the windows that long documents are cut into."""
        place = np.searchsorted(self._windows_before, numbers, "right") - 1
        before = (numbers - self._windows_before[place]) * self.seq_length
        starts: Array = self._starts[self._long[place]].astype(np.int64) + before
        return starts

    def _rests(self, documents: Array) -> tuple[Array, Array]:
        """The first token and the length of what is left of `documents` after their cut windows."""
        documents = documents.astype(np.int64)
        starts, stops = (self._starts[documents + i].astype(np.int64) for i in (0, 1))
        starts += (stops - starts - 1) // self.seq_length * self.seq_length
        return starts, stops - starts
