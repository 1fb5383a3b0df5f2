"""Items that a thread makes ahead while the one before is used."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from types import TracebackType
from typing import Generic, TypeVar

T = TypeVar("T")


class Prefetch(Generic[T]):
    """The items of an iterator in its order, up to `ahead` of them made before they are asked for.

    Used with `with`: at its end the thread has ended too. What the iterator raises is raised where its item would be.
    """

    def __init__(self, items: Iterator[T], ahead: int = 2) -> None:
        self._items = items
        self._ready: queue.Queue[tuple[T] | BaseException] = queue.Queue(ahead)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._work, name="prefetch", daemon=True)

    def __enter__(self) -> Prefetch[T]:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stopped.set()
        while not self._ready.empty():
            self._ready.get_nowait()
        self._thread.join()

    def __iter__(self) -> Prefetch[T]:
        return self

    def __next__(self) -> T:
        item = self._ready.get()
        if isinstance(item, BaseException):
            self._ready.put(item)
            raise item
        return item[0]

    def _work(self) -> None:
        """Fill the queue until the items or the user end."""
        try:
            for item in self._items:
                if not self._put((item,)):
                    return
            self._put(StopIteration())
        except BaseException as error:
            self._put(error)

    def _put(self, item: tuple[T] | BaseException) -> bool:
        """Whether there was room for the item before the user ended."""
        while not self._stopped.is_set():
            try:
                self._ready.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False
