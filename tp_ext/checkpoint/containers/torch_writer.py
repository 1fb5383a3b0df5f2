"""Writing files of torch.save as a stream: an uncompressed zip archive, one record after the other."""

from __future__ import annotations

import collections
import io
import pickle
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import torch

from tp_ext.checkpoint.containers.output_file import OutputFile, Said
from tp_ext.checkpoint.containers.pieces import Pieces
from tp_ext.checkpoint.containers.torch_file import STORAGES
from tp_ext.checkpoint.tensors import Slot, Tensor, bytes_of

_ALIGNMENT = 64


class TorchWriter:
    """A file of torch.save being written, one record after the other."""

    def __init__(self, path: Path, slots: Mapping[str, Slot], copies: Mapping[str, str], pieces: Pieces) -> None:
        self._slots: Iterator[tuple[int, Slot]] = iter(enumerate(slots.values()))
        self._file = OutputFile(path, pieces)
        self._archive = zipfile.ZipFile(cast(IO[bytes], self._file), "w", zipfile.ZIP_STORED)
        self._write("data.pkl", pickle_of(slots, copies))
        self._write("byteorder", b"little")

    def _write(self, name: str, content: bytes | memoryview) -> None:
        """Write a record. zipfile itself would come back to its header, and write the CRC-32 there."""
        info = zipfile.ZipInfo(f"archive/{name}")
        is_long = len(content) >= zipfile.ZIP64_LIMIT
        info.header_offset = self._file.tell()
        begin = info.header_offset + 30 + len(info.filename) + 4 + 20 * is_long
        filling = -begin % _ALIGNMENT  # torch aligns records as well, so that they can be mapped into memory
        info.extra = struct.pack("<HH", 0x4246, filling) + b"Z" * filling
        info.file_size = info.compress_size = len(content)
        info.CRC = zlib.crc32(content)
        info.external_attr = 0o600 << 16
        self._file.write(info.FileHeader(is_long))
        self._file.write(content)
        self._archive.filelist.append(info)
        self._archive.NameToInfo[info.filename] = info
        self._archive.start_dir = self._file.tell()

    def add(self, tensor: Tensor) -> None:
        """Write the next tensor."""
        number, slot = next(self._slots)
        assert tuple(tensor.shape) == slot.shape, (tensor.shape, slot)
        self._write(f"data/{number}", bytes_of(tensor, slot.type))

    def close(self) -> Said:
        """Write what belongs to the end."""
        try:
            self._write("version", b"3\n")
            self._archive.close()
        finally:
            said = self._file.close()
        return said


class _Rebuilt:
    """A tensor that is not there, and is pickled as torch pickles tensors: a storage and a view of it."""

    def __init__(self, key: int, slot: Slot) -> None:
        self._key, self._slot = key, slot

    def __reduce__(self) -> tuple[Any, ...]:
        shape = self._slot.shape
        meta = torch.empty(shape, device="meta")
        record = _Record(self._key, self._slot.type, meta.numel())
        return torch._utils._rebuild_tensor_v2, (record, 0, shape, meta.stride(), False, collections.OrderedDict())


@dataclass(frozen=True)
class _Record:
    key: int
    type: str
    elements: int


class _Pickler(pickle.Pickler):
    def persistent_id(self, value: Any) -> Any:
        """The tuple by which torch names a storage."""
        if isinstance(value, _Record):
            return "storage", STORAGES[value.type], str(value.key), "cpu", value.elements
        return None


def pickle_of(slots: Mapping[str, Slot], copies: Mapping[str, str]) -> bytes:
    """The pickle of an archive with these tensors, in protocol 2 as torch's."""
    values: dict[str, Any] = {name: _Rebuilt(key, slot) for key, (name, slot) in enumerate(slots.items())}
    values.update({copy: values[name] for copy, name in copies.items()})
    content = io.BytesIO()
    _Pickler(content, protocol=2).dump(values)
    return content.getvalue()
