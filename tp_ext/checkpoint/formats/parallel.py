"""Checkpoints by degree of parallelism: a file a rank (tensor), or a file a layer and rank (tensor and pipeline).

DeepSpeed keeps them in a folder of their own, the tag, beside a file `latest` that names it. TencentPretrain takes that
folder, in which nothing else may be: it goes by the order of the names of all files in it.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from tp_ext.checkpoint.containers import TORCH, torch_file
from tp_ext.checkpoint.files import Weights
from tp_ext.checkpoint.formats.format import Format, Plan, Target, our_config, slots_of
from tp_ext.checkpoint.formats.native import open_ours, tied_copies, write_our_config
from tp_ext.checkpoint.layout import Layout, Place
from tp_ext.checkpoint.shards import CUTS, Cut, axis_of, check_degree, join, joined_shape, parts_of
from tp_ext.checkpoint.source import Degree, Source
from tp_ext.checkpoint.tensors import Entry, Span, Tensor
from tp_ext.config import ModelConfig
from tp_ext.errors import CheckpointError, UserError
from tp_ext.registry import Family, Registry

TAG = "weights"
_RANK = re.compile(r"mp_rank_(\d{2,})_model_states\.pt")
_LAYER = re.compile(r"layer_(\d{2,})-model_(\d{2,})-model_states\.pt")
_OPTIMIZER = "*_optim_states.pt"


@dataclass(frozen=True)
class _Prefix:
    """What the names in a layer's file begin with, and what ours do."""

    ours: str
    theirs: str
    layer: Callable[[int], int]
    """The number of the file, in a model of that many layers."""


_PREFIXES = (
    _Prefix("embedding.",          "embeddings.",   lambda layers: 0),
    _Prefix("encoder.layer_norm.", "layer_norm.",   lambda layers: layers),
    _Prefix("target.",             "target_layer.", lambda layers: layers + 1),
)  # fmt: skip
"""Of the names outside the layers; layer i is `layer.` in the file i + 1. The last norm is in every layer's file, as
every stage of TencentPretrain's pipeline holds a copy; the last layer's is the one that is used and trained."""
_OURS_LAYER = re.compile(r"encoder\.transformer\.(\d+)\.(.*)")


def folder_of(path: Path) -> Path:
    """Where the files of the ranks are: the path, or the folder in it that `latest` names, or `weights`."""
    latest = path / "latest"
    tag = latest.read_text(encoding="utf-8", errors="replace").strip() if latest.is_file() else TAG
    inside = path / tag
    return inside if Path(tag).name == tag and inside.is_dir() else path


def numbered(path: Path, pattern: re.Pattern[str]) -> dict[tuple[int, ...], Path]:
    """Files by the numbers in their names."""
    if not path.is_dir():
        return {}
    named = ((pattern.fullmatch(file.name), file) for file in sorted(folder_of(path).iterdir()))
    return {tuple(map(int, match.groups())): file for match, file in named if match}


def has_optimizer(path: Path) -> bool:
    """Whether the state of an optimizer is there too."""
    return any(folder_of(path).glob(_OPTIMIZER))


def _holds_tensor(path: Path) -> bool:
    return bool(numbered(path, _RANK)) and not numbered(path, _LAYER) and not has_optimizer(path)


def _holds_layers(path: Path) -> bool:
    return bool(numbered(path, _LAYER))


def joined(
    path: Path, ranks: Mapping[str, list[Entry]], count: int, cuts: Sequence[Cut] = CUTS,
    ours: Mapping[str, str] | None = None,
) -> Weights:  # fmt: skip
    """Whole weights from the parts of all ranks; `ours` are the names of ours where the files have others.

    Raises CheckpointError with every reason in one message.
    """
    entries, problems = {}, []
    for name, parts in ranks.items():
        if len(parts) != count:
            problems.append(f"{name} is on {len(parts)} of {count} ranks")
            continue
        try:
            known = (ours or {}).get(name, name)
            shape = joined_shape(known, [part.shape for part in parts], cuts)
        except UserError as error:
            problems.append(str(error))
            continue
        read = _joiner(path, known, parts, cuts)
        entries[name] = Entry(shape, parts[0].dtype, read, cut=_cutter(read, parts, axis_of(known, cuts)))
        if len({part.dtype for part in parts}) > 1:
            problems.append(f"{name} is of several types")
    if problems:
        raise CheckpointError(f"{path}: {'; '.join(problems[:8])}{' ...' * (len(problems) > 8)}")
    return Weights(path, entries)


