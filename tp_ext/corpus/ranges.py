"""Texts as ranges of one buffer, and which of them are blank."""

# n texts

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
SPACES = [chr(code).encode() for code in range(0x3001) if chr(code).isspace()]
"""Every character that `str.strip` takes away, in UTF-8: of one, two or three bytes."""
_CODES = {width: [int.from_bytes(space, "big") for space in SPACES if len(space) == width] for width in (1, 2, 3)}
_MAY_BEGIN = np.isin(np.arange(256), [space[0] for space in SPACES])
_NEWLINE, _RETURN = 10, 13


@dataclass(frozen=True)
class Ranges:
    """Places of texts in `buffer` and, in `offsets`, the bytes of the file where their lines begin; int64 [n]."""

    buffer: bytes
    starts: Array
    stops: Array
    offsets: Array

    def __len__(self) -> int:
        return len(self.starts)

    @cached_property
    def array(self) -> Array:
        """The buffer as uint8."""
        return np.frombuffer(self.buffer, dtype=np.uint8)

    def text(self, index: int) -> bytes:
        """The bytes of one text."""
        return self.buffer[int(self.starts[index]) : int(self.stops[index])]

    def where(self, wanted: Array) -> Ranges:
        """The texts for which `wanted` [n] is true."""
        if wanted.all():
            return self
        return Ranges(self.buffer, self.starts[wanted], self.stops[wanted], self.offsets[wanted])

    def holding(self, places: Array) -> Array:
        """Whether each text has one of the `places` (ascending) in it; bool [n]."""
        found: Array = np.searchsorted(places, self.starts) < np.searchsorted(places, self.stops)
        return found

    def blank(self) -> Array:
        """Whether each text is nothing but white space; bool [n]."""
        blank: Array = self.starts == self.stops
        some = np.flatnonzero(~blank)
        some = some[_MAY_BEGIN[self.array[self.starts[some]]]]
        some = some[self._spaces(some, at_end=False)]
        some = some[self._spaces(some, at_end=True)]
        blank[[index for index in some.tolist() if not self.text(index).decode().strip()]] = True
        return blank

    def _spaces(self, some: Array, at_end: bool) -> Array:
        """Whether the texts `some` begin, or end, with white space."""
        lengths = self.stops[some] - self.starts[some]
        found = np.zeros(len(some), dtype=bool)
        for width, codes in _CODES.items():
            first = np.maximum(self.stops[some] - width, 0) if at_end else self.starts[some]
            code = np.zeros(len(some), dtype=np.int64)
            for place in range(width):
                code = code << 8 | self.array.take(first + place, mode="clip")
            found |= np.isin(code, codes) & (lengths >= width)
        return found


def lines_of(content: bytes, offset: int) -> Ranges:
    """The lines of `content`, which begins at the byte `offset` of its file, without their ends and returns."""
    array = np.frombuffer(content, dtype=np.uint8)
    ends = np.flatnonzero(array == _NEWLINE)
    if len(content) and not content.endswith(b"\n"):
        ends = np.append(ends, len(content))
    starts = np.zeros_like(ends)
    starts[1:] = ends[:-1] + 1
    stops = ends.copy()
    while (returns := (stops > starts) & (array[stops - 1] == _RETURN)).any():
        stops -= returns
    return Ranges(content, starts, stops, offset + starts)


def whole_of(content: bytes) -> Ranges:
    """All of a file's content as one text, without line ends at its end."""
    zero = np.zeros(1, dtype=np.int64)
    return Ranges(content, zero, zero + len(content.rstrip(b"\r\n")), zero)
