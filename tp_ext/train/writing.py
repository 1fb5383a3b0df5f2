"""What is done when the disk takes no more of a checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

WRITER = "[enforce fail at inline_container"
"""What torch's writer of checkpoints begins with when it cannot write."""


def is_of_disk(error: Exception) -> bool:
    """Whether an error is that a file could not be written."""
    return isinstance(error, OSError) or (isinstance(error, RuntimeError) and str(error).startswith(WRITER))


@contextmanager
def kept_for_the_end(engine: Any) -> Iterator[None]:
    """Let DeepSpeed's `engine` come to the end of a save when a file cannot be written; then raise the first error.

    In the middle of it the other processes wait for this one, which an error would keep from ever coming there.
    """
    problems: list[Exception] = []

    def careful(write: Callable[..., None]) -> Callable[..., None]:
        def run(*args: Any, **named: Any) -> None:
            if problems:
                return
            try:
                write(*args, **named)
            except (OSError, RuntimeError) as error:
                if not is_of_disk(error):
                    raise
                problems.append(error)

        return run

    writer = engine.checkpoint_engine
    known = writer.save, engine._copy_recovery_script
    writer.save, engine._copy_recovery_script = map(careful, known)
    try:
        yield
    finally:
        writer.save, engine._copy_recovery_script = known
    if problems:
        raise problems[0]