def _joiner(path: Path, name: str, parts: list[Entry], cuts: Sequence[Cut]) -> Callable[[], Tensor]:
    def read() -> Tensor:
        try:
            return join(name, [part.read() for part in parts], cuts)
        except CheckpointError as error:
            raise CheckpointError(f"{path}: {error}") from None

    return read


def _cutter(read: Callable[[], Tensor], parts: list[Entry], axis: int | None) -> Callable[[Span], Tensor]:
    """What reads a span from the files of the ranks that have something of it, where it is of the `axis` they are cut by."""

    def cut(span: Span) -> Tensor:
        if span.axis != axis:
            return span.of(read())
        size = parts[0].shape[axis]
        inside = [(part, max(span.start - rank * size, 0), min(span.stop - rank * size, size))
                  for rank, part in enumerate(parts)]  # fmt: skip
        found = [part.part(Span(axis, start, stop)) for part, start, stop in inside if start < stop]
        return torch.cat(found, axis) if len(found) > 1 else found[0]

    return cut


def check_numbers(path: Path, found: set[int], what: str) -> None:
    """Raise CheckpointError when the files of a checkpoint are not numbered from 0 without a gap."""
    if max(found) >= len(found):
        missing = next(number for number in range(len(found)) if number not in found)
        raise CheckpointError(f"{path}: has no file of {what} {missing}, but one of {max(found)}")


def _open_tensor(path: Path, families: Registry[Family], config_path: Path | None) -> Source:
    files = numbered(path, _RANK)
    check_numbers(path, {rank for (rank,) in files}, "rank")
    ranks: dict[str, list[Entry]] = defaultdict(list)
    for file in files.values():
        for name, entry in torch_file.open_file(file).items():
            ranks[name].append(entry)
    weights = joined(path, ranks, len(files))
    return _checked(open_ours(path, "tensor-parallel", weights, families, config_path, Degree(len(files))))


