"""Reading files of torch.save: a zip archive of a pickle, which names the tensors, and a record for each storage.

The pickle is not executed: an unpickler that knows tensors, storages and plain values reads which record, shape and type
a name has. Every record has a CRC-32 in the archive, which is compared when it is read.
"""

from __future__ import annotations

import collections
import io
import mmap
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tp_ext.checkpoint.tensors import TYPE_OF, TYPES, Entry, Shape, Tensor
from tp_ext.errors import CheckpointError

PICKLE_BYTES = 256 << 20
"""A pickle longer than this is no checkpoint's: one of 100,000 tensors has about 20 MB."""
STORAGES = {"F32": torch.FloatStorage, "BF16": torch.BFloat16Storage, "F16": torch.HalfStorage}
_LENGTHS = struct.Struct("<26xHH")
"""Where a record's own header, which is 30 bytes long, has the lengths of its name and its extra field."""


@dataclass(frozen=True)
class _Storage:
    """A record of the archive, as the pickle names it."""

    key: str
    dtype: torch.dtype | None


@dataclass(frozen=True)
class _View:
    """A tensor, as the pickle describes it."""

    storage: _Storage
    offset: int
    shape: Shape
    stride: Shape


def open_file(file: Path) -> dict[str, Entry]:
    """The tensors of a file, those of DeepSpeed under its key `module`.

    Raises CheckpointError when the file is damaged, holds code, or anything but tensors by name. A file older than
    torch 1.6, which is no zip archive, is read into memory.
    """
    values = read_values(file)
    module = values.get("module") if isinstance(values, dict) else None
    if isinstance(module, dict) and module:  # as DeepSpeed keeps a model beside the state of its engine
        values = module
    if not isinstance(values, dict) or not all(isinstance(value, Entry) for value in values.values()):
        raise CheckpointError(f"{file}: expected tensors by name, found something else")
    for name, entry in values.items():
        if entry.dtype not in TYPE_OF:
            kind = str(entry.dtype).removeprefix("torch.")
            raise CheckpointError(f"{file}: {name} is {kind}; expected float32, bfloat16 or float16")
    return values


def read_values(file: Path) -> Any:
    """What was saved in a file, with an Entry for each tensor. Raises CheckpointError as `open_file`."""
    with open(file, "rb") as start:
        is_zip = start.read(2) == b"PK"
    try:
        return _read_zip(file) if is_zip else _read_old(file)
    except pickle.UnpicklingError as error:
        named = f" ({error})" if is_zip and str(error) else ""
        raise CheckpointError(
            f"{file}: holds more than tensors{named}, or is no checkpoint; such a file can run code and is not opened"
        ) from None
    except (zipfile.BadZipFile, RuntimeError, OSError, EOFError, ValueError, KeyError, TypeError, AttributeError,
            IndexError, MemoryError, struct.error, NotImplementedError) as error:  # fmt: skip
        raise CheckpointError(f"{file}: damaged or cut short ({str(error)[:100] or type(error).__name__})") from None


def _read_old(file: Path) -> Any:
    values: Any = torch.load(file, map_location="cpu", weights_only=True)
    return _entries(values, Tensor, lambda tensor: Entry(tuple(tensor.shape), tensor.dtype, lambda: tensor))


def _read_zip(file: Path) -> Any:
    archive = _Archive(file)
    content = archive.read("data.pkl", PICKLE_BYTES)
    order = archive.read("byteorder", 16) if "byteorder" in archive.records else b"little"
    if order != b"little":
        raise CheckpointError(f"{file}: was written on a big-endian machine; save it again on a usual one")
    values = _Names(io.BytesIO(content)).load()
    return _entries(values, _View, archive.entry)


def _entries(value: Any, of: type, make: Callable[[Any], Entry]) -> Any:
    """`value` with an Entry in the place of every tensor."""
    if isinstance(value, of):
        return make(value)
    if isinstance(value, dict):
        return {key: _entries(each, of, make) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_entries(each, of, make) for each in value]
    return value


