"""Merges put behind all those of a byte-level BPE vocabulary, none of which touches other scripts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from functools import lru_cache
from itertools import pairwise

from tp_ext.tokens.byte_level import bytes_of

_NEVER = 1e9
"""The cost of a token that must not be made."""


class Ownership:
    """Which byte strings belong to some characters alone: wherever they stand, they are parts of those."""

    def __init__(self, owned: Callable[[str], bool]) -> None:
        """`owned` tells whether a character is one of those."""
        self._owned = owned
        self._begins = lru_cache(maxsize=None)(self._begins_owned)

    def __call__(self, content: bytes) -> bool:
        """Whether `content` begins with a character, and every character it holds or begins is owned.

        Bytes that continue a character whose beginning is not there could continue one of any script.
        """
        place = 0
        while place < len(content):
            if 0x80 <= content[place] < 0xC0:
                return False
            character = content[place : place + _length(content[place])]
            if not self._begins(character):
                return False
            place += len(character)
        return True

    def _begins_owned(self, start: bytes) -> bool:
        """Whether all characters that begin with these bytes are owned."""
        length = _length(start[0])
        if length == 1:
            return self._owned(chr(start[0]))
        rest = length - len(start)
        code = start[0] & (0x7F >> length)
        for byte in start[1:]:
            code = code << 6 | byte & 0x3F
        shortest = {2: 0x80, 3: 0x800, 4: 0x10000}[length]
        codes = range(max(code << 6 * rest, shortest), min((code + 1) << 6 * rest, 0x110000))
        return all(self._owned(chr(code)) for code in codes if not 0xD800 <= code < 0xE000)


def _length(first: int) -> int:
    """How many bytes a character of this first byte has (RFC 3629)."""
    return 1 if first < 0x80 else 2 if first < 0xE0 else 3 if first < 0xF0 else 4


class Joining:
    """Grows a vocabulary by merges that come after all of the base's and of each other.

    BPE makes the earliest merge first (Sennrich et al. 2016, arXiv 1508.07909). So the base has always done all it can
    before the first of these is made, and a text that has become one token stays one, whatever is put behind.
    """

    def __init__(self, pieces: Sequence[str], owned: Ownership) -> None:
        """`pieces` are the base's, by id; `owned` tells which byte strings may become tokens."""
        self._bytes = [bytes_of(piece) or b"" for piece in pieces]
        self._base = {content or piece.encode() for content, piece in zip(self._bytes, pieces, strict=True)}
        self._owned = owned
        self._ids: dict[bytes, int] = {}
        self._merges: dict[tuple[int, int], tuple[int, int]] = {}

    @property
    def tokens(self) -> list[bytes]:
        """The new tokens, in the order of their ids, which follow the base's."""
        return list(self._ids)

    @property
    def merges(self) -> list[tuple[bytes, bytes]]:
        """The new merges, in their order."""
        return [(self.content(first), self.content(second)) for first, second in self._merges]

    def __len__(self) -> int:
        """How many tokens are new."""
        return len(self._ids)

    def __contains__(self, content: bytes) -> bool:
        """Whether there is a token of these bytes, new or the base's."""
        return content in self._ids or content in self._base

    def content(self, index: int) -> bytes:
        """What a token stands for; b"" for an added token of the base that is not written in bytes."""
        return self._bytes[index]

    def can_join(self, ids: Sequence[int]) -> bool:
        """Whether one token could be made of tokens side by side."""
        return self._way(ids, frozenset()) is not None

    def cut(self, ids: Iterable[int]) -> list[int]:
        """The base's tokens of a pre-token, joined by the new merges."""
        ids = list(ids)
        while True:
            found = [(*self._merges[pair], place) for place, pair in enumerate(pairwise(ids)) if pair in self._merges]
            if not found:
                return ids
            _, new, place = min(found, key=lambda each: (each[0], each[2]))
            ids[place : place + 2] = [new]

    def join(self, ids: Sequence[int], wanted: Set[bytes], most: int | None) -> bool | None:
        """Make one token of the base's tokens of a pre-token, with the fewest others on the way that are not `wanted`.

        Gives True when it is one; False when there is no way that leaves other scripts and the base's tokens alone;
        None when the new tokens would be more than `most`. What was begun is taken back.
        """
        before = len(self._ids), len(self._merges)
        ids = self.cut(ids)
        way: Iterator[int] = iter(())
        while len(ids) > 1:
            if most is not None and len(self._ids) >= most:
                self._take_back(*before)
                return None
            place = next(way, None)
            if place is None:
                found = self._way(ids, wanted)
                if found is None:
                    self._take_back(*before)
                    return False
                way = iter(found)
                continue
            joined = self._put(ids[place], ids[place + 1])
            expected = [*ids[:place], joined, *ids[place + 2 :]]
            ids = self.cut(ids)
            if ids != expected:  # the same pair stood elsewhere too: another way may be cheaper now
                way = iter(())
        return True

    def _put(self, first: int, second: int) -> int:
        content = self.content(first) + self.content(second)
        if content not in self._ids:
            self._ids[content] = len(self._bytes)
            self._bytes.append(content)
        self._merges[first, second] = len(self._merges), self._ids[content]
        return self._ids[content]

    def _take_back(self, tokens: int, merges: int) -> None:
        while len(self._ids) > tokens:
            self._ids.popitem()
            self._bytes.pop()
        while len(self._merges) > merges:
            self._merges.popitem()

    def _way(self, ids: Sequence[int], wanted: Set[bytes]) -> list[int] | None:
        """The cheapest way from `ids` to one token: the place of each pair when it is joined; None when there is no way.

        By the costs of all stretches, the short ones first: the cube of the length in time.
        """
        parts = [self.content(index) for index in ids]
        costs: dict[tuple[int, int], float] = {(place, place + 1): 0.0 for place in range(len(ids))}
        cuts: dict[tuple[int, int], int] = {}
        for length in range(2, len(ids) + 1):
            for start in range(len(ids) - length + 1):
                stop = start + length
                cost = self._cost(b"".join(parts[start:stop]), wanted)
                if cost < _NEVER:
                    inner = ((costs[start, cut] + costs[cut, stop], cut) for cut in range(start + 1, stop))
                    least, cuts[start, stop] = min(inner)
                    cost += least
                costs[start, stop] = cost
        if costs[0, len(ids)] >= _NEVER:
            return None
        return list(_places(cuts, 0, len(ids), 0))

    def _cost(self, content: bytes, wanted: Set[bytes]) -> float:
        if content in self._ids:
            return 0.0
        if content in self._base or not self._owned(content):
            return _NEVER
        if content in wanted:
            return 0.0
        try:
            return 1.0 + 0.5 * (len(content.decode()) > 1)
        except UnicodeDecodeError:
            return 1.0 if len(content) < 4 else 4.0


def _places(cuts: Mapping[tuple[int, int], int], start: int, stop: int, place: int) -> Iterator[int]:
    """Where each pair of a stretch stands when it is joined, given where the stretch begins: its two parts come first."""
    if stop - start > 1:
        cut = cuts[start, stop]
        yield from _places(cuts, start, cut, place)
        yield from _places(cuts, cut, stop, place + 1)
        yield place