def _open_layers(path: Path, families: Registry[Family], config_path: Path | None) -> Source:
    files = numbered(path, _LAYER)
    ranks = {rank for _, rank in files}
    layers = max(layer for layer, _ in files) - 1
    check_numbers(path, {layer for layer, _ in files}, "layer")
    check_numbers(path, ranks, "rank")
    if len(files) != len(ranks) * (layers + 2):
        raise CheckpointError(f"{path}: {len(files)} files of layers and ranks; {layers + 2} x {len(ranks)} are wanted")
    config = our_config(path, config_path)
    if config.layers_num != layers:
        raise CheckpointError(
            f"{path}: has the files of {layers} layers, an embedding and an output layer; its configuration says that "
            f"there are {config.layers_num} layers"
        )
    parts: dict[str, list[Entry]] = defaultdict(list)
    for (layer, _), file in files.items():
        for theirs, entry in torch_file.open_file(file).items():
            if layer < layers and theirs.startswith("layer_norm."):
                continue  # a copy of the last norm
            parts[_ours_of(layer, theirs, layers)].append(entry)
    stages = max(1, len(numbered(path, _RANK)) // len(ranks))
    weights = joined(path, parts, len(ranks))
    return _checked(open_ours(path, "3d", weights, families, config_path, Degree(len(ranks), stages)))


def _checked(source: Source) -> Source:
    """`source`, which must be cut between heads and rows."""
    check_degree(source.shapes, source.config, source.degree.tensor)
    return source


def _ours_of(layer: int, theirs: str, layers: int) -> str:
    if theirs.startswith("layer."):
        return f"encoder.transformer.{layer - 1}.{theirs.removeprefix('layer.')}"
    for prefix in _PREFIXES:
        if theirs.startswith(prefix.theirs) and layer == prefix.layer(layers):
            return prefix.ours + theirs.removeprefix(prefix.theirs)
    return f"layer_{layer:02}: {theirs}"  # which the configuration will be found not to know


def _theirs_of(name: str, layers: int) -> tuple[int, str]:
    if match := _OURS_LAYER.fullmatch(name):
        return int(match[1]) + 1, f"layer.{match[2]}"
    prefix = next(prefix for prefix in _PREFIXES if name.startswith(prefix.ours))
    return prefix.layer(layers), prefix.theirs + name.removeprefix(prefix.ours)


def _begin(folder: Path, source: Source, degree: Degree) -> None:
    check_degree(source.shapes, source.config, degree.tensor)
    write_our_config(folder, source)
    (folder / "latest").write_text(TAG, encoding="utf-8")
    (folder / TAG).mkdir()


def _plan_tensor(folder: Path, source: Source, target: Target) -> Plan:
    if target.degree.pipeline > 1:
        raise CheckpointError("a tensor-parallel checkpoint has one pipeline stage; convert to 3d for more")
    ranks = target.degree.tensor
    _begin(folder, source, target.degree)
    copies = tied_copies(source)
    layout: Layout = {
        name: [
            Place(f"{TAG}/mp_rank_{rank:02}_model_states.pt", known, part)
            for rank, part in enumerate(parts_of(name, ranks)) for known in filter(None, [name, copies.get(name)])
        ]
        for name in source.shapes
    }  # fmt: skip
    return Plan(TORCH, layout, slots_of(source.shapes, target.type), source.read)


def _plan_layers(folder: Path, source: Source, target: Target) -> Plan:
    config, degree = source.config, target.degree
    if degree.pipeline > config.layers_num:
        raise CheckpointError(f"cannot cut {config.layers_num} layers into {degree.pipeline} pipeline stages")
    _begin(folder, source, degree)
    for rank in range(degree.tensor * degree.pipeline):
        torch.save(_state(degree), folder / TAG / f"mp_rank_{rank:02}_model_states.pt")
    layout = {name: _places(name, config, degree.tensor, tied_copies(source)) for name in source.shapes}
    return Plan(TORCH, layout, slots_of(source.shapes, target.type), source.read)


def _places(name: str, config: ModelConfig, ranks: int, copies: Mapping[str, str]) -> list[Place]:
    layers = config.layers_num
    wanted = [_theirs_of(name, layers)]
    if name in copies:
        wanted.append(_theirs_of(copies[name], layers))
    if name.startswith("encoder.layer_norm."):
        wanted = [(layer, wanted[0][1]) for layer in range(1, layers + 1)]
    return [
        Place(f"{TAG}/layer_{layer:02}-model_{rank:02}-model_states.pt", theirs, part)
        for layer, theirs in wanted for rank, part in enumerate(parts_of(name, ranks))
    ]  # fmt: skip


def _state(degree: Degree) -> dict[str, object]:
    """What DeepSpeed's engine asks of a rank's file beside the layers' files."""
    return {"module": None, "optimizer": None, "lr_scheduler": None, "dp_world_size": 1, "mp_world_size": degree.tensor,
            "global_steps": 0, "global_samples": 0, "skipped_steps": 0, "csr_tensor_module_names": []}  # fmt: skip


TENSOR_PARALLEL = Format(
    name="tensor-parallel", title="a file a rank: mp_rank_XX_model_states.pt", holds=_holds_tensor, open=_open_tensor,
    plan=_plan_tensor, keeps_padding=True, is_cut=True,
)  # fmt: skip
THREE_D = Format(
    name="3d", title="a file a layer and rank: layer_XX-model_YY-model_states.pt", holds=_holds_layers,
    open=_open_layers, plan=_plan_layers, keeps_padding=True, is_cut=True,
)  # fmt: skip