class _Archive:
    """The records of a zip archive, found by the part of their name behind the archive's own."""

    def __init__(self, file: Path) -> None:
        self._file = file
        with zipfile.ZipFile(file) as archive:
            infos = archive.infolist()
        top = {info.filename.split("/")[0] for info in infos}
        if len(top) != 1:
            raise ValueError("no archive of torch.save")
        self.records = {info.filename.split("/", 1)[-1]: info for info in infos}
        if len(self.records) != len(infos):
            raise ValueError("two records of one name")

    def read(self, name: str, most: int | None = None) -> memoryview | bytes:
        """The bytes of a record. Raises CheckpointError when they are not those that were written."""
        info = self.records[name]
        if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
            raise ValueError(f"record {name} is compressed")
        if most is not None and info.file_size > most:
            raise ValueError(f"record {name} has {info.file_size} bytes")
        if info.file_size > self._file.stat().st_size:
            raise ValueError(f"record {name} is said to be longer than the file")
        content = self._content(name, 0, info.file_size)
        if zlib.crc32(content) != info.CRC:
            raise CheckpointError(f"{self._file}: damaged: the CRC-32 of {name} is not the one it was written with")
        return content if most is None else content.tobytes()

    def _content(self, name: str, start: int, stop: int) -> memoryview:
        """Bytes of a record, mapped so that they take no memory of their own; what is written to them stays here."""
        with open(self._file, "rb") as file:
            file.seek(self.records[name].header_offset)
            file.seek(sum(_LENGTHS.unpack(file.read(_LENGTHS.size))) + start, io.SEEK_CUR)
            begin, size = file.tell(), stop - start
            if begin + size > self._file.stat().st_size:
                raise CheckpointError(f"{self._file}: cut short in {name}")
            skipped = begin % mmap.ALLOCATIONGRANULARITY
            if not size:
                return memoryview(b"")
            mapped = mmap.mmap(file.fileno(), size + skipped, access=mmap.ACCESS_COPY, offset=begin - skipped)
        mapped.madvise(mmap.MADV_SEQUENTIAL)
        return memoryview(mapped)[skipped:]

    def entry(self, view: _View) -> Entry:
        """The entry of a tensor. Raises ValueError when its record is too short for it."""
        dtype, name = view.storage.dtype, f"data/{view.storage.key}"
        if dtype is None:
            return Entry(view.shape, torch.uint8, lambda: torch.empty(0))
        if len(view.shape) != len(view.stride) or min((*view.shape, *view.stride, view.offset), default=0) < 0:
            raise ValueError(f"{name} has an impossible shape")
        last = view.offset + sum((extent - 1) * step for extent, step in zip(view.shape, view.stride, strict=True))
        if 0 not in view.shape and (last + 1) * dtype.itemsize > self.records[name].file_size:
            raise ValueError(f"{name} is shorter than its tensor")

        def read() -> Tensor:
            if 0 in view.shape:
                return torch.empty(view.shape, dtype=dtype)
            flat = torch.frombuffer(self.read(name), dtype=dtype)
            return flat.as_strided(view.shape, view.stride, view.offset)

        def read_part(start: int, stop: int) -> Tensor:
            size = dtype.itemsize
            content = self._content(name, (view.offset + start) * size, (view.offset + stop) * size)
            return torch.frombuffer(content, dtype=dtype) if content else torch.empty(0, dtype=dtype)

        return Entry(view.shape, dtype, read, read_part if view.stride == (1,) else None)


def _view(storage: Any, offset: int, shape: Shape, stride: Shape, *_: Any) -> _View:
    if not isinstance(storage, _Storage):
        raise pickle.UnpicklingError
    return _View(storage, int(offset), tuple(map(int, shape)), tuple(map(int, stride)))


def _parameter(data: Any, *_: Any) -> Any:
    return data


def _of_a_type(make: Any, kind: Any, arguments: Any, state: Any) -> Any:
    """A tensor with attributes, which are left out; DeepSpeed pickles its partitions so."""
    if make is not _view:
        raise pickle.UnpicklingError
    return _view(*arguments)


class _StorageType:
    """Stands for a class of storages, whose only use is to tell the type of their values."""

    def __init__(self, name: str) -> None:
        self.dtype = next((TYPES[kind] for kind, known in STORAGES.items() if known.__name__ == name), None)


class _Inert:
    """Stands for an object of a library, such as DeepSpeed's loss scaler; none of its code is there to run."""

    def __init__(self, *_: Any) -> None:
        pass


class _Names(pickle.Unpickler):
    """Reads the names, shapes and records of tensors, and makes nothing else than plain values.

    Every global that could be called is one of the functions above, a container of plain values or inert.
    """

    _KNOWN = {  # noqa: RUF012
        ("collections", "OrderedDict"): collections.OrderedDict,
        ("torch._utils", "_rebuild_tensor_v2"): _view,
        ("torch._utils", "_rebuild_parameter"): _parameter,
        ("torch._tensor", "_rebuild_from_type_v2"): _of_a_type,
        ("torch", "Size"): tuple,
        ("torch", "Tensor"): _Inert,
        ("torch.nn.parameter", "Parameter"): _Inert,
    }

    def find_class(self, module: str, name: str) -> Any:
        """What a pickle may name. Raises UnpicklingError on anything else."""
        if (module, name) in self._KNOWN:
            return self._KNOWN[module, name]
        if module in ("torch", "torch.storage") and name.endswith("Storage"):
            return _StorageType(name)
        if module.split(".")[0] in ("deepspeed", "argparse"):
            return _Inert
        raise pickle.UnpicklingError(f"{module}.{name}")

    def persistent_load(self, pid: Any) -> _Storage:
        """A storage, which torch names by a tuple `("storage", type, key, place, elements)`."""
        if not isinstance(pid, tuple) or len(pid) != 5 or not isinstance(pid[1], _StorageType):
            raise pickle.UnpicklingError
        return _Storage(str(pid[2]), pid[1].dtype)
