"""Whether the launcher of this process is still there."""

from __future__ import annotations

import os
from pathlib import Path

DEEPSPEED, COMMAND = "deepspeed.launcher.launch", "deepspeed"


class Launcher:
    """torchrun or DeepSpeed's launcher, with the command that the user gave, where one of them started this process.

    DeepSpeed's command has no handler for SIGTERM when it starts processes on its own machine: it ends, and what it
    started does not hear of it. A shell that ends is none of this: a run may outlive it.
    """

    def __init__(self) -> None:
        parent = os.getppid()
        words, above = _words(parent), _parent_of(parent)
        is_deepspeed = DEEPSPEED in words
        self._parent = parent if is_deepspeed or "TORCHELASTIC_RUN_ID" in os.environ else None
        is_command = above is not None and any(Path(word).name == COMMAND for word in _words(above))
        self._command = above if is_deepspeed and is_command else None

    def is_gone(self) -> bool:
        """Whether one of them has ended."""
        if self._parent is None:
            return False
        return os.getppid() != self._parent or (self._command is not None and _parent_of(self._parent) != self._command)


def _parent_of(process: int) -> int | None:
    """The parent of a process; None where the system does not say."""
    try:
        after_name = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2]
        return int(after_name.split()[1])
    except (OSError, ValueError):
        return None


def _words(process: int) -> list[str]:
    """The command line of a process."""
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return []
