"""Equal texts, found by their hashes."""

# n documents, p pairs

from __future__ import annotations

from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from tp_ext.clean.buckets import Buckets
from tp_ext.clean.rows import Rows

Array = np.ndarray[Any, np.dtype[Any]]
WORDS = 2
"""Of 64 bits in a digest: two different texts among a billion have the same with a probability of 1e-21."""


def digest_of(text: str) -> bytes:
    """16 bytes that stand for a text; also what draws for it depend on."""
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8 * WORDS).digest()


def copies(digests: Rows, folder: Path) -> tuple[Array, Array]:
    """The numbers of documents that are equal to an earlier one, ascending, and the first of their kind; int64 [p]."""
    buckets = Buckets(folder, len(digests))
    for first, rows in digests.chunks():
        buckets.add(rows[:, 0], np.arange(first, first + len(rows)))
    later: list[Array] = [np.zeros(0, np.int64)]
    firsts: list[Array] = [np.zeros(0, np.int64)]
    for numbers, starts in buckets.groups():
        rest = digests.take(numbers)[:, 1]  # the other half, which differs where keys are equal by chance
        group = np.repeat(np.arange(len(starts)), np.diff(np.append(starts, len(numbers))))
        order = np.lexsort((numbers, rest, group))
        numbers, rest, group = numbers[order], rest[order], group[order]
        leads = np.ones(len(numbers), dtype=bool)
        leads[1:] = (rest[1:] != rest[:-1]) | (group[1:] != group[:-1])
        lead = numbers[np.maximum.accumulate(np.where(leads, np.arange(len(numbers)), 0))]
        later.append(numbers[~leads])
        firsts.append(lead[~leads])
    found, first_of = np.concatenate(later), np.concatenate(firsts)
    order = np.argsort(found)
    return found[order], first_of[order]
