"""MinHash signatures of documents over their 5-grams of letters, digits and Han characters."""

# n documents, s slots of a signature

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

from tp_ext.clean.grams import codes_of, hashes_of
from tp_ext.errors import ConfigError

Array = np.ndarray[Any, np.dtype[Any]]
GRAM, SLOTS, SEED = 5, 112, 1
NONE = 0xFFFF
"""In every slot of a document that has no 5-gram."""
_WORD = re.compile(r"\w")


def _rensa() -> Any:
    try:
        import rensa
    except ImportError:
        raise ConfigError("duplicates.fuzzy: needs the extra: pip install 'tp_ext[clean]'") from None
    return rensa


def versions() -> dict[str, str]:
    """What signatures depend on: those of different versions cannot be compared. Raises ConfigError without rensa."""
    from importlib.metadata import version

    return {"rensa": version("rensa"), "algorithm": str(_rensa().RMinHash.ALGORITHM_VERSION)} if _rensa() else {}


@cache
def _folded() -> Array:
    """Each character that counts in lower case, 0 for the others; uint32 [0x110000]."""
    table = np.zeros(0x110000, dtype=np.uint32)
    for code in (*range(0xD800), *range(0xE000, 0x33480)):  # no letters are beyond
        if _WORD.match(chr(code)):
            lower = chr(code).lower()
            table[code] = ord(lower[0])
    return table


def signatures(texts: Sequence[str]) -> Array:
    """The signature of each text: the low 16 bits of each of its slots; uint16 [n, s].

    Two texts agree in a share of the slots that estimates the Jaccard similarity of their sets of 5-grams
    (Broder 1997), with a standard error of at most 0.047.
    """
    if not texts:
        return np.zeros((0, SLOTS), dtype=np.uint16)
    lengths = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
    codes = _folded().take(codes_of("".join(texts)))
    kept = codes > 0
    ends = np.concatenate(([0], np.cumsum(kept)))[np.cumsum(lengths)]
    hashes = hashes_of(codes[kept], GRAM)
    starts = np.concatenate(([0], ends[:-1]))
    stops = np.maximum(ends - (GRAM - 1), starts)
    inside = np.zeros(len(hashes) + 1, dtype=np.int32)
    np.add.at(inside, np.minimum(starts, len(hashes)), 1)
    np.add.at(inside, np.minimum(stops, len(hashes)), -1)
    offsets = np.concatenate(([0], np.cumsum(stops - starts))).astype(np.uint64)
    own = hashes[np.cumsum(inside[:-1]) > 0]
    found = np.full((len(texts), SLOTS), NONE, dtype=np.uint16)
    some = np.flatnonzero(stops > starts)
    if len(some):
        rows = np.append(offsets[some], offsets[-1])
        matrix = _rensa().RMinHash.digest_matrix_from_flat_token_hashes(own, rows, SLOTS, SEED)
        found[some] = np.array(matrix.to_rows(), dtype=np.uint32).astype(np.uint16)
    return found


