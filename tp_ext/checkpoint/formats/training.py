"""Checkpoints of our own training: DeepSpeed's files under ZeRO 0 to 3, from which whole weights are put together."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from tp_ext.checkpoint.containers import torch_file
from tp_ext.checkpoint.files import Weights
from tp_ext.checkpoint.formats.format import Format
from tp_ext.checkpoint.source import HEAD, Source, from_table, our_rows, shapes_of
from tp_ext.checkpoint.tensors import Entry, Shape, Tensor
from tp_ext.config import ModelConfig
from tp_ext.errors import CheckpointError
from tp_ext.output import MANIFEST, check_files, sha256_of
from tp_ext.registry import Family, Registry, family_of
from tp_ext.settings import read_json
from tp_ext.tokens.tokenizer import find_tokenizer

STATE, ENGINE = "state.json", "engine"
_WEIGHTS = "mp_rank_00_model_states.pt"
_PARTITION = re.compile(r"zero_pp_rank_(\d+)_mp_rank_00_optim_states\.pt")
_MODEL = re.compile(r"zero_pp_rank_(\d+)_mp_rank_00_model_states\.pt")


def _holds(path: Path) -> bool:
    return (path / STATE).is_file() and (path / ENGINE).is_dir()


def trained_of(path: Path) -> dict[str, Any] | None:
    """What a checkpoint of a run with LoRA says is trained, which is all that it holds; None of any other path."""
    if not _holds(path):
        return None
    lora = _identity(path).get("lora")
    return lora if isinstance(lora, dict) else None


def open_trained(path: Path) -> Weights:
    """The weights in a checkpoint, under our names. Raises CheckpointError when it is damaged."""
    if not (path / MANIFEST).is_file():
        raise CheckpointError(f"{path}: has no {MANIFEST}: the run was interrupted while it wrote; take an older checkpoint")
    check_files(path, read_json(path / MANIFEST, CheckpointError), hashes=False, kind=CheckpointError)
    whole = path / ENGINE / _WEIGHTS
    return Weights(path, torch_file.open_file(whole) if whole.is_file() else _partitioned(path / ENGINE))


def _identity(path: Path) -> dict[str, Any]:
    identity = read_json(path / STATE, CheckpointError).get("identity")
    if not isinstance(identity, dict) or not isinstance(identity.get("model"), dict):
        raise CheckpointError(f"{path / STATE}: damaged: has no identity or model")
    return identity


def _open(path: Path, families: Registry[Family], config_path: Path | None) -> Source:
    identity, recipe = _identity(path), read_json(path / STATE, CheckpointError).get("recipe")
    if not isinstance(recipe, dict):
        raise CheckpointError(f"{path / STATE}: damaged: has no recipe")
    if trained_of(path) is not None:
        raise CheckpointError(f"{path}: holds what LoRA has trained; name the model it belongs to with --base")
    config = ModelConfig.from_json(identity["model"], str(path / STATE))
    if identity.get("tensor", 1) * identity.get("pipeline", 1) > 1:
        raise CheckpointError(
            f"{path}: its weights are in parts (tensor {identity.get('tensor')}, pipeline {identity.get('pipeline')}), "
            "which only a run at the same degree reads; take the folder `model` that the run writes at its end"
        )
    family = family_of(families, config)
    weights = open_trained(path)
    beside = _tokenizer_folder(path, recipe, identity)
    rows = our_rows(shapes_of(family, config))
    return from_table(path, "training", family, config, weights, rows, HEAD, beside=beside)


def _tokenizer_folder(path: Path, recipe: dict[str, Any], identity: dict[str, Any]) -> Path:
    """Where the run's tokenizer is: as the recipe says, seen from here or from a folder that the run is in, or beside
    the model that the run wrote. Raises CheckpointError when it is at none of these."""
    model = recipe.get("model")
    known = Path(str(model.get("spm_model_path"))) if isinstance(model, dict) else Path()
    run = path.resolve().parents[1]
    for place in (known, *(folder / known for folder in run.parents), run / "model"):
        file = find_tokenizer(place) if place.is_dir() else place
        if file is not None and file.is_file() and sha256_of(file) == identity.get("tokenizer_sha256"):
            return file.parent
    raise CheckpointError(f"{path}: its run's tokenizer is not (any more) at {known}; put it back there")


def _partitioned(engine: Path) -> dict[str, Entry]:
    """Entries of the weights that ZeRO 3 has cut over its ranks: every one flat, filled up, in equal parts.

    What is read is the optimizer's float32 copy. Raises CheckpointError when files do not fit together.
    """
    files = _by_rank(engine, _PARTITION)
    shapes = _shapes(_by_rank(engine, _MODEL)[0])
    ranks = []
    for file in files:
        values = torch_file.read_values(file)
        groups = values.get("optimizer_state_dict", {}).get("fp32_flat_groups") if isinstance(values, dict) else None
        flat = isinstance(groups, list) and all(isinstance(group, Entry) and group.read_part for group in groups)
        if not groups or not flat:
            raise CheckpointError(f"{file}: has no float32 copy of the weights (fp32_flat_groups)")
        ranks.append(groups)
    return _entries(engine, shapes, ranks)


def _by_rank(engine: Path, pattern: re.Pattern[str]) -> list[Path]:
    named = ((pattern.fullmatch(file.name), file) for file in engine.iterdir())
    found = {int(match[1]): file for match, file in named if match}
    if not found or sorted(found) != list(range(len(found))):
        raise CheckpointError(f"{engine}: has the files of the ranks {sorted(found)}; expected all from 0 on")
    return [found[rank] for rank in sorted(found)]


def _shapes(file: Path) -> list[dict[str, Shape]]:
    """The shapes of the weights of each group, in the order in which they are cut."""
    values = torch_file.read_values(file)
    groups = values.get("param_shapes") if isinstance(values, dict) else None
    if not isinstance(groups, list) or not all(isinstance(group, dict) for group in groups):
        raise CheckpointError(f"{file}: does not tell the shapes of the weights (param_shapes)")
    return [{name: tuple(map(int, shape)) for name, shape in group.items()} for group in groups]


def _entries(engine: Path, groups: list[dict[str, Shape]], ranks: list[list[Entry]]) -> dict[str, Entry]:
    """Entries by name. The flat tensors of a rank, one behind the other, hold its part of every weight in order."""
    entries: dict[str, Entry] = {}
    offset = 0
    for name, shape in (pair for group in groups for pair in group.items()):
        part = -(-math.prod(shape) // len(ranks))
        entries[name] = Entry(shape, torch.float32, _reader(ranks, offset, part, shape))
        offset += part
    held = [sum(entry.shape[0] for entry in flat) for flat in ranks]
    if min(held) < offset:
        raise CheckpointError(f"{engine}: a rank holds {min(held)} values, {offset} are wanted")
    return entries


def _reader(ranks: list[list[Entry]], offset: int, part: int, shape: Shape) -> Callable[[], Tensor]:
    def read() -> Tensor:
        flat = torch.cat([_slice(groups, offset, part) for groups in ranks])
        return flat[: math.prod(shape)].view(shape)

    return read


def _slice(groups: list[Entry], offset: int, count: int) -> Tensor:
    """Values `offset` to `offset + count` of flat tensors that lie one behind the other."""
    pieces = []
    for group in groups:
        size = group.shape[0]
        if offset < size and count:
            taken = min(count, size - offset)
            assert group.read_part is not None
            pieces.append(group.read_part(offset, offset + taken))
            count -= taken
            offset = 0
        else:
            offset -= size
    return torch.cat(pieces)


TRAINING = Format(
    name="training", title="a checkpoint of our training (DeepSpeed, ZeRO 0 to 3); read only", holds=_holds, open=_open,
)  # fmt: skip
