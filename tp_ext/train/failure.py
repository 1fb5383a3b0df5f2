"""The end of a run when one of its processes fails: the others end too, and its own error is told last."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tp_ext.errors import UserError
from tp_ext.train import processes as process_group
from tp_ext.train.processes import Processes

OTHERS_FIRST = 3.0
"""Seconds that the process that failed leaves to the others for their line."""
_LOST = ("connection closed by peer", "connection reset by peer", "broken pipe", "connection refused", "socket closed",
         "remote process exited", "nccl communicator was aborted", "socket timeout", "timed out waiting")  # fmt: skip
"""What gloo, NCCL and torch's store say when another process is not there any more."""


@contextmanager
def told_last(processes: Processes) -> Iterator[None]:
    """Let an error inside end all processes: its connections are closed, which ends the others, then it is raised.

    Where the error is that the connection to another process was lost, one line says so instead. A UserError is raised
    by all processes together and passes.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if processes.world_size == 1:
            raise
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the launcher's, who has seen the others end
        if is_lost(error):
            _say_lost(processes)
            sys.exit(1)
        process_group.hang_up()
        time.sleep(OTHERS_FIRST)
        raise


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
