"""The end of a run when one of its processes fails: the others end too, and its own error is told last."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from torch.distributed.elastic.multiprocessing.errors import get_error_handler

from tp_ext.errors import UserError
from tp_ext.train import processes as process_group
from tp_ext.train.processes import Processes

OTHERS_FIRST = 3.0
"""Seconds that the process that failed leaves to the others for their line."""
PATIENCE = timedelta(seconds=10)
"""How long a process waits to hear whether another one has made out the same mistake."""
_LOST = ("connection closed by peer", "connection reset by peer", "broken pipe", "connection refused", "socket closed",
         "remote process exited", "nccl communicator was aborted", "socket timeout", "timed out waiting")  # fmt: skip
"""What gloo, NCCL and torch's store say when another process is not there any more."""


@contextmanager
def told_last(processes: Processes) -> Iterator[None]:
    """Let an error inside end all processes: its connections are closed, which ends the others, then it is told.

    Where the error is that the connection to another process was lost, one line says so instead. A user's mistake that
    all processes made out is told by the first, and by the process that did when it was one alone.
    """
    try:
        yield
    except UserError as error:
        if processes.world_size > 1 and not _is_left_to_first(error, processes):
            _hang_up(error)
            print(f"error: process {processes.rank} of {processes.world_size}: {error}", file=sys.stderr, flush=True)
            sys.exit(2)
        raise
    except Exception as error:
        if processes.world_size == 1:
            raise
        if is_lost(error):
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the launcher's, who has seen the others end
            _say_lost(processes)
            sys.exit(1)
        _hang_up(error)
        raise


def _hang_up(error: BaseException) -> None:
    """End the others, and leave them the time to say so; torchrun, if it is there, is told whose error came first."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if "TORCHELASTIC_ERROR_FILE" in os.environ:
        get_error_handler().record_exception(error)
        time.sleep(1)  # it compares whole seconds
    process_group.hang_up()
    time.sleep(OTHERS_FIRST)


def _is_left_to_first(error: UserError, processes: Processes) -> bool:
    """Whether this is the first process, or that one has made out the same mistake.

    Over torch's store, as nobody knows where the others are: they may wait in an exchange of tensors.
    """
    store = process_group.store()
    try:
        if processes.is_first:
            store.set("mistake", str(error))
            store.wait([f"heard by {rank}" for rank in range(1, processes.world_size)], PATIENCE)
            return True
        store.wait(["mistake"], PATIENCE)
        told = store.get("mistake")
        store.set(f"heard by {processes.rank}", "")
        return bool(told == str(error).encode())
    except RuntimeError:  # nothing came in time
        return processes.is_first


def is_lost(error: BaseException | None) -> bool:
    """Whether an error, or what it came from, is that the connection to another process was lost."""
    while error is not None:
        if isinstance(error, (RuntimeError, ConnectionError)) and any(part in str(error).lower() for part in _LOST):
            return True
        error = error.__cause__ or error.__context__
    return False


def _say_lost(processes: Processes) -> None:
    print(
        f"process {processes.rank} of {processes.world_size}: the connection to another process was lost; that one tells "
        "its error itself, unless it was killed (out of memory?) or its machine is gone",
        file=sys.stderr, flush=True,
    )  # fmt: skip
