"""safetensors files: eight bytes of header length, a JSON header, the bytes of the tensors.

Format: https://huggingface.co/docs/safetensors
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from tp_ext.checkpoint.containers.output_file import OutputFile, Said
from tp_ext.checkpoint.containers.pieces import Pieces
from tp_ext.checkpoint.tensors import TYPES, Entry, Slot, Tensor, bytes_of
from tp_ext.errors import CheckpointError

_KNOWN = ("F32", "BF16", "F16")


def open_file(file: Path) -> dict[str, Entry]:
    """The tensors of a file. Raises CheckpointError when it is damaged, or one is of another type than the known ones."""
    try:
        handle = safe_open(file, framework="pt")
        names = list(handle.keys())
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{file}: damaged or cut short ({error})") from None

    def reader(name: str) -> Callable[[], Tensor]:
        # opened anew: the pages of all that was read through one handle stay in memory as long as the handle does
        return lambda: safe_open(file, framework="pt").get_tensor(name)

    found = {}
    for name in names:
        view = handle.get_slice(name)
        if view.get_dtype() not in _KNOWN:
            raise CheckpointError(f"{file}: {name} is {view.get_dtype()}; expected one of {', '.join(_KNOWN)}")
        found[name] = Entry(tuple(view.get_shape()), TYPES[view.get_dtype()], reader(name))
    return found


class SafetensorsWriter:
    """A safetensors file being written."""

    def __init__(self, path: Path, slots: Mapping[str, Slot], copies: Mapping[str, str], pieces: Pieces) -> None:
        assert not copies, "safetensors has no two names for one tensor"
        self._slots: Iterator[Slot] = iter(slots.values())
        self._file = OutputFile(path, pieces)
        self._file.write(_header(slots))

    def add(self, tensor: Tensor) -> None:
        """Write the next tensor."""
        slot = next(self._slots)
        assert tuple(tensor.shape) == slot.shape, (tensor.shape, slot)
        self._file.write(bytes_of(tensor, slot.type))

    def close(self) -> Said:
        """Write what belongs to the end."""
        return self._file.close()


def _header(slots: Mapping[str, Slot]) -> bytes:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, slot in slots.items():
        header[name] = {"dtype": slot.type, "shape": list(slot.shape), "data_offsets": [offset, offset + slot.bytes]}
        offset += slot.bytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text
