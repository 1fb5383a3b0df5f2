"""Rows of equal length in several files, as one table."""

# n rows

from __future__ import annotations

import mmap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
CHUNK_BYTES = 32 << 20


class Rows:
    """The rows of some files, one file after the other; read where they are asked for."""

    def __init__(self, paths: Sequence[Path], dtype: str, width: int) -> None:
        """Files of rows of `width` numbers."""
        self._width, self._dtype = width, np.dtype(dtype)
        self._maps = [_mapped(path) for path in paths]
        sizes = [len(each) // (width * self._dtype.itemsize) for each in self._maps]
        self._starts = np.cumsum([0, *sizes])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def starts(self) -> list[int]:
        """The number of the first row of each file."""
        return [int(start) for start in self._starts[:-1]]

    def chunks(self) -> Iterator[tuple[int, Array]]:
        """All rows [n, width], some at a time, each time with the number of the first of them."""
        step = max(CHUNK_BYTES // (self._dtype.itemsize * self._width), 1)
        for place, start in enumerate(self.starts()):
            for first in range(start, int(self._starts[place + 1]), step):
                stop = min(first + step, int(self._starts[place + 1]))
                yield first, self.take(np.arange(first, stop))

    def take(self, numbers: Array) -> Array:
        """The rows with these numbers [n, width]."""
        found = np.empty((len(numbers), self._width), dtype=self._dtype)
        which = np.searchsorted(self._starts, numbers, side="right") - 1
        for place in np.unique(which).tolist():
            here = which == place
            rows = np.frombuffer(self._maps[place], dtype=self._dtype).reshape(-1, self._width)
            found[here] = rows[numbers[here] - self._starts[place]]
            del rows
            self._maps[place].madvise(mmap.MADV_DONTNEED)  # else what was looked at counts as this process's memory
        return found


def _mapped(path: Path) -> mmap.mmap | bytes:
    if not path.stat().st_size:
        return b""  # which cannot be mapped
    with open(path, "rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
