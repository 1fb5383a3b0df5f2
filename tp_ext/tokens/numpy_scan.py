"""Cutting a text and looking up its segments, and copying ids together, with numpy."""

# b bytes, c characters, s segments of a text, k stretches of documents in it

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tp_ext.tokens.cuts import Cuts, code_points
from tp_ext.tokens.segments import WORD, Ids, Scanned, Segments, keys_of
from tp_ext.tokens.table import Ints, Numbers


def scan(content: bytearray, places: Ints, bare: NDArray[np.bool_], cuts: Cuts, segments: Segments) -> Scanned:
    """The text before the last word of `content`, cut where it can be and before each of the spaces at the bytes
    `places` [k], behind the `bare` [k] ones too.
    """
    size = len(content) - WORD
    text = str(memoryview(content)[:size], "utf-8")
    if len(text) == size:
        codes, characters, spaces = np.frombuffer(content, np.uint8)[:size].astype(np.int64), None, places
    else:
        codes = code_points(text)
        characters = np.flatnonzero(np.frombuffer(content, np.int8)[: size + 1] >= -0x40)  # their first bytes [c + 1]
        spaces = np.searchsorted(characters, places)
    is_edge = np.ones(codes.size + 1, np.bool_)
    is_edge[1:-1] = cuts.between(codes)
    is_edge[spaces] = True
    is_edge[spaces[bare] + 1] = True
    edges = np.flatnonzero(is_edge)  # [s + 1]
    several = np.flatnonzero(np.diff(edges) > 1)
    numbers: Numbers = segments.single.take(codes.take(edges[:-1]))
    byte_edges = edges if characters is None else characters.take(edges)
    if several.size:
        numbers[several] = _find(content, byte_edges.take(several), byte_edges.take(several + 1), segments)
    return Scanned(content, byte_edges, numbers, np.searchsorted(edges, spaces))


def _find(content: bytearray, starts: Ints, stops: Ints, segments: Segments) -> Numbers:
    numbers = np.zeros(starts.size, np.uint32)
    words_nums = (stops - starts + (WORD - 1)) // WORD
    for words_num, table in segments.tables.items():
        chosen = np.flatnonzero(words_nums == words_num)
        if chosen.size:
            numbers[chosen] = table.find(keys_of(content, starts.take(chosen), stops.take(chosen), words_num))
    return numbers


def gather(ids: Ids, begins: Ints, counts: Ints, total: int) -> Ids:
    """`counts` ids from each of the places `begins` [s], one after the other; `total` is the sum of `counts`."""
    if not counts.all():
        some = np.flatnonzero(counts)
        begins, counts = begins[some], counts[some]
    places = np.cumsum(counts) - counts
    steps = np.ones(total, np.int64)  # from the place of one id to that of the next
    if places.size:
        steps[places[0]] = begins[0]
        steps[places[1:]] += np.diff(begins - places)
    np.cumsum(steps, out=steps)
    gathered: Ids = ids.take(steps, mode="clip")
    return gathered
