"""Best-fit decreasing bin packing (Johnson 1974) of many items whose sizes are few numbers."""

# N items

from __future__ import annotations

import numpy as np

from tp_ext.data.batch import Array


def best_fit(sizes: Array, capacity: int) -> tuple[Array, Array]:
    """Items of `sizes` [N] into bins of `capacity`: the largest first, each into the fullest bin that has room for it.

    Gives the items in order of their bins, and where in that order each bin begins (with N at the end), both uint32.
    Equal sizes are taken in order of the items, so the result is always the same. Bins that are alike are handled as one
    range, so the time is that of sorting.
    """
    capacity = min(capacity, max(int(sizes.sum(dtype=np.int64)), 1))  # more room changes nothing, and costs
    by_size = np.argsort((capacity - sizes).astype(np.uint16 if capacity < 1 << 16 else np.uint32), kind="stable")
    bin_of = np.empty(len(sizes), dtype=np.uint32)
    counts = np.bincount(sizes)
    room = _Room()
    placed = 0
    for size in np.flatnonzero(counts)[::-1].tolist():
        left = int(counts[size])
        while left:
            first, bins, space = room.take(size) or room.open(-(-left // (capacity // size)), capacity)
            each = space // size
            full = min(bins, left // each)
            items = full * each
            bin_of[placed : placed + items] = np.repeat(np.arange(first, first + full, dtype=np.uint32), each)
            room.give(first, full, space - each * size)
            if full < bins and items < left:
                bin_of[placed + items : placed + left] = first + full
                room.give(first + full, 1, space - (left - items) * size)
                full, items = full + 1, left
            room.give(first + full, bins - full, space)
            placed, left = placed + items, left - items
    of_sorted = np.argsort(bin_of, kind="stable")
    bounds = np.concatenate([[0], np.cumsum(np.bincount(bin_of))]).astype(np.uint32)
    return by_size[of_sorted].astype(np.uint32), bounds


class _Room:
    """Ranges of bins that are alike, by the space left in them."""

    def __init__(self) -> None:
        self._ranges: dict[int, list[tuple[int, int]]] = {}
        self._spaces = 0  # bit s is set when a range has space s
        self._opened = 0

    def take(self, size: int) -> tuple[int, int, int] | None:
        """Remove a range with the least space that holds `size`: its first bin, bins and space."""
        enough = self._spaces >> size
        if not enough:
            return None
        space = size + (enough & -enough).bit_length() - 1
        first, bins = self._ranges[space].pop()
        if not self._ranges[space]:
            self._spaces ^= 1 << space
        return first, bins, space

    def open(self, bins: int, capacity: int) -> tuple[int, int, int]:
        """A range of `bins` new bins."""
        self._opened += bins
        return self._opened - bins, bins, capacity

    def give(self, first: int, bins: int, space: int) -> None:
        """Add a range; one without bins or space is left out."""
        if bins and space:
            self._ranges.setdefault(space, []).append((first, bins))
            self._spaces |= 1 << space
