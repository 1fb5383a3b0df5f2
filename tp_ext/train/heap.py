"""How the C library keeps memory that was freed."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Of glibc's mallopt(3)."""
LARGE = 1 << 20
_MOST = 32 << 20
"""What glibc raises its threshold to by itself, on 64 bits, when such a block was freed."""


@contextmanager
def given_back() -> Iterator[None]:
    """Let blocks of a MiB and more go back to the system as soon as they are freed, while the block runs.

    glibc keeps those up to 32 MiB in the hope that they are wanted again: while a model is made, whose weights are
    temporary where ZeRO partitions them, it would keep more than the model. Later, when a step asks for the same blocks
    again and again, it is right. Does nothing with another C library, or where MALLOC_MMAP_THRESHOLD_ says what is wanted.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None or "MALLOC_MMAP_THRESHOLD_" in os.environ:
        yield
        return
    mallopt(_MMAP_THRESHOLD, LARGE)
    try:
        yield
    finally:
        mallopt(_MMAP_THRESHOLD, _MOST)
        mallopt(_TRIM_THRESHOLD, 2 * _MOST)
