"""The weights of a model in one or more files, read lazily and strictly."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch

from tp_ext.checkpoint.containers import open_file
from tp_ext.checkpoint.tensors import DTYPES, Entry, Shape, Span, Tensor
from tp_ext.errors import CheckpointError, suggest
from tp_ext.settings import read_json

__all__ = ["DTYPES", "Weights", "compare_names", "compare_shapes", "open_indexed"]

Shapes = Mapping[str, Shape]


class Weights:
    """Tensors by name; a tensor is read when it is asked for."""

    def __init__(self, path: Path, entries: Mapping[str, Entry]) -> None:
        self.path = path
        self.entries = entries
        self.shapes: dict[str, Shape] = {name: entry.shape for name, entry in entries.items()}
        self.dtypes: dict[str, torch.dtype] = {name: entry.dtype for name, entry in entries.items()}

    @classmethod
    def open(cls, path: Path, files: Iterable[Path]) -> Weights:
        """The tensors of all `files`.

        Raises CheckpointError when a file is missing, damaged, or two files hold the same name.
        """
        entries: dict[str, Entry] = {}
        for file in files:
            for name, entry in open_file(file).items():
                if name in entries:
                    raise CheckpointError(f"{file}: holds {name}, which another file holds too")
                entries[name] = entry
        return cls(path, entries)

    def names(self) -> list[str]:
        """Names of all tensors."""
        return list(self.entries)

    def read(self, name: str, span: Span | None = None) -> Tensor:
        """One tensor, or a span of it."""
        return self.entries[name].part(span)


def open_indexed(folder: Path, stem: str, suffixes: Iterable[str]) -> Weights | None:
    """The weights `stem`.suffix in `folder`, in one file or in shards with an index; None when there are none.

    Raises CheckpointError when the index and the shards disagree, or it names files elsewhere.
    """
    for suffix in suffixes:
        index_file = folder / f"{stem}{suffix}.index.json"
        if index_file.is_file():
            weight_map = read_json(index_file, CheckpointError).get("weight_map")
            if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
                raise CheckpointError(f"{index_file}: has no weight_map of names to files")
            files = dict.fromkeys(weight_map.values())
            outside = [name for name in files if Path(name).name != name or name in ("", ".", "..")]
            if outside:
                raise CheckpointError(f"{index_file}: names {outside[0]!r}, which is not a file in its folder")
            weights = Weights.open(folder, [folder / name for name in files])
            compare_names(weights.names(), weight_map, str(folder), "its index")
            return weights
        if (folder / f"{stem}{suffix}").is_file():
            return Weights.open(folder, [folder / f"{stem}{suffix}"])
    return None


def compare_names(found: Iterable[str], expected: Iterable[str], where: str, by: str) -> None:
    """Raise CheckpointError naming every tensor that is missing or not expected `by` something."""
    problems = _name_problems(set(found), set(expected), by)
    if problems:
        raise CheckpointError(f"{where}: {'; '.join(problems)}")


def compare_shapes(found: Shapes, expected: Shapes, where: str, by: str) -> None:
    """Raise CheckpointError naming every missing, unexpected and misshapen tensor in one message."""
    problems = _name_problems(set(found), set(expected), by)
    wrong = [name for name in expected if name in found and tuple(found[name]) != tuple(expected[name])]
    if wrong:
        shapes = [f"{name} is {list(found[name])} instead of {list(expected[name])}" for name in wrong]
        problems.append(f"{len(wrong)} of another shape than {by} gives: {_list(shapes)}")
    if problems:
        raise CheckpointError(f"{where}: {'; '.join(problems)}")


def _name_problems(found: set[str], expected: set[str], by: str) -> list[str]:
    problems = []
    if missing := sorted(expected - found):
        problems.append(f"{len(missing)} missing that {by} needs: {_list(missing)}")
    if unexpected := sorted(found - expected):
        hint = suggest(unexpected[0], expected) if len(unexpected) == 1 and missing else ""
        problems.append(f"{len(unexpected)} that {by} does not know: {_list(unexpected)}{hint}")
    return problems


def _list(names: list[str], most: int = 8) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
