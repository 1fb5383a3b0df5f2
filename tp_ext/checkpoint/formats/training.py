"""Checkpoints of our own training: DeepSpeed's files under ZeRO 0 to 3, from which whole weights are put together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tp_ext.checkpoint.containers import torch_file
from tp_ext.checkpoint.files import Weights
from tp_ext.checkpoint.formats.format import Format
from tp_ext.checkpoint.partitions import WEIGHT, Layout, open_optimized, partitioned_weights
from tp_ext.checkpoint.source import EMBEDDING, HEAD, Source, from_table, our_rows, shapes_of
from tp_ext.checkpoint.tensors import Entry
from tp_ext.config import ModelConfig
from tp_ext.errors import CheckpointError
from tp_ext.output import MANIFEST, check_files, sha256_of
from tp_ext.registry import Family, Registry, family_of
from tp_ext.settings import read_json
from tp_ext.tokens.tokenizer import find_tokenizer

STATE, ENGINE = "state.json", "engine"
_WEIGHTS = "mp_rank_00_model_states.pt"


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
    identity = _identity(path)
    tensor, pipeline, zero = (identity.get(name, one) for name, one in (("tensor", 1), ("pipeline", 1), ("zero", 0)))
    if not all(isinstance(degree, int) for degree in (tensor, pipeline, zero)):
        raise CheckpointError(f"{path / STATE}: damaged: tensor {tensor}, pipeline {pipeline}, zero {zero}")
    if tensor * pipeline > 1:
        config = ModelConfig.from_json(identity["model"], str(path / STATE))
        held = open_optimized(path / ENGINE, Layout(zero, tensor, pipeline, config.tie_weights)).parameters
        return Weights(path, {name: _unpadded(name, kinds[WEIGHT], config) for name, kinds in held.items()})
    whole = path / ENGINE / _WEIGHTS
    return Weights(path, torch_file.open_file(whole) if whole.is_file() else partitioned_weights(path / ENGINE))


def _unpadded(name: str, entry: Entry, config: ModelConfig) -> Entry:
    """A weight without the rows that only made the vocabulary divide."""
    if name not in (EMBEDDING, HEAD):
        return entry
    return Entry((config.rows, *entry.shape[1:]), entry.dtype, lambda: entry.read()[: config.rows])


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
        raise CheckpointError(
            f"{path}: holds what LoRA has trained; merge it into the model it belongs to: "
            f"scripts/convert_weights.py --input {path} --base MODEL --output OUT --to native"
        )
    config = ModelConfig.from_json(identity["model"], str(path / STATE))
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


TRAINING = Format(
    name="training", title="a checkpoint of our training (DeepSpeed, ZeRO 0 to 3); read only", holds=_holds, open=_open,
)  # fmt: skip
