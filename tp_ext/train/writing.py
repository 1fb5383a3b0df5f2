"""How DeepSpeed's checkpoints get onto the disk: past the system's cache, and hashed while they are written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Semaphore
from typing import IO, Any, TypeVar, cast

import torch
from deepspeed.runtime.checkpoint_engine import TorchCheckpointEngine

from tp_ext.checkpoint.containers.output_file import OutputFile
from tp_ext.checkpoint.containers.pieces import Pieces

Result = TypeVar("Result")

_AT_ONCE = 2
"""Files that are written beside each other: one alone is not hashed as fast as a disk can take it."""


@contextmanager
def writing(engine: Any) -> Iterator[dict[Path, dict[str, Any]]]:
    """What a manifest says of each file that DeepSpeed's `engine` saves in the block, when that has ended.

    An error of the disk is raised at the end of it: in the middle the other processes wait for this one, which the error
    would keep from ever coming there.
    """
    with Pieces() as pieces, ThreadPoolExecutor(_AT_ONCE) as threads:
        engine.checkpoint_engine = writer = _Engine(pieces, threads)
        copy_script = engine._copy_recovery_script
        engine._copy_recovery_script = writer.kept(copy_script)
        written: dict[Path, dict[str, Any]] = {}
        try:
            yield written
        finally:
            engine._copy_recovery_script = copy_script
        for file, said in writer.saved.items():
            if known := said.result():
                written[file] = known
        if writer.problem:
            raise writer.problem


class _Engine(TorchCheckpointEngine):  # type: ignore[misc]
    """Writes what DeepSpeed saves, in files of torch.save, until the disk takes no more; reads as DeepSpeed does."""

    def __init__(self, pieces: Pieces, threads: ThreadPoolExecutor) -> None:
        super().__init__()
        self._pieces, self._threads = pieces, threads
        self._free = Semaphore(_AT_ONCE)
        self.saved: dict[Path, Future[dict[str, Any] | None]] = {}
        self.problem: OSError | None = None

    def save(self, state_dict: Any, path: str) -> None:
        """Write a file while DeepSpeed goes on to the next, which changes nothing that it has saved."""
        self._free.acquire()  # of a stage of a pipeline DeepSpeed copies one layer after the other for us
        self.saved[Path(path)] = said = self._threads.submit(self.kept(write), state_dict, Path(path), self._pieces)
        said.add_done_callback(lambda _: self._free.release())

    def kept(self, write: Callable[..., Result]) -> Callable[..., Result | None]:
        """A function that writes as `write` does, or nothing behind the first problem, which it keeps."""

        def run(*args: Any, **named: Any) -> Result | None:
            try:
                return None if self.problem else write(*args, **named)
            except OSError as error:
                self.problem = error
                return None

        return run


def write(values: Any, path: Path, pieces: Pieces) -> dict[str, Any]:
    """Write a file of torch.save; what a manifest says of it. Raises OSError."""
    file = OutputFile(path, pieces)
    try:
        torch.save(values, cast(IO[bytes], file))
    except RuntimeError as error:
        raise file.problem or error from None  # torch tells only that nothing more was written
    finally:
        said = file.close()
    return said.result()
