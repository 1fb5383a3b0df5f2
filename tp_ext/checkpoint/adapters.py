"""LoRA adapters (Hu et al. 2021, arXiv 2106.09685): TencentPretrain's and peft's, each into the other, or merged.

A weight W [out, in] becomes W + alpha / rank x B A, with A [rank, in] and B [out, rank]. TencentPretrain keeps `lora_A`
and `lora_B` of each weight in a .bin; rank and alpha, which it takes from its command line, are here in `lora_params` of
the config.json beside it. peft keeps adapter_model.safetensors under Hugging Face's names, and adapter_config.json.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from tp_ext.checkpoint.containers import SAFETENSORS, TORCH
from tp_ext.checkpoint.files import Weights, open_indexed
from tp_ext.checkpoint.layout import in_one_file, write_layout
from tp_ext.checkpoint.names import Row, expand
from tp_ext.checkpoint.source import Named, Source
from tp_ext.checkpoint.tensors import TYPE_OF, Slot, Tensor
from tp_ext.errors import CheckpointError, raise_all
from tp_ext.output import whole_folder, write_manifest
from tp_ext.settings import read_json

KIND = "tp_ext adapter 1"
PEFT_CONFIG, PEFT_STEM, LORA_FILE = "adapter_config.json", "adapter_model", "lora.bin"
_PEFT_PREFIX = "base_model.model."
_UNSUPPORTED: dict[str, Any] = {"use_dora": False, "fan_in_fan_out": False, "bias": "none", "modules_to_save": None,
                                "rank_pattern": {}, "alpha_pattern": {}, "use_rslora": False}  # fmt: skip
ADAPTERS = ("lora", "peft")
"""The forms of an adapter, as the command line names them."""


@dataclass(frozen=True)
class Adapter:
    """An adapter of a model of ours."""

    path: Path
    form: str
    rank: int
    alpha: float
    dropout: float
    parts: Mapping[str, tuple[Callable[[], Tensor], Callable[[], Tensor]]]
    """What reads A and B, by the name of the weight, ours."""

    @property
    def scale(self) -> float:
        """By which B A is multiplied."""
        return self.alpha / self.rank


def is_adapter(path: Path) -> bool:
    """Whether there is an adapter at `path`: a folder of peft's, or a .bin whose folder's JSON has `lora_params`."""
    return (path / PEFT_CONFIG).is_file() or "lora_params" in _lora_json(path)


def _lora_json(path: Path) -> dict[str, Any]:
    beside = (path if path.is_dir() else path.parent) / "config.json"
    return read_json(beside, CheckpointError) if beside.is_file() else {}


def open_adapter(path: Path, base: Source) -> Adapter:
    """The adapter at `path`, for the model `base`. Raises CheckpointError when it is none, or does not fit it."""
    found = _open_peft(path, base) if (path / PEFT_CONFIG).is_file() else _open_lora(path)
    if found.rank < 1:
        raise CheckpointError(f"{path}: its rank is {found.rank}")
    problems = []
    for name, (first, second) in found.parts.items():
        shape = base.shapes.get(name)
        shapes = tuple(first().shape), tuple(second().shape)
        if shape is None or len(shape) != 2:
            problems.append(f"{name}: the model has no such matrix")
        elif shapes != ((found.rank, shape[1]), (shape[0], found.rank)):
            problems.append(f"{name}: A and B are {list(shapes[0])} and {list(shapes[1])}, which do not make {list(shape)}")
    raise_all(CheckpointError, [f"{path}: {problem}" for problem in problems])
    return found


def _open_lora(path: Path) -> Adapter:
    params = _lora_json(path).get("lora_params")
    if not isinstance(params, dict) or not {"lora_r", "lora_alpha"} <= set(params):
        raise CheckpointError(f"{path}: no config.json with lora_params (lora_r, lora_alpha) beside it")
    weights = Weights.open(path, [path / LORA_FILE if path.is_dir() else path])
    pairs = _pairs(path, {name: name for name in weights.names()}, ".lora_A", ".lora_B")
    parts = {f"{name}.weight": (_reader(weights, one), _reader(weights, other)) for name, (one, other) in pairs.items()}
    return Adapter(path, "lora", int(params["lora_r"]), float(params["lora_alpha"]),
                   float(params.get("lora_dropout", 0.0)), parts)  # fmt: skip


def _open_peft(path: Path, base: Source) -> Adapter:
    values = read_json(path / PEFT_CONFIG, CheckpointError)
    problems = [f"{key} {values[key]!r} is not supported" for key, usual in _UNSUPPORTED.items()
                if values.get(key, usual) not in (usual, None, {}, [])]  # fmt: skip
    if values.get("peft_type") != "LORA":
        problems.append(f"its peft_type is {values.get('peft_type')!r}; only LORA is known")
    raise_all(CheckpointError, [f"{path / PEFT_CONFIG}: {problem}" for problem in problems])
    weights = open_indexed(path, PEFT_STEM, [".safetensors", ".bin"])
    if weights is None:
        raise CheckpointError(f"{path}: has no {PEFT_STEM}.safetensors")
    pairs = _pairs(path, {name.removeprefix(_PEFT_PREFIX): name for name in weights.names()}, ".lora_A.weight",
                   ".lora_B.weight")  # fmt: skip
    rows = {row.theirs: row for row in expand(base.family.tables["huggingface"], base.config)}
    parts: dict[str, tuple[Callable[[], Tensor], Callable[[], Tensor]]] = {}
    for name, (one, other) in pairs.items():
        row = rows.get(f"{name}.weight")
        if row is None:
            raise CheckpointError(f"{path}: {name}: the model has no such weight")
        for place, ours in enumerate(row.ours):
            parts[ours] = _reader(weights, one), _moved(weights, other, row, place, base)
    return Adapter(path, "peft", int(values["r"]), float(values["lora_alpha"]), float(values.get("lora_dropout", 0.0)),
                   parts)  # fmt: skip


def _pairs(path: Path, names: Mapping[str, str], first: str, second: str) -> dict[str, tuple[str, str]]:
    """Names of A and B in the file by what they belong to. Raises CheckpointError on anything else in it."""
    owners = {name.removesuffix(first) for name in names if name.endswith(first)}
    wanted = {owner + end for owner in owners for end in (first, second)}
    if not owners or wanted != set(names):
        wrong = ", ".join(sorted(wanted ^ set(names))[:8]) or "nothing"
        raise CheckpointError(f"{path}: an adapter is pairs of {first[1:]} and {second[1:]}; what has no pair: {wrong}")
    return {owner: (names[owner + first], names[owner + second]) for owner in sorted(owners)}


def _reader(weights: Weights, name: str) -> Callable[[], Tensor]:
    return lambda: weights.read(name)


def _moved(weights: Weights, name: str, row: Row, place: int, base: Source) -> Callable[[], Tensor]:
    """B in our order of rows, which is all that a change of layout moves."""
    return lambda: row.move.to_ours(weights.read(name), base.config)[place]


def merged(base: Source, adapter: Adapter) -> Source:
    """`base` with the adapter added to its weights, in float32, then in the type of each weight."""

    def read() -> Named:
        for name, tensor in base.read():
            if name in adapter.parts:
                first, second = (part().float() for part in adapter.parts[name])
                tensor = tensor.float().addmm_(second, first, alpha=adapter.scale).to(tensor.dtype)
            yield name, tensor

    return replace(base, path=adapter.path, format=adapter.form, read=read, beside=base.folder)


def convert_adapter(adapter: Adapter, base: Source, output: Path, to: str) -> None:
    """Write the adapter in the form `to` (lora or peft) into the folder `output`, read it back and compare it.

    Raises CheckpointError, and leaves nothing, when the form cannot hold it or what was written reads differently.
    """
    with whole_folder(output, KIND, CheckpointError) as folder:
        (_write_peft if to == "peft" else _write_lora)(folder, adapter, base)
        again = open_adapter(folder, base)
        same = set(again.parts) == set(adapter.parts) and (again.rank, again.scale) == (adapter.rank, adapter.scale)
        for name, parts in adapter.parts.items():
            same = same and all(torch.equal(one(), two()) for one, two in zip(parts, again.parts[name], strict=True))
        if not same:
            raise CheckpointError(f"{adapter.path}: reads back differently from what was written; nothing was kept")
        write_manifest(folder, KIND, {"form": to, "family": base.family.name, "base": str(base.path)})


def _write_lora(folder: Path, adapter: Adapter, base: Source) -> None:
    params = {"lora_r": adapter.rank, "lora_alpha": _number(adapter.alpha), "lora_dropout": adapter.dropout}
    values = {**base.config.to_json(), "lora_params": params}
    (folder / "config.json").write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    tensors = [(f"{name.removesuffix('.weight')}.lora_{which}", part()) for name, parts in adapter.parts.items()
               for which, part in zip("AB", parts, strict=True)]  # fmt: skip
    slots = {name: Slot(tuple(tensor.shape), TYPE_OF[tensor.dtype]) for name, tensor in tensors}
    write_layout(folder, TORCH, in_one_file(LORA_FILE, slots), slots, iter(tensors))


def _write_peft(folder: Path, adapter: Adapter, base: Source) -> None:
    tensors = list(_for_peft(adapter, base))
    modules = sorted({name.removeprefix(_PEFT_PREFIX).split(".lora_")[0].rsplit(".", 1)[-1] for name, _ in tensors})
    values = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "inference_mode": True, "r": adapter.rank,
        "lora_alpha": _number(adapter.alpha), "lora_dropout": adapter.dropout, "target_modules": modules, "bias": "none",
        "fan_in_fan_out": False, "base_model_name_or_path": str(base.path),
    }  # fmt: skip
    (folder / PEFT_CONFIG).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    slots = {name: Slot(tuple(tensor.shape), TYPE_OF[tensor.dtype]) for name, tensor in tensors}
    write_layout(folder, SAFETENSORS, in_one_file(f"{PEFT_STEM}.safetensors", slots), slots, iter(tensors))


def _for_peft(adapter: Adapter, base: Source) -> Iterator[tuple[str, Tensor]]:
    for row in expand(base.family.tables["huggingface"], base.config):
        parts = [adapter.parts[name] for name in row.ours if name in adapter.parts]
        if not parts:
            continue
        first = parts[0][0]()
        if len(parts) < len(row.ours) or not all(torch.equal(other(), first) for other, _ in parts):
            raise CheckpointError(
                f"{adapter.path}: {row.theirs} holds several weights with adapters of their own, for which peft has no "
                "room; merge it instead"
            )
        second = row.move.to_theirs([each() for _, each in parts], base.config)
        name = _PEFT_PREFIX + row.theirs.removesuffix(".weight")
        yield f"{name}.lora_A.weight", first
        yield f"{name}.lora_B.weight", second


def _number(value: float) -> float | int:
    return int(value) if value == int(value) else value
