"""What the C library does with memory that is freed: glibc's mallopt(3), where there is glibc."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""As in malloc.h."""
KEPT_BYTES = 32 << 20
"""Up to this size glibc learns by itself, as blocks are freed, to keep them."""


def keep_freed() -> None:
    """Have glibc keep what is freed for the next time, which costs less than getting it from the system page by page."""
    _set(KEPT_BYTES, 2 * KEPT_BYTES)


@contextmanager
def freed_is_given_back() -> Iterator[None]:
    """Let blocks of a MiB and more go back to the system as soon as they are freed, while the block runs.

    For work that needs many large ones in turn, and keeps others that lie between them: holes add up to more than is in
    use. Where MALLOC_MMAP_THRESHOLD_ is set it holds instead.
    """
    if "MALLOC_MMAP_THRESHOLD_" in os.environ:
        yield
        return
    _set(1 << 20, 1 << 20)
    try:
        yield
    finally:
        keep_freed()


def _set(mapped_from: int, trimmed_from: int) -> None:
    with suppress(OSError, AttributeError, TypeError):  # another library, another system
        libc = ctypes.CDLL(None)
        libc.mallopt(_MMAP_THRESHOLD, mapped_from)
        libc.mallopt(_TRIM_THRESHOLD, trimmed_from)
