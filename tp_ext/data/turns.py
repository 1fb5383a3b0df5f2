"""Who has which turn, so that at any time each has had its share of the turns."""

# n positions

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tp_ext.data.batch import Array

_BITS = 30


@dataclass(frozen=True)
class _Fork:
    """Two groups that share the turns of both: the first gets `share` / 2^30 of them."""

    first: _Fork | int
    second: _Fork | int
    share: int


class Turns:
    """An endless sequence of turns for several with given `shares`, as even as can be, and found without going through it.

    Groups of two are formed as in Huffman's code, the smallest shares first, and of n turns of a group the first has
    n x share, rounded. So after any number of turns everyone has had what is theirs to within 1 with up to three, and
    within 2 with any number of them: a group of groups has at most 2/3 of the one it is in, and 1/2 is added by each.
    """

    def __init__(self, shares: Sequence[float]) -> None:
        """`shares` are above 0 and sum to 1."""
        self.shares = list(shares)
        heap: list[tuple[float, int, _Fork | int]] = [(share, number, number) for number, share in enumerate(shares)]
        heapq.heapify(heap)
        number = len(heap)
        while len(heap) > 1:
            (small, _, first), (large, _, second) = heapq.heappop(heap), heapq.heappop(heap)
            share = max(1, round(small / (small + large) * (1 << _BITS)))
            heapq.heappush(heap, (small + large, number, _Fork(first, second, share)))
            number += 1
        self._root = heap[0][2]

    def at(self, positions: Array) -> tuple[Array, Array]:
        """Who has the turn at each of `positions` [n], and how many turns they had before it."""
        number, place = np.empty_like(positions), np.empty_like(positions)
        waiting: list[tuple[_Fork | int, Array, Array]] = [(self._root, np.arange(len(positions)), positions)]
        while waiting:
            group, rows, turns = waiting.pop()
            if isinstance(group, int):
                number[rows], place[rows] = group, turns
                continue
            before = _part(turns, group.share)
            is_first = _part(turns + 1, group.share) > before
            waiting.append((group.first, rows[is_first], before[is_first]))
            waiting.append((group.second, rows[~is_first], (turns - before)[~is_first]))
        return number, place


def _part(turns: Array, share: int) -> Array:
    """turns x share / 2^30, rounded; exact for any number of turns."""
    high, low = turns >> _BITS, turns & ((1 << _BITS) - 1)
    part: Array = high * share + ((low * share + (1 << (_BITS - 1))) >> _BITS)
    return part
