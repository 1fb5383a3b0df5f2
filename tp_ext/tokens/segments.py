"""The ids of stretches of text that come again and again."""

# s segments of a text, k stretches of documents in it

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tp_ext.tokens.cuts import CHARACTERS
from tp_ext.tokens.table import MOST_WORDS, Ints, Numbers, Table, Words

Ids = NDArray[Any]

WORD = 8
"""Bytes; the text of a segment is a key of so many words as it fills, and one of more than MOST_WORDS is not kept."""
_COUNT_BITS = 7
"""Room for the count of ids of a key: at most three a byte, for a space that is no piece."""
_PAD = np.array([(0xFFFFFFFFFFFFFFFF << 8 * size) & 0xFFFFFFFFFFFFFFFF for size in range(WORD + 1)], np.uint64)
"""What fills a word that holds so many bytes: 0xFF, which is in no UTF-8."""
_LENGTHS = np.repeat([1, 2, 3, 4], [0xC0, 0x20, 0x10, 0x10])
"""Bytes of a character by its first."""


@dataclass(frozen=True)
class Scanned:
    """A text cut into segments, with the numbers of those that are known."""

    content: bytearray
    """In UTF-8, with a word of anything behind it."""
    edges: Ints
    """The first byte of each segment, and the number of bytes [s + 1]."""
    numbers: Numbers
    """Of each segment, 0 for one that is not known [s]."""
    firsts: Ints
    """The segments that the stretches of documents begin with [k]."""


class Segments:
    """A cache from segments to ids that asks `encode` for those it does not know.

    Segments are known by their bytes, those of one character by its code point. A segment's number is the place of its
    first id in `ids` and its count of ids, in one word.
    """

    def __init__(self, encode: Callable[[Sequence[str]], list[list[int]]], dtype: np.dtype[Any], most_bytes: int) -> None:
        self._encode = encode
        self._most_bytes = most_bytes
        self.ids: Ids = np.zeros(1 << 12, dtype)
        """What the places given by `complete` point into, until it is called again."""
        self._forget()

    def _forget(self) -> None:
        self.single: Numbers = np.zeros(CHARACTERS, np.uint32)
        """The numbers of single characters, by code point."""
        self.tables = {words_num: Table(words_num) for words_num in range(1, MOST_WORDS + 1)}
        """The others, by the words of their keys."""
        self._used = 1  # so that no segment's number is 0

    @property
    def nbytes(self) -> int:
        """The memory that grows with what is known."""
        return self._used * self.ids.itemsize + sum(table.nbytes for table in self.tables.values())

    def make_room(self) -> None:
        """Forget all where it takes more than `most_bytes`."""
        if self.nbytes > self._most_bytes:
            self._forget()

    def complete(self, text: Scanned) -> tuple[Ints, Ints]:
        """Where in `ids` those of each segment begin [s], and how many they are [s]; learns what is not known."""
        begins, counts = _places(text.numbers)
        missing = np.flatnonzero(text.numbers == 0)
        if missing.size:
            begins[missing], counts[missing] = self._learn(
                text.content, text.edges.take(missing), text.edges.take(missing + 1)
            )
        return begins, counts

    def _learn(self, content: bytearray, starts: Ints, stops: Ints) -> tuple[Ints, Ints]:
        """Where the ids of segments begin, and how many they are; those of too many words are not kept."""
        words_nums = (stops - starts + (WORD - 1)) // WORD
        words_nums[_LENGTHS.take(np.frombuffer(content, np.uint8)[starts]) == stops - starts] = 0
        numbers = np.zeros(starts.size, np.uint32)
        single = np.flatnonzero(words_nums == 0)
        if single.size:
            numbers[single] = self._learn_characters(_strings(content, starts[single], stops[single]))
        for words_num, table in self.tables.items():
            chosen = np.flatnonzero(words_nums == words_num)
            if chosen.size:
                numbers[chosen] = self._learn_keys(table, content, starts[chosen], stops[chosen], words_num)
        begins, counts = _places(numbers)
        long = np.flatnonzero(words_nums > MOST_WORDS)
        if long.size:
            begins[long], counts[long] = self._append(_strings(content, starts[long], stops[long]))
        return begins, counts

    def _learn_characters(self, characters: Iterable[str]) -> Numbers:
        codes = np.fromiter(map(ord, characters), np.int64)
        new = np.unique(codes)
        self.single[new] = self._keep(list(map(chr, new.tolist())))
        numbers: Numbers = self.single[codes]
        return numbers

    def _learn_keys(self, table: Table, content: bytearray, starts: Ints, stops: Ints, words_num: int) -> Numbers:
        slots, owners = table.claim(keys_of(content, starts, stops, words_num))
        new = np.flatnonzero(owners == np.arange(owners.size))
        table.numbers[slots[new]] = self._keep(_strings(content, starts[new], stops[new]))
        numbers: Numbers = table.numbers[slots]
        return numbers

    def _keep(self, parts: list[str]) -> Numbers:
        """Encode and keep; the number of each."""
        begins, counts = self._append(parts)
        self._used = int(begins[-1] + counts[-1])
        return (begins << _COUNT_BITS | counts).astype(np.uint32)

    def _append(self, parts: list[str]) -> tuple[Ints, Ints]:
        """Encode, and put the ids behind those that are kept: where they begin, and how many they are."""
        encoded = self._encode(parts)
        counts = np.fromiter(map(len, encoded), np.int64, len(encoded))
        ends = self._used + np.cumsum(counts)
        stop = int(ends[-1])
        if stop > self.ids.size:
            self.ids = np.concatenate((self.ids[: self._used], np.zeros(max(stop - self._used, self._used), self.ids.dtype)))
        self.ids[self._used : stop] = np.fromiter(chain.from_iterable(encoded), self.ids.dtype, stop - self._used)
        return ends - counts, counts


def keys_of(content: bytearray, starts: Ints, stops: Ints, words_num: int) -> list[Words]:
    """The bytes from each start to its stop, of so many words each, as keys of a table."""
    words: Words = np.ndarray(len(content) - WORD + 1, "<u8", content, strides=(1,))
    keys = [words[starts + WORD * place] for place in range(words_num)]
    keys[-1] |= _PAD.take(stops - starts - WORD * (words_num - 1))
    return keys


def _places(numbers: Numbers) -> tuple[Ints, Ints]:
    return (numbers >> _COUNT_BITS).astype(np.int64), (numbers & ((1 << _COUNT_BITS) - 1)).astype(np.int64)


def _strings(content: bytearray, starts: Ints, stops: Ints) -> list[str]:
    text = bytes(content)  # a slice of which is made faster
    return [text[start:stop].decode() for start, stop in zip(starts.tolist(), stops.tolist(), strict=True)]
