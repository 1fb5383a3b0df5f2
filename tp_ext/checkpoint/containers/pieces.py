"""Memory that is filled in one thread, and hashed and written in others while the next is filled."""

from __future__ import annotations

import mmap
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Condition
from types import TracebackType
from typing import Any, TypeVar

Result = TypeVar("Result")

PIECE = 2 << 20
"""Bytes of one."""
AHEAD = 32
"""So many are hashed or written or wait for it, at most. Memory that a process has not had yet costs a good part of what it
takes to hash it, so it is used again, and no more is taken than is needed to keep the disk and the threads at work."""


class Pieces:
    """Pieces of memory for files, which are written in one thread in the order in which they were sent.

    A piece is used again when all that it was sent to is done with it.
    """

    def __init__(self) -> None:
        self._writing = ThreadPoolExecutor(1)
        self._free: list[mmap.mmap] = []
        self._sent = 0
        self._changed = Condition()

    def __enter__(self) -> Pieces:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._writing.shutdown()

    def take(self) -> mmap.mmap:
        """A piece to fill, as soon as not too many are on the way; its address is a multiple of a page's size."""
        with self._changed:
            self._changed.wait_for(lambda: self._sent < AHEAD)
            return self._free.pop() if self._free else mmap.mmap(-1, PIECE)

    def send(
        self, piece: mmap.mmap, length: int, hashing: ThreadPoolExecutor, hash_: Callable[[memoryview], None],
        write: Callable[[memoryview], None],
    ) -> None:  # fmt: skip
        """Have the first `length` bytes of a piece hashed in that thread, and written; the two raise nothing."""
        left = 2

        def done(work: Future[None]) -> None:
            nonlocal left
            with self._changed:
                left -= 1
                if not left:
                    self._sent -= 1
                    self._free.append(piece)
                    self._changed.notify_all()

        with self._changed:
            self._sent += 1
        content = memoryview(piece)[:length]
        hashing.submit(hash_, content).add_done_callback(done)
        self._writing.submit(write, content).add_done_callback(done)

    def when_written(self, work: Callable[..., Result], *given: Any) -> Future[Result]:
        """Do something when all that was sent has been written; what it will give back."""
        return self._writing.submit(work, *given)
