"""What a format is: how a model kept in it is recognised, opened, and laid out in files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tp_ext.checkpoint.containers import Container
from tp_ext.checkpoint.layout import Layout
from tp_ext.checkpoint.source import WHOLE, Degree, Named, Source
from tp_ext.checkpoint.tensors import Shape, Slot
from tp_ext.config import ModelConfig
from tp_ext.errors import CheckpointError, ConfigError
from tp_ext.registry import Family, Registry
from tp_ext.settings import read_json


@dataclass(frozen=True)
class Target:
    """What is to be written, beside the format."""

    type: str
    """Of the matrices: one of TYPES."""
    degree: Degree = WHOLE


@dataclass(frozen=True)
class Plan:
    """The files of a model that is to be written."""

    container: Container
    layout: Layout
    slots: Mapping[str, Slot]
    read: Callable[[], Named]
    """The tensors of the slots, in the order of the layout."""


@dataclass(frozen=True, kw_only=True)
class Format:
    """A format. Its tables of names are in the families."""

    name: str
    title: str
    """What it is, in a line for people."""
    holds: Callable[[Path], bool]
    """Whether a path looks like a model in this format; by the names of files alone."""
    open: Callable[[Path, Registry[Family], Path | None], Source]
    """A model in this format; the last argument is a JSON with its sizes, for one that has none beside it."""
    plan: Callable[[Path, Source, Target], Plan] | None = None
    """Lay a model out and write into the folder what is beside the weights; None for formats that are only read."""
    type_of: Callable[[Shape, str], str] = lambda shape, kind: kind
    """The type that a tensor of that shape is kept as, where matrices are of the given one."""
    keeps_padding: bool = False
    """Whether rows that only fill the vocabulary up stay."""
    is_cut: bool = False
    """Whether it is written for a degree of parallelism."""


def slots_of(shapes: Mapping[str, Shape], kind: str) -> dict[str, Slot]:
    """Slots of one type for tensors of these shapes."""
    return {name: Slot(shape, kind) for name, shape in shapes.items()}


def our_config(path: Path, config_path: Path | None) -> ModelConfig:
    """The configuration of a model whose JSON is TencentPretrain's. Raises ConfigError, CheckpointError."""
    folder = path if path.is_dir() else path.parent
    beside = folder / "config.json"
    if config_path is None or (path.is_dir() and beside.is_file()):
        config_path = beside
    if not config_path.is_file():
        raise CheckpointError(f"{path}: no {config_path} with the model's sizes; name its JSON with --config_path")
    return ModelConfig.from_json(read_json(config_path, ConfigError), str(config_path))
