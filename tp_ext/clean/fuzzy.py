"""Documents that are nearly equal to an earlier one, found by locality-sensitive hashing of their signatures."""

# n documents, s slots, b bands, p pairs

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tp_ext.clean.buckets import Buckets
from tp_ext.clean.minhash import NONE, SLOTS
from tp_ext.clean.rows import Rows

Array = np.ndarray[Any, np.dtype[Any]]
BANDS, BAND_ROWS = 16, 7
"""Two documents are compared when all slots of a band agree: at a similarity J with probability
1 - (1 - J ** 7) ** 16, which is 0.977 at 0.8, 0.9998 at 0.9 and 0.12 at 0.5."""
_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_COMPARED = 1 << 16
ALONE = -1


def near_copies(signatures: Rows, similarity: float, folder: Path) -> tuple[Array, Array]:
    """The numbers of documents that are similar to an earlier one, ascending, and for each the one that stands for it.

    Similar are those whose signatures agree in a share of at least `similarity`. Each is joined to an earlier one, and
    so on to one that is similar to none before it. What later documents are like changes nothing. int64 [p].
    """
    buckets = Buckets(folder, len(signatures) * BANDS)
    for first, rows in signatures.chunks():
        for part in range(0, len(rows), _COMPARED):
            _add(buckets, rows[part : part + _COMPARED], first + part)
    parents = np.memmap(folder.with_suffix(".parents"), np.int64, "w+", shape=(max(len(signatures), 1),))
    parents[:] = ALONE
    for numbers, starts in buckets.groups():
        for pairs in _candidates(numbers, starts):
            pairs = pairs[parents[pairs[:, 1]] == ALONE]
            pairs = pairs[_agree(signatures, pairs, similarity)]
            parents[pairs[:, 1]] = pairs[:, 0]
    return _roots(parents)


def _add(buckets: Buckets, rows: Array, first: int) -> None:
    some = np.flatnonzero((rows != NONE).any(axis=1))
    wide = rows[some].astype(np.uint64)
    for band in range(BANDS):
        key = np.full(len(some), band + 1, dtype=np.uint64) * _FACTOR
        for slot in range(band * BAND_ROWS, (band + 1) * BAND_ROWS):
            key = (key ^ wide[:, slot]) * _FACTOR
            key ^= key >> np.uint64(32)
        buckets.add(key * _FACTOR, first + some)


def _candidates(numbers: Array, starts: Array) -> Iterator[Array]:
    """Each document of a group with the first, then with the one before it; int64 [p, 2], the earlier one first."""
    leads = np.repeat(numbers[starts], np.diff(np.append(starts, len(numbers))))
    inside = np.ones(len(numbers), dtype=bool)
    inside[starts] = False
    rest = np.flatnonzero(inside)
    for part in range(0, len(rest), _COMPARED):
        places = rest[part : part + _COMPARED]
        yield np.stack((leads[places], numbers[places]), 1)
        yield np.stack((numbers[places - 1], numbers[places]), 1)


def _agree(signatures: Rows, pairs: Array, similarity: float) -> Array:
    """Whether the documents of each pair are similar, bool [p]."""
    agreeing = np.count_nonzero(signatures.take(pairs[:, 0]) == signatures.take(pairs[:, 1]), axis=1)
    similar: Array = agreeing >= similarity * SLOTS
    return similar


def _roots(parents: Array) -> tuple[Array, Array]:
    """The documents that have a parent, and the one without that the chain of parents leads to."""
    later = np.flatnonzero(parents[:] != ALONE)
    first = np.array(parents[later])
    while (linked := parents[first] != ALONE).any():
        first = np.where(linked, parents[first], first)
    return later, first
