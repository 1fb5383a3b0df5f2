"""Pairs of a key and a number on disk, spread over files by key, so that equal keys come together in bounded memory."""

# r pairs

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
BUCKET_PAIRS = 4 << 20
"""Pairs of a file, about: 64 MiB, of which a few copies are in memory."""
MOST_FILES = 1024
PAIR = np.dtype([("key", "<u8"), ("number", "<i8")])


class Buckets:
    """Pairs whose keys, which must be spread evenly, are to be compared."""

    def __init__(self, folder: Path, expected: int) -> None:
        """Files in `folder`, which is emptied, for about `expected` pairs."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self._bits = min(max(expected // BUCKET_PAIRS, 0).bit_length(), MOST_FILES.bit_length() - 1)
        self._folder = folder
        self._files = [open(folder / f"{number:04}", "wb") for number in range(1 << self._bits)]  # noqa: SIM115

    def add(self, keys: Array, numbers: Array) -> None:
        """Add pairs: uint64 [r] and int64 [r]."""
        pairs = np.empty(len(keys), dtype=PAIR)
        pairs["key"], pairs["number"] = keys, numbers
        if not self._bits:
            self._files[0].write(pairs.tobytes())
            return
        bucket = (keys >> np.uint64(64 - self._bits)).astype(np.uint16)
        order = np.argsort(bucket, kind="stable")
        pairs, ends = pairs[order], np.cumsum(np.bincount(bucket, minlength=len(self._files)))
        for number in np.unique(bucket).tolist():
            start = int(ends[number - 1]) if number else 0
            self._files[number].write(pairs[start : int(ends[number])].tobytes())

    def groups(self) -> Iterator[tuple[Array, Array]]:
        """Of each file, ordered by key and then by number, the numbers whose key is not alone, and where groups start.

        Both int64; `numbers[starts[i] : starts[i + 1]]` have the same key. The files are removed one after the other.
        """
        for file in self._files:
            file.close()
        for path in sorted(self._folder.iterdir()):
            pairs = np.fromfile(path, dtype=PAIR)
            path.unlink()
            keys, numbers = pairs["key"].copy(), pairs["number"].copy()
            del pairs
            numbers, starts = _grouped(keys, numbers)
            if len(numbers):
                yield numbers, starts
        shutil.rmtree(self._folder)


def _grouped(keys: Array, numbers: Array) -> tuple[Array, Array]:
    order = np.argsort(keys)
    keys = keys[order]
    same = np.zeros(len(keys) + 1, dtype=bool)
    same[1:-1] = keys[1:] == keys[:-1]
    among = np.flatnonzero(same[1:] | same[:-1])
    keys, numbers = keys[among], numbers[order[among]]
    order = np.lexsort((numbers, keys))
    keys, numbers = keys[order], numbers[order]
    firsts = np.ones(len(keys), dtype=bool)
    firsts[1:] = keys[1:] != keys[:-1]
    return numbers, np.flatnonzero(firsts)
