"""The kinds of file that hold tensors by name: how each is opened, and written as a stream."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tp_ext.checkpoint.containers import safetensors_file, torch_file, torch_writer
from tp_ext.checkpoint.containers.output_file import Said
from tp_ext.checkpoint.containers.pieces import Pieces
from tp_ext.checkpoint.tensors import Entry, Slot, Tensor
from tp_ext.errors import CheckpointError


class Writer(Protocol):
    """A file being written; its tensors are given in the order of its slots."""

    def add(self, tensor: Tensor) -> None:
        """Write the next tensor."""

    def close(self) -> Said | None:
        """Write what belongs to the end. Gives what a manifest says of the file, where it was hashed meanwhile."""


@dataclass(frozen=True)
class Container:
    """A kind of file."""

    suffix: str
    open: Callable[[Path], dict[str, Entry]]
    """What is in a file. Raises CheckpointError when it is damaged, or holds anything but tensors."""
    create: Callable[[Path, Mapping[str, Slot], Mapping[str, str], Pieces], Writer]
    """Begin a file with these slots; then come further names, by those of slots with the same content, and what hashes
    and writes the file."""


SAFETENSORS = Container(".safetensors", safetensors_file.open_file, safetensors_file.SafetensorsWriter)
TORCH = Container(".bin", torch_file.open_file, torch_writer.TorchWriter)


def open_file(file: Path) -> dict[str, Entry]:
    """What is in a file of tensors, of whatever kind. Raises CheckpointError."""
    if not file.is_file():
        raise CheckpointError(f"{file}: no such file")
    container = SAFETENSORS if file.suffix == SAFETENSORS.suffix else TORCH
    return container.open(file)
