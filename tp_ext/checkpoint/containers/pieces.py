"""Memory that one thread fills, and that others hash and write while the next is filled."""

from __future__ import annotations

import mmap
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, TypeVar

Result = TypeVar("Result")
Work = Callable[[memoryview], None]

PIECE = 2 << 20
"""Bytes of one."""
AHEAD = 32
"""So many are hashed or written or wait for it, at most."""


class Pieces:
    """Pieces of memory, which are sent when they are filled, and used again when they have been hashed and written.

    One thread hashes and one writes, each in the order in which pieces were sent, whatever files they belong to.
    """

    def __init__(self) -> None:
        self._hashing, self._writing = ThreadPoolExecutor(1), ThreadPoolExecutor(1)
        self._sent: deque[tuple[mmap.mmap, Future[None], Future[None]]] = deque()
        self._free: list[mmap.mmap] = []

    def __enter__(self) -> Pieces:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def take(self) -> mmap.mmap:
        """A piece to fill; its address is a multiple of a page's size."""
        while self._sent and (len(self._sent) > AHEAD or self._is_done()):
            piece, hashed, written = self._sent.popleft()
            hashed.result()
            written.result()
            self._free.append(piece)
        return self._free.pop() if self._free else mmap.mmap(-1, PIECE)

    def _is_done(self) -> bool:
        _, hashed, written = self._sent[0]
        return hashed.done() and written.done()

    def send(self, piece: mmap.mmap, length: int, hash_: Work, write: Work) -> None:
        """Have the first `length` bytes of a piece hashed and written."""
        content = memoryview(piece)[:length]
        self._sent.append((piece, self.when_hashed(hash_, content), self.when_written(write, content)))

    def when_hashed(self, work: Callable[..., Result], *given: Any) -> Future[Result]:
        """Do something when all that was sent has been hashed; what it will give back."""
        return self._hashing.submit(work, *given)

    def when_written(self, work: Callable[..., Result], *given: Any) -> Future[Result]:
        """Do something when all that was sent has been written; what it will give back."""
        return self._writing.submit(work, *given)

    def close(self) -> None:
        """Return when all is done that was sent."""
        self._hashing.shutdown()
        self._writing.shutdown()
