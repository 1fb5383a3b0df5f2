"""Adapters of any form: opened, turned into the other, or merged into the model they belong to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from tp_ext.checkpoint.adapter import PEFT_CONFIG, Adapter
from tp_ext.checkpoint.formats.training import trained_of
from tp_ext.checkpoint.lora_form import open_checkpoint, open_lora, params_of, write_lora
from tp_ext.checkpoint.peft_form import open_peft, read_config, write_peft
from tp_ext.checkpoint.source import Named, Source, whole
from tp_ext.errors import CheckpointError, raise_all
from tp_ext.output import whole_folder, write_manifest

KIND = "tp_ext adapter 1"
ADAPTERS = {"lora": write_lora, "peft": write_peft}
"""The forms of an adapter, as the command line names them, and what writes each."""


def is_adapter(path: Path) -> bool:
    """Whether there is an adapter at `path`: a folder of peft's, a .bin whose folder's JSON has `lora_params`, or a
    checkpoint of our training with LoRA."""
    return (path / PEFT_CONFIG).is_file() or trained_of(path) is not None or params_of(path) is not None


def described(path: Path) -> dict[str, str]:
    """What the adapter at `path` is, as far as it tells without its model. Raises CheckpointError."""
    if (path / PEFT_CONFIG).is_file():
        values, rank, alpha = read_config(path)
        form, told = "peft", f"rank {rank}, of the model {values.get('base_model_name_or_path') or 'that is not named'}"
    else:
        found = open_checkpoint(path) if trained_of(path) is not None else open_lora(path)
        form, rank, alpha, told = found.form, found.rank, found.alpha, found.told
    return {
        "format": f"{form}: what LoRA has trained, not a model",
        "adapter": f"{told}; alpha {alpha:g}, so B A is added times {alpha / max(rank, 1):g}",
        "to merge it": f"scripts/convert_weights.py --input {path} --base MODEL --output OUT --to native",
    }


def open_adapter(path: Path, base: Source) -> Adapter:
    """The adapter at `path`, for the model `base`. Raises CheckpointError when it is none, or does not fit it."""
    if (path / PEFT_CONFIG).is_file():
        found = open_peft(path, base)
    else:
        found = open_checkpoint(path) if trained_of(path) is not None else open_lora(path)
    if found.rank < 1:
        raise CheckpointError(f"{path}: its rank is {found.rank}")
    problems = []
    for name, (first, second) in found.parts.items():
        shape = base.shapes.get(name)
        shapes = tuple(first().shape), tuple(second().shape)
        if shape is None or len(shape) != 2:
            problems.append(f"{name}: the model has no such matrix")
        elif shapes[0][1:] != shape[1:] or shapes[1][:1] != shape[:1] or shapes[0][0] != shapes[1][-1]:
            problems.append(f"{name}: A and B are {list(shapes[0])} and {list(shapes[1])}, which do not make {list(shape)}")
    for name, read in found.whole.items():
        if tuple(read().shape) != base.shapes.get(name):
            problems.append(f"{name}: is {list(read().shape)}, the model's {list(base.shapes.get(name, ()))}")
    raise_all(CheckpointError, [f"{path}: {problem}" for problem in problems])
    return found


def merged(base: Source, adapter: Adapter) -> Source:
    """`base` with the adapter added to its weights, in float32, then in the type of each weight."""

    def read() -> Named:
        for name, tensor in base.read():
            if name in adapter.whole:
                tensor = adapter.whole[name]().to(tensor.dtype)
            elif name in adapter.parts:
                first, second = (part().float() for part in adapter.parts[name])
                tensor = tensor.float().addmm_(second, first, alpha=adapter.scale).to(tensor.dtype)
            yield name, tensor

    return replace(base, path=adapter.path, format=adapter.form, read=whole(read), beside=base.folder)


def convert_adapter(
    adapter: Adapter, base: Source, output: Path, to: str, manifest: Mapping[str, Any] | None = None
) -> None:
    """Write the adapter in the form `to` (lora or peft) into the folder `output`, read it back and compare it.

    Raises CheckpointError, and leaves nothing, when the form cannot hold it or what was written reads differently.
    """
    with whole_folder(output, KIND, CheckpointError) as folder:
        ADAPTERS[to](folder, adapter, base)
        again = open_adapter(folder, base)
        pieces = base.config.pieces  # peft has no rows that stand for no piece
        same = again.scale == adapter.scale and set(again.parts) == set(adapter.parts)
        same = same and set(again.whole) == set(adapter.whole)
        same = same and all(torch.equal(one(), two()) for name, parts in adapter.parts.items()
                            for one, two in zip(parts, again.parts[name], strict=True))  # fmt: skip
        same = same and all(torch.equal(read()[:pieces], again.whole[name]()[:pieces])
                            for name, read in adapter.whole.items())  # fmt: skip
        if not same:
            raise CheckpointError(f"{adapter.path}: reads back differently from what was written; nothing was kept")
        write_manifest(folder, KIND, {"form": to, "family": base.family.name, "base": str(base.path), **(manifest or {})})
