"""How DeepSpeed's checkpoints get onto the disk: past the system's cache, and hashed while they are written."""

from __future__ import annotations

from pathlib import Path
from typing import IO, Any, cast

import torch
from deepspeed.runtime.checkpoint_engine import TorchCheckpointEngine

from tp_ext.checkpoint.ahead import Behind
from tp_ext.checkpoint.containers.output_file import OutputFile


class HashingEngine(TorchCheckpointEngine):  # type: ignore[misc]
    """Writes what DeepSpeed saves, in files of torch.save; reads them as DeepSpeed does."""

    def __init__(self) -> None:
        super().__init__()
        self.written: dict[Path, dict[str, Any]] = {}
        """What a manifest says of each file that was written."""

    def save(self, state_dict: Any, path: str) -> None:
        """Write a file. Raises OSError."""
        behind = Behind()
        file = _Written(Path(path), behind)
        try:
            torch.save(state_dict, cast(IO[bytes], file))
            said = file.close()
        except RuntimeError as error:
            raise file.problem or error from None
        finally:
            file.close()
            behind.close()
        assert said
        self.written[Path(path)] = said.result()


class _Written(OutputFile):
    """A file that torch.save writes to, which reuses the memory of a piece as soon as it is written."""

    problem: OSError | None = None
    """Why nothing more was written; torch tells only that it was so."""

    def write(self, content: bytes | memoryview) -> int:
        """Write and hash the next bytes."""
        try:
            written = super().write(content)
        except OSError as error:
            self.problem = error
            raise
        assert self._behind
        self._behind.wait()
        return written
