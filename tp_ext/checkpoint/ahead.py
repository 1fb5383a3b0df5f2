"""A stream that is made in another thread, never more than an item or two ahead of the one that is worked on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from queue import Empty, Queue
from threading import Event, Thread
from typing import Generic, TypeVar

Item = TypeVar("Item")


@contextmanager
def read_ahead(items: Iterator[Item]) -> Iterator[Iterator[Item]]:
    """`items`, the next of which is made in another thread while one is worked on; at most two wait.

    What making one raises is raised where it would have come. The thread has ended when the block has.
    """
    stream = _Stream(items)
    try:
        yield iter(stream)
    finally:
        stream.close()


class _Stream(Generic[Item]):
    """One thread's items on their way to another."""

    def __init__(self, items: Iterator[Item]) -> None:
        self._queue: Queue[tuple[Item] | BaseException | None] = Queue(1)
        self._unwanted = Event()
        self._thread = Thread(target=self._make, args=(items,), daemon=True)
        self._thread.start()

    def _make(self, items: Iterator[Item]) -> None:
        try:
            for item in items:
                self._queue.put((item,))
                del item  # it would stay until the next is made
                if self._unwanted.is_set():
                    return
            self._queue.put(None)
        except BaseException as error:  # raised again by the thread that waits for an item
            self._queue.put(error)

    def __iter__(self) -> Iterator[Item]:
        while (found := self._queue.get()) is not None:
            if isinstance(found, BaseException):
                raise found
            yield found[0]
            del found

    def close(self) -> None:
        """Have the thread end."""
        self._unwanted.set()
        while self._thread.is_alive():
            try:
                self._queue.get(timeout=0.05)
            except Empty:
                continue
