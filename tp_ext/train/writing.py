"""How DeepSpeed's checkpoints get onto the disk: past the system's cache, and hashed while they are written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

import torch
from deepspeed.runtime.checkpoint_engine import TorchCheckpointEngine

from tp_ext.checkpoint.containers.output_file import OutputFile
from tp_ext.checkpoint.containers.pieces import Pieces


@contextmanager
def writing(engine: Any) -> Iterator[dict[Path, dict[str, Any]]]:
    """What a manifest says of each file that DeepSpeed's `engine` saves in the block.

    An error of the disk is raised at the end of it: in the middle the other processes wait for this one, which the error
    would keep from ever coming there.
    """
    engine.checkpoint_engine = writer = _Engine()
    copy_script = engine._copy_recovery_script
    engine._copy_recovery_script = writer.kept(copy_script)
    try:
        yield writer.written
    finally:
        engine._copy_recovery_script = copy_script
    if writer.problem:
        raise writer.problem


class _Engine(TorchCheckpointEngine):  # type: ignore[misc]
    """Writes what DeepSpeed saves, in files of torch.save, until the disk takes no more; reads as DeepSpeed does."""

    def __init__(self) -> None:
        super().__init__()
        self.written: dict[Path, dict[str, Any]] = {}
        self.problem: OSError | None = None

    def save(self, state_dict: Any, path: str) -> None:
        """Write a file."""
        self.kept(self._save)(state_dict, Path(path))

    def _save(self, state_dict: Any, path: Path) -> None:
        self.written[path] = write(state_dict, path)

    def kept(self, write: Callable[..., None]) -> Callable[..., None]:
        """A function that writes as `write` does, or nothing behind the first problem, which it keeps."""

        def run(*args: Any, **named: Any) -> None:
            try:
                if not self.problem:
                    write(*args, **named)
            except OSError as error:
                self.problem = error

        return run


def write(values: Any, path: Path) -> dict[str, Any]:
    """Write a file of torch.save; what a manifest says of it. Raises OSError."""
    with Pieces() as pieces:
        file = OutputFile(path, pieces)
        try:
            torch.save(values, cast(IO[bytes], file))
        except RuntimeError as error:
            raise file.problem or error from None  # torch tells only that nothing more was written
        finally:
            said = file.close()
        return said.result()
