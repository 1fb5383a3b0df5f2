"""Stretches of text that came before, found by the hashes of all windows of so many characters."""

# w windows, m marks

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tp_ext.clean.buckets import Buckets
from tp_ext.clean.grams import codes_of, hashes_of

Array = np.ndarray[Any, np.dtype[Any]]
SPAN = 32 << 20
"""Characters whose marks are brought into order at once."""
MOST_SPANS = 512
_PIECE = 4 << 20
"""Characters of a document that are hashed at once."""


def windows(text: str, width: int) -> Iterator[tuple[int, Array]]:
    """The hashes of all windows of a text, some at a time, with the place of the first of them."""
    codes = codes_of(text)
    for start in range(0, max(len(codes) - width + 1, 0), _PIECE):
        yield start, hashes_of(codes[start : start + _PIECE + width - 1], width)


def repeated(earlier: Iterable[str], texts: Iterable[str], width: int, characters: int, work: Path) -> Iterator[Array]:
    """Where windows of the `texts` begin that came before, in order: int64 [m], counted over all texts.

    What came before is in `earlier`, or begins at least `width` characters before. `characters` is what the texts have
    in all, about. On disk 16 bytes a character are needed for a while.
    """
    buckets = Buckets(work / "windows", characters)
    for text in earlier:
        for _, hashes in windows(text, width):
            buckets.add(hashes, np.full(len(hashes), -1, dtype=np.int64))
    length = 0
    for text in texts:
        for start, hashes in windows(text, width):
            buckets.add(hashes, np.arange(length + start, length + start + len(hashes)))
        length += len(text)
    span = max(SPAN, length // MOST_SPANS + 1)
    marks = work / "marks"
    shutil.rmtree(marks, ignore_errors=True)
    marks.mkdir()
    for numbers, starts in buckets.groups():
        firsts = np.repeat(numbers[starts], np.diff(np.append(starts, len(numbers))))
        again = np.sort(numbers[(numbers >= 0) & ((firsts < 0) | (numbers - firsts >= width))])
        for place in np.unique(again // span).tolist():
            low, high = np.searchsorted(again, (place * span, (place + 1) * span))
            with open(marks / f"{place:04}", "ab") as file:
                file.write(again[low:high].tobytes())
    for path in sorted(marks.iterdir()):
        yield np.sort(np.fromfile(path, dtype=np.int64))
    shutil.rmtree(marks)


def stretches(marks: Array, width: int) -> list[tuple[int, int]]:
    """The stretches that windows at these places, in order, cover together."""
    if not len(marks):
        return []
    breaks = np.flatnonzero(np.diff(marks) > width)
    starts = marks[np.concatenate(([0], breaks + 1))]
    stops = marks[np.append(breaks, len(marks) - 1)] + width
    return list(zip(starts.tolist(), stops.tolist(), strict=True))


class Cutter:
    """Stretches that are to be cut out of documents, which come in order."""

    def __init__(self, marks: Iterator[Array], width: int) -> None:
        """`marks` as `repeated` gives them for all of these documents."""
        self._marks, self._width = marks, width
        self._here = np.zeros(0, dtype=np.int64)
        self._start = 0
        self._ended = False

    def cut(self, text: str) -> list[tuple[int, int]]:
        """The stretches to cut out of the next document, in order."""
        start, stop = self._start, self._start + len(text)
        self._start = stop
        while not self._ended and (not len(self._here) or self._here[-1] < stop):
            more = next(self._marks, None)
            self._ended = more is None
            if more is not None:
                self._here = np.concatenate((self._here, more))
        count = int(np.searchsorted(self._here, stop))
        found, self._here = self._here[:count], self._here[count:]
        return stretches(found - start, self._width)
