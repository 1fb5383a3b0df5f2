"""Whether who started this process is still there."""

from __future__ import annotations

import os
from pathlib import Path

DEEPSPEED = b"deepspeed.launcher.launch"


class Launcher:
    """What started this process: its parent and, of DeepSpeed's launcher, the command that the user gave.

    That command has no handler for SIGTERM when it starts processes on its own machine: it ends, and what it started
    does not hear of it.
    """

    def __init__(self) -> None:
        self._parent = os.getppid()
        self._command = _parent_of(self._parent) if DEEPSPEED in _words(self._parent) else None

    def is_gone(self) -> bool:
        """Whether one of them has ended."""
        return os.getppid() != self._parent or (
            self._command is not None and _parent_of(self._parent) != self._command
        )


def _parent_of(process: int) -> int | None:
    """The parent of a process; None where the system does not say."""
    try:
        after_name = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2]
        return int(after_name.split()[1])
    except (OSError, ValueError):
        return None


def _words(process: int) -> list[bytes]:
    """The command line of a process."""
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return []
