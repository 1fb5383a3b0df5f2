"""Which documents that passed the rules came before: in this corpus, or in what was cleaned earlier."""

# n documents that passed the rules

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tp_ext.clean.exact import WORDS, copies
from tp_ext.clean.fuzzy import near_copies
from tp_ext.clean.minhash import SLOTS
from tp_ext.clean.rows import CHUNK_BYTES, Rows
from tp_ext.clean.settings import Duplicates

Array = np.ndarray[Any, np.dtype[Any]]
DIGESTS, SIGNATURES = "digests.bin", "signatures.bin"
KINDS = ("", "exact", "fuzzy", "substring")
EXACT, FUZZY, SUBSTRING = 1, 2, 3


@dataclass(frozen=True)
class Index:
    """What is kept of documents to find later ones that are like them."""

    folder: Path

    @property
    def digests(self) -> Path:
        """A row for each document that differs from all before it."""
        return self.folder / DIGESTS

    @property
    def signatures(self) -> Path:
        """The same documents' signatures; empty where near copies are not looked for."""
        return self.folder / SIGNATURES


def find(settings: Duplicates, earlier: Sequence[Index], staged: Index, index: Index, work: Path) -> Array:
    """What each document is, a number of KINDS, uint8 [n]; `index` is written for those that differ from all before."""
    digests = Rows([*(each.digests for each in earlier), staged.digests], "<u8", WORDS)
    start = digests.starts()[-1]
    kinds = np.zeros(len(digests) - start, dtype=np.uint8)
    if settings.exact:
        later, _ = copies(digests, work / "exact")
        kinds[later[later >= start] - start] = EXACT
    index.folder.mkdir(parents=True, exist_ok=True)
    different = kinds == 0
    _write(staged.digests, 8 * WORDS, different, index.digests)
    _write(staged.signatures, 2 * SLOTS, different, index.signatures)
    if settings.fuzzy is not None:
        signatures = Rows([*(each.signatures for each in earlier), index.signatures], "<u2", SLOTS)
        later, _ = near_copies(signatures, settings.fuzzy, work / "fuzzy")
        start = signatures.starts()[-1]
        near = np.zeros(len(signatures) - start, dtype=np.uint8)
        near[later[later >= start] - start] = FUZZY
        kinds[different] = near
    return kinds


def _write(source: Path, row_bytes: int, wanted: Array, target: Path) -> None:
    """Copy those rows of a file to another for which `wanted` is true."""
    step = CHUNK_BYTES // row_bytes
    with open(source, "rb") as rows, open(target, "wb") as file:
        for first in range(0, len(wanted), step):
            chunk = np.frombuffer(rows.read(step * row_bytes), dtype=np.uint8).reshape(-1, row_bytes)
            if len(chunk):
                file.write(chunk[wanted[first : first + step]].tobytes())
