"""Pieces of work done by this process or by several, their results in order."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from tp_ext.errors import UserError

P = TypeVar("P")
R = TypeVar("R")


def in_order(
    parts: Iterable[P], work: Callable[[P], R], make_work: Callable[[], Callable[[P], R]], processes_num: int,
    kind: type[UserError],
) -> Iterator[tuple[P, R]]:  # fmt: skip
    """Every part with what `work` makes of it, in the order of `parts`, by this process and `processes_num` - 1 others.

    Those others call `make_work`, which like parts and results can be pickled, for a `work` of their own. Raises what
    the work raises, and `kind` when a process dies.
    """
    if processes_num == 1:
        yield from ((part, work(part)) for part in parts)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes_num - 1, context, _start, (make_work,)) as pool:
        try:
            yield from _shared_out(iter(parts), work, pool, processes_num + 1)
        except BrokenProcessPool:
            raise kind(
                "one of the processes has died, as when memory runs out; the same command goes on from here, perhaps with "
                "fewer --processes_num"
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)


def _shared_out(
    parts: Iterator[P], work: Callable[[P], R], pool: ProcessPoolExecutor, most: int
) -> Iterator[tuple[P, R]]:
    """All parts, done by the pool once it has started and, while the next is not ready, by this process.

    At most `most` are in the hands of the pool, and as many wait for their turn.
    """
    waiting: deque[tuple[P, Future[R | UserError] | R]] = deque()
    started = pool.submit(bool)
    left = True
    while left or waiting:
        while left and started.done() and _unfinished(waiting) < most and len(waiting) < 2 * most:
            part = next(parts, None)
            left = part is not None
            if part is not None:
                waiting.append((part, pool.submit(_work, part)))
        if left and (not waiting or (_unfinished([waiting[0]]) and len(waiting) < 2 * most)):
            part = next(parts, None)
            left = part is not None
            if part is not None:
                waiting.append((part, work(part)))
        elif waiting:
            part, found = waiting.popleft()
            result = found.result() if isinstance(found, Future) else found
            if isinstance(result, UserError):
                raise result
            yield part, result


def _unfinished(results: Iterable[tuple[P, Future[R | UserError] | R]]) -> int:
    return sum(isinstance(found, Future) and not found.done() for _, found in results)


class _Process:
    """What a process knows of its work."""

    make_work: Callable[[], Callable[[Any], Any]]
    work: Callable[[Any], Any] | None = None


def _start(make_work: Callable[[], Callable[[Any], Any]]) -> None:
    _Process.make_work = make_work
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process tells this one when to end
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _work(part: Any) -> Any:
    try:
        if _Process.work is None:
            _Process.work = _Process.make_work()
        return _Process.work(part)
    except UserError as error:
        return error
