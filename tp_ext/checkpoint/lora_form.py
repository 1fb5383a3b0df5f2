"""TencentPretrain's form of an adapter: `lora_A` and `lora_B` of each weight in a .bin, and weights that were trained whole.

Rank and alpha, which it takes from its command line, are here in `lora_params` of the config.json beside it. It gives a
model whatever its file names, so weights under their own names are what it understands too.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tp_ext.checkpoint.adapter import LORA_FILE, Adapter, number, pairs_of, reader
from tp_ext.checkpoint.containers import TORCH
from tp_ext.checkpoint.files import Weights
from tp_ext.checkpoint.formats.training import open_trained, trained_of
from tp_ext.checkpoint.layout import in_one_file, write_layout
from tp_ext.checkpoint.source import EMBEDDING, HEAD, Source
from tp_ext.checkpoint.tensors import TYPE_OF, Slot
from tp_ext.errors import CheckpointError
from tp_ext.settings import read_json


def params_of(path: Path) -> dict[str, Any] | None:
    """What the config.json of an adapter at `path` says of it; None where there is none."""
    beside = (path if path.is_dir() else path.parent) / "config.json"
    params = read_json(beside, CheckpointError).get("lora_params") if beside.is_file() else None
    if params is not None and not (isinstance(params, dict) and {"lora_r", "lora_alpha"} <= set(params)):
        raise CheckpointError(f"{beside}: its lora_params lack lora_r or lora_alpha")
    return params


def open_lora(path: Path) -> Adapter:
    """The adapter in TencentPretrain's form at `path`, a folder or a .bin. Raises CheckpointError."""
    params = params_of(path)
    if params is None:
        raise CheckpointError(f"{path}: no config.json with lora_params (lora_r, lora_alpha) beside it")
    weights = Weights.open(path, [path / LORA_FILE if path.is_dir() else path])
    return _adapter(path, "lora", weights, params)


def open_checkpoint(path: Path) -> Adapter:
    """What a checkpoint of our own training with LoRA has trained so far. Raises CheckpointError."""
    trained = trained_of(path)
    assert trained is not None
    params = {"lora_r": trained["r"], "lora_alpha": trained["alpha"]}
    return _adapter(path, "training", open_trained(path), params)


def _adapter(path: Path, form: str, weights: Weights, params: dict[str, Any]) -> Adapter:
    names = weights.names()
    whole = {name: reader(weights, name) for name in names if name in (EMBEDDING, HEAD)}
    pairs = pairs_of(path, {name: name for name in names if name not in whole}, ".lora_A", ".lora_B")
    parts = {f"{name}.weight": (reader(weights, one), reader(weights, other)) for name, (one, other) in pairs.items()}
    return Adapter(path, form, int(params["lora_r"]), float(params["lora_alpha"]), float(params.get("lora_dropout", 0.0)),
                   parts, whole)  # fmt: skip


def write_lora(folder: Path, adapter: Adapter, base: Source) -> None:
    """Write the adapter into `folder`. Raises CheckpointError when its ranks differ."""
    params = {"lora_r": adapter.rank, "lora_alpha": number(adapter.alpha), "lora_dropout": adapter.dropout}
    values = {**base.config.to_json(), "lora_params": params}
    (folder / "config.json").write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    tensors = [(name, read()) for name, read in adapter.whole.items()]
    for name, parts in adapter.parts.items():
        pair = [part() for part in parts]
        if pair[0].shape[0] != adapter.rank:
            raise CheckpointError(f"{adapter.path}: {name} has rank {pair[0].shape[0]}, others {adapter.rank}, for which "
                                  "TencentPretrain has no word; merge it instead")  # fmt: skip
        tensors += [(f"{name.removesuffix('.weight')}.lora_{which}", part) for which, part in zip("AB", pair, strict=True)]
    slots = {name: Slot(tuple(tensor.shape), TYPE_OF[tensor.dtype]) for name, tensor in tensors}
    write_layout(folder, TORCH, in_one_file(LORA_FILE, slots), slots, iter(tensors))
