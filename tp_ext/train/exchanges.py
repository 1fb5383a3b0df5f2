"""How long a process is held up by its exchanges with others."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

Mark = float | torch.cuda.Event
"""A point in time: seconds on a CPU, and on a GPU one in its queue, so that nothing waits for it."""
OPERATIONS = (
    "all_reduce", "inference_all_reduce", "all_reduce_coalesced", "reduce", "reduce_scatter", "reduce_scatter_tensor",
    "broadcast", "broadcast_object_list", "all_gather", "all_gather_into_tensor", "all_gather_coalesced",
    "all_gather_object", "all_to_all_single", "all_to_all", "send", "recv", "isend", "irecv", "gather", "scatter", "barrier",
)  # fmt: skip
"""What DeepSpeed's backend is asked for."""


class Exchanges:
    """Marks before and after every exchange, and every wait for the end of one that was begun before.

    Waiting for a slower process is in it; what goes on beside computation is not. On a GPU only what the main queue is
    held up by is marked, not what DeepSpeed does in a queue of its own.
    """

    def __init__(self, device: torch.device, backend: Any) -> None:
        """`backend` is DeepSpeed's (`deepspeed.comm.comm.cdb`); the operations of this object are replaced."""
        self._queue = torch.cuda.current_stream(device) if device.type == "cuda" else None
        self._marks: list[tuple[Mark, Mark]] = []
        self._is_inside = False
        for name in OPERATIONS:
            if operation := getattr(backend, name, None):
                setattr(backend, name, self._marked(operation))

    def take(self) -> list[tuple[Mark, Mark]]:
        """The beginning and end of every exchange since the last call."""
        marks, self._marks = self._marks, []
        return marks

    def _marked(self, operation: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **named: Any) -> Any:
            with self._during():
                work = operation(*args, **named)
            return _Work(work, self._marked(work.wait)) if hasattr(work, "wait") else work

        return run

    @contextmanager
    def _during(self) -> Iterator[None]:
        if self._is_inside or (self._queue is not None and torch.cuda.current_stream() != self._queue):
            yield
            return
        self._is_inside, start = True, mark(self._queue is not None)
        try:
            yield
        finally:
            self._marks.append((start, mark(self._queue is not None)))
            self._is_inside = False


class _Work:
    """An exchange that was begun, as torch gives it, whose end is waited for with `wait`."""

    def __init__(self, work: Any, wait: Callable[..., Any]) -> None:
        self._work, self.wait = work, wait

    def __getattr__(self, name: str) -> Any:
        return getattr(self._work, name)


def mark(on_gpu: bool) -> Mark:
    """The present."""
    if not on_gpu:
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def between(start: Mark, stop: Mark) -> float:
    """Seconds from one mark to another."""
    if isinstance(start, float) or isinstance(stop, float):
        assert isinstance(start, float) and isinstance(stop, float)
        return stop - start
    return float(start.elapsed_time(stop)) / 1000
