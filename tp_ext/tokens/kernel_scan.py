"""What numpy_scan.py does, in C. Importing it fails where that part was not built."""

# s segments of a text, k stretches of documents in it

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tp_ext.tokens import _kernel
from tp_ext.tokens.cuts import Cuts
from tp_ext.tokens.segments import WORD, Ids, Scanned, Segments
from tp_ext.tokens.table import FACTORS, Ints


def scan(content: bytearray, places: Ints, bare: NDArray[np.bool_], cuts: Cuts, segments: Segments) -> Scanned:
    """As numpy_scan.scan."""
    size = len(content) - WORD
    edges, numbers, firsts = np.empty(size + 1, np.int64), np.empty(size, np.uint32), np.empty_like(places)
    borders = (cuts.left, cuts.right, cuts.free_bits)
    tables = [array for table in segments.tables.values() for array in table.arrays]
    count = _kernel.scan(
        [content, places, bare, *borders, segments.single, FACTORS, edges, numbers, firsts, *tables],
        size,
    )
    return Scanned(content, edges[: count + 1], numbers[:count], firsts)


def gather(ids: Ids, begins: Ints, counts: Ints, total: int) -> Ids:
    """As numpy_scan.gather."""
    gathered = np.empty(total, ids.dtype)
    _kernel.gather([ids, begins, counts, gathered], ids.itemsize)
    return gathered
