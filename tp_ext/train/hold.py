"""The folder of a run, which one run has at a time."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

from tp_ext.train import resume
from tp_ext.train.processes import Processes
from tp_ext.train.report import say


def hold(output: Path, processes: Processes) -> None:
    """Keep other runs out of `output` while this process lives, and remove what one that was killed left half.

    Raises CheckpointError, in all processes, when another run is at work there. Where the disk knows no locks nothing is
    kept out.
    """
    problem = None
    if processes.is_first:
        output.mkdir(parents=True, exist_ok=True)
        folder = os.open(output, os.O_RDONLY)  # its lock ends with the process
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno == errno.EWOULDBLOCK:
                problem = f"{output}: another run is at work here; wait for it, or name another output_model_path"
    processes.agree(problem)
    if processes.is_first:
        for name in resume.remove_parts(output):
            say(f"removed {name}, a checkpoint that a run left half")
