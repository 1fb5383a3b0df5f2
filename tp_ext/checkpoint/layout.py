"""Which file holds which tensor, and writing many files from one stream of tensors."""

from __future__ import annotations

import json
import resource
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tp_ext.checkpoint.containers import Container, Writer
from tp_ext.checkpoint.containers.output_file import Said
from tp_ext.checkpoint.containers.pieces import Pieces
from tp_ext.checkpoint.shards import Part
from tp_ext.checkpoint.tensors import Slot, Tensor

SHARD_BYTES = 4 << 30


@dataclass(frozen=True)
class Place:
    """Where a tensor, or a part of it, is kept."""

    file: str
    name: str
    part: Part | None = None


Layout = Mapping[str, Sequence[Place]]
"""The places of each tensor, in the order in which the tensors come."""


def write_layout(
    folder: Path, container: Container, layout: Layout, slots: Mapping[str, Slot], tensors: Iterator[tuple[str, Tensor]],
    finished: Callable[[Path, Said | None], None] | None = None,
) -> None:  # fmt: skip
    """Write `tensors`, which come in the order of `layout`, to their places; one of them is in memory at a time.

    A file is open from its first tensor to its last; `finished` is told of it then, and where the files can be hashed
    while they are written, of what a manifest says. A second place in the same file is a second name for the same tensor.
    """
    by_file, copies = _by_file(layout, slots)
    _allow_files(len(by_file))
    left = {file: len(inside) for file, inside in by_file.items()}
    writers: dict[str, Writer] = {}
    with Pieces() as pieces:
        try:
            for expected in layout:
                name, tensor = next(tensors)
                assert name == expected, (name, expected)
                for place in layout[name]:
                    if place.name in copies[place.file]:
                        continue
                    if place.file not in writers:
                        path = folder / place.file
                        path.parent.mkdir(exist_ok=True)
                        writers[place.file] = container.create(path, by_file[place.file], copies[place.file], pieces)
                    writers[place.file].add(place.part.of(tensor) if place.part else tensor)
                    left[place.file] -= 1
                    if not left[place.file]:
                        said = writers.pop(place.file).close()
                        if finished:
                            finished(folder / place.file, said)
                del tensor
        finally:
            for writer in writers.values():  # after an error, which says more than theirs
                with suppress(OSError):
                    writer.close()


def _allow_files(count: int) -> None:
    """Let this process have so many files open beside the usual ones, as far as the system does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + 256
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))


def _by_file(
    layout: Layout, slots: Mapping[str, Slot]
) -> tuple[dict[str, dict[str, Slot]], dict[str, dict[str, str]]]:
    """The slots of each file, and its second names."""
    by_file: dict[str, dict[str, Slot]] = {}
    copies: dict[str, dict[str, str]] = {}
    for name, places in layout.items():
        first: dict[str, str] = {}
        for place in places:
            inside = by_file.setdefault(place.file, {})
            again = copies.setdefault(place.file, {})
            if place.file in first:
                again[place.name] = first[place.file]
                continue
            first[place.file] = place.name
            slot = slots[name]
            assert place.name not in inside, place
            inside[place.name] = Slot(place.part.shape(slot.shape), slot.type) if place.part else slot
    return by_file, copies


def _named(file: str, name: str, copies: Mapping[str, str]) -> list[Place]:
    return [Place(file, name), *([Place(file, copies[name])] if name in copies else [])]


def in_one_file(file: str, slots: Mapping[str, Slot], copies: Mapping[str, str] | None = None) -> Layout:
    """All tensors under their names in one file; `copies` are further names, by the first ones."""
    return {name: _named(file, name, copies or {}) for name in slots}


def in_shards(
    folder: Path, index: str, file: str, slots: Mapping[str, Slot], begin: int = 1, copies: Mapping[str, str] | None = None
) -> Layout:
    """The tensors in files of at most 4 GiB, called `file` with `{number}` and `{count}` filled in; writes the index."""
    shards: list[list[str]] = [[]]
    filled = 0
    for name, slot in slots.items():
        if shards[-1] and filled + slot.bytes > SHARD_BYTES:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += slot.bytes
    files = [file.format(number=number + begin, count=len(shards)) for number in range(len(shards))]
    layout = {name: _named(files[number], name, copies or {}) for number, shard in enumerate(shards) for name in shard}
    weight_map = {place.name: place.file for places in layout.values() for place in places}
    content = {"metadata": {"total_size": total_bytes(slots)}, "weight_map": weight_map}
    (folder / index).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return layout


def total_bytes(slots: Mapping[str, Slot]) -> int:
    """Room that tensors take, without the headers of the files."""
    return sum(slot.bytes for slot in slots.values())


def fits_one_file(slots: Mapping[str, Slot]) -> bool:
    """Whether the tensors are no more than one shard."""
    return total_bytes(slots) <= SHARD_BYTES
