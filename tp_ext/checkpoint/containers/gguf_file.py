"""GGUF files: llama.cpp's container of keys, values and tensors. They are written through the gguf package.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from tp_ext.checkpoint.tensors import TYPES, Entry, Shape, Slot, Span, Tensor, bytes_of, dequantize
from tp_ext.errors import CheckpointError
from tp_ext.tokens.gguf_vocabulary import gguf_package

_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_STRING, _ARRAY = 8, 9
_TENSOR_TYPES = {0: "F32", 1: "F16", 8: "Q8_0", 30: "BF16"}
_HEADER_BYTES = 1 << 30
"""Keys and names never take more; the largest vocabularies have some 20 MB."""


def read_file(file: Path) -> tuple[dict[str, Any], dict[str, Entry]]:
    """Keys with their values, and tensors.

    Raises CheckpointError when the file is damaged, or has tensors of another type than the known ones. Read here and not
    by the gguf package, which believes every count it finds.
    """
    if not file.is_file():
        raise CheckpointError(f"{file}: no such file")
    with open(file, "rb") as content:
        try:
            return _read(file, _Cursor(content, min(file.stat().st_size, _HEADER_BYTES)))
        except (struct.error, ValueError, UnicodeDecodeError, KeyError) as error:
            raise CheckpointError(f"{file}: damaged or cut short ({str(error)[:100]})") from None


class _Cursor:
    """A place in the file, which never moves past its end."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._size = file, size

    @property
    def place(self) -> int:
        return self._file.tell()

    def take(self, count: int) -> bytes:
        if count > self._size - self.place:
            raise ValueError(f"{count} bytes are wanted at {self.place}, of {self._size}")
        return self._file.read(count)

    def number(self, form: str) -> Any:
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def string(self) -> str:
        return self.take(self.number("<Q")).decode("utf-8", "surrogateescape")

    def value(self, kind: int) -> Any:
        if kind == _STRING:
            return self.string()
        if kind != _ARRAY:
            return self.number(_SCALARS[kind])
        of, count = self.number("<I"), self.number("<Q")
        if of == _ARRAY:
            raise ValueError("an array of arrays")
        if of == _STRING:
            return [self.string() for _ in range(count)]
        content = self.take(count * struct.calcsize(_SCALARS[of]))
        return np.frombuffer(content, _SCALARS[of]).tolist()


def _read(file: Path, cursor: _Cursor) -> tuple[dict[str, Any], dict[str, Entry]]:
    if cursor.take(4) != b"GGUF" or cursor.number("<I") not in (2, 3):
        raise ValueError("does not begin as a GGUF file of version 2 or 3")
    tensors, keys = cursor.number("<Q"), cursor.number("<Q")
    values: dict[str, Any] = {}
    for _ in range(keys):
        name = cursor.string()
        if name in values:
            raise ValueError(f"the key {name!r} is given twice")
        values[name] = cursor.value(cursor.number("<I"))
    infos: dict[str, tuple[Shape, int, int]] = {}
    for _ in range(tensors):
        name = cursor.string()
        if name in infos:
            raise ValueError(f"holds {name} twice")
        shape = tuple(cursor.number("<Q") for _ in range(min(cursor.number("<I"), 5)))
        infos[name] = shape[::-1], cursor.number("<I"), cursor.number("<Q")
    alignment = values.get("general.alignment", 32)
    if not isinstance(alignment, int) or alignment < 1:
        raise ValueError(f"general.alignment is {alignment!r}")
    begin = -(-cursor.place // alignment) * alignment
    entries = {name: _entry(file, name, begin, *info) for name, info in infos.items()}
    _check_apart({name: (offset, Slot(shape, _TENSOR_TYPES[kind])) for name, (shape, kind, offset) in infos.items()})
    return values, entries


def _check_apart(slots: Mapping[str, tuple[int, Slot]]) -> None:
    """Raise ValueError when two tensors share bytes."""
    end, before = 0, ""
    for name, (offset, slot) in sorted(slots.items(), key=lambda item: (item[1][0], item[1][1].bytes)):
        if offset < end and slot.bytes:
            raise ValueError(f"{name} begins inside {before}")
        end, before = offset + slot.bytes, name


def _entry(file: Path, name: str, begin: int, shape: Shape, kind: int, offset: int) -> Entry:
    if kind not in _TENSOR_TYPES:
        raise CheckpointError(f"{file}: {name} is of GGUF's type {kind}; expected one of {', '.join(TYPES)}")
    slot = Slot(shape, _TENSOR_TYPES[kind])
    if begin + offset + slot.bytes > file.stat().st_size:
        raise ValueError(f"{name} ends behind the file")
    offset += begin

    def cut(span: Span) -> Tensor:
        if span.axis > 0 or len(shape) < 2:
            return span.of(_numbers(file, slot, offset))
        above, rows = (Slot((count, *shape[1:]), slot.type) for count in (span.start, span.stop - span.start))
        return _numbers(file, rows, offset + above.bytes)

    return Entry(shape, TYPES[slot.type], lambda: _numbers(file, slot, offset), cut=cut)


def _numbers(file: Path, slot: Slot, offset: int) -> Tensor:
    """What lies at a place of the file."""
    content = torch.from_numpy(np.fromfile(file, np.uint8, slot.bytes, offset=offset))
    if slot.type == "Q8_0":
        return dequantize(content.view(*slot.shape[:-1], -1))
    return content.view(TYPES[slot.type]).view(slot.shape)


class GgufWriter:
    """A GGUF file being written; `prepare` adds the keys."""

    def __init__(self, path: Path, slots: Mapping[str, Slot], architecture: str, prepare: Callable[[Any], None]) -> None:
        gguf = gguf_package()
        self._slots: Iterator[Slot] = iter(slots.values())
        self._writer = gguf.GGUFWriter(path, architecture)
        prepare(self._writer)
        for name, slot in slots.items():
            kind = gguf.GGMLQuantizationType[slot.type]
            shape = gguf.quant_shape_to_byte_shape(slot.shape, kind) if slot.type == "Q8_0" else slot.shape
            numbers = np.dtype(np.uint8) if slot.type == "Q8_0" else np.dtype(np.float32)
            self._writer.add_tensor_info(name, shape, numbers, slot.bytes, kind)
        self._writer.write_header_to_file()
        self._writer.write_kv_data_to_file()
        self._writer.write_ti_data_to_file()

    def add(self, tensor: Tensor) -> None:
        """Write the next tensor."""
        slot = next(self._slots)
        assert tuple(tensor.shape) == slot.shape, (tensor.shape, slot)
        self._writer.write_tensor_data(np.frombuffer(bytes_of(tensor, slot.type), np.uint8))

    def close(self) -> None:
        """Write what belongs to the end."""
        self._writer.close()
