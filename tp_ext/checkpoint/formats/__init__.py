"""The formats a model can be kept in, and what is done with any of them: recognise, open, write."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from tp_ext.checkpoint import companions
from tp_ext.checkpoint.adapter import LORA_FILE, PEFT_CONFIG
from tp_ext.checkpoint.digests import Digests, watched
from tp_ext.checkpoint.formats.format import Format, Plan, Target
from tp_ext.checkpoint.formats.gguf import GGUF
from tp_ext.checkpoint.formats.huggingface import HUGGINGFACE
from tp_ext.checkpoint.formats.meta import META
from tp_ext.checkpoint.formats.native import BLOCKS, NATIVE, TENCENTPRETRAIN
from tp_ext.checkpoint.formats.parallel import TENSOR_PARALLEL, THREE_D
from tp_ext.checkpoint.formats.training import TRAINING
from tp_ext.checkpoint.layout import total_bytes, write_layout
from tp_ext.checkpoint.source import Named, Source, shapes_of, whole
from tp_ext.checkpoint.tensors import TYPE_OF
from tp_ext.config import ModelConfig
from tp_ext.errors import CheckpointError
from tp_ext.output import write_manifest
from tp_ext.registry import Family, Registry, family_of
from tp_ext.tokens.tokenizer import Tokenizer

KIND = "tp_ext model 1"
SPARE_BYTES = 64 << 20
"""Room beside the weights: headers, tokenizer, manifest."""

FORMATS: Registry[Format] = Registry("format")
for _format in (NATIVE, TENCENTPRETRAIN, BLOCKS, TENSOR_PARALLEL, THREE_D, HUGGINGFACE, META, GGUF, TRAINING):
    FORMATS.register(_format.name, _format)


def open_model(
    path: Path, families: Registry[Family], config_path: Path | None = None, expected: str | None = None
) -> Source:
    """Open the model at `path`, a file or a folder of any format.

    `config_path` is the model's JSON, for one that has none beside it; `expected` the format, where a folder holds
    several. Nothing is read but names and shapes, which must be exactly those of the configuration: else CheckpointError
    lists every missing, unexpected and misshapen one.
    """
    if config_path is not None and not config_path.is_file():
        raise CheckpointError(f"{config_path}: no such file with the model's sizes")
    return format_of(path, expected).open(path, families, config_path)


def format_of(path: Path, expected: str | None = None) -> Format:
    """The format of the model at `path`. Raises CheckpointError when it is none, several or not the `expected` one."""
    if not path.exists():
        raise CheckpointError(f"{path}: no such model")
    found = [each for each in FORMATS if each.holds(path)]
    if expected:
        if FORMATS.get(expected) not in found:
            names = _names(found) or "no model"
            raise CheckpointError(f"{path}: is {names}, not {expected}; leave --from out to convert it")
        return FORMATS.get(expected)
    if not found and any((path / name).is_file() for name in (LORA_FILE, PEFT_CONFIG)):
        raise CheckpointError(f"{path}: is an adapter, not a model; merge it into the one it belongs to: "
                              f"scripts/convert_weights.py --input {path} --base MODEL --output OUT --to native")
    if not found:
        raise CheckpointError(f"{path}: holds no weights under a name known here; the formats are {_titles()}")
    if len(found) > 1:
        raise CheckpointError(f"{path}: holds a model in several formats, {_names(found)}; choose with --from")
    return found[0]


def _names(formats: list[Format]) -> str:
    return ", ".join(each.name for each in formats)


def _titles() -> str:
    return "; ".join(f"{each.name} ({each.title})" for each in FORMATS)


def plan_model(folder: Path, source: Source, to: str, target: Target) -> Plan:
    """Write into `folder` what belongs beside the weights of `source` in the format `to`; the plan of their files.

    Rows that only fill the vocabulary up are left out where the format has no word for them. Raises CheckpointError when
    the disk is too small, and on what the format cannot express.
    """
    chosen = FORMATS.get(to)
    if chosen.plan is None:
        raise CheckpointError(f"{to} is only read, never written")
    if not chosen.keeps_padding:
        source = source.without_padding()
    plan = chosen.plan(folder, source, target)
    wanted, free = total_bytes(plan.slots) + SPARE_BYTES, shutil.disk_usage(folder).free
    if wanted > free:
        raise CheckpointError(f"{folder.parent}: {wanted >> 20} MiB are needed there, {free >> 20} MiB are free")
    return plan


def write_weights(folder: Path, source: Source, to: str, dtype: torch.dtype) -> None:
    """Write the configuration and the weights of `source` in the format `to` into `folder`, its tokenizer there already."""
    plan = plan_model(folder, source, to, Target(TYPE_OF[dtype]))
    write_layout(folder, plan.container, plan.layout, plan.slots, plan.read())


def write_model(
    folder: Path, source: Source, to: str, dtype: torch.dtype, manifest: Mapping[str, Any] | None = None
) -> None:
    """Write `source` in the format `to` into the empty `folder`, its tokenizer beside it, and a manifest."""
    hashes = Digests()
    companions.write_tokenizer(source, folder)
    write_weights(folder, watched(source, hashes), to, dtype)
    tensors = {"tensors": hashes.hashes} if dtype == source.dtype else {}
    write_manifest(folder, KIND, {"format": to, "family": source.family.name, **tensors, **(manifest or {})})


def write_trained(
    folder: Path, config: ModelConfig, families: Registry[Family], weights: Named,
    dtype: torch.dtype, tokenizer: Tokenizer, manifest: Mapping[str, Any], begun_from: Source | None = None,
) -> None:  # fmt: skip
    """Write the `weights` of a model in training as a native folder, with its tokenizer.

    What Hugging Face's programs know of the model it was `begun_from` holds for it too.
    """
    family = family_of(families, config)
    path, extras = (begun_from.folder, begun_from.extras) if begun_from else (folder, {})
    written = ((name, tensor.detach().to(dtype)) for name, tensor in weights)
    source = Source(path, "training", family, config, shapes_of(family, config), dtype, whole(lambda: written), extras)
    for name, content in {tokenizer.file_name: tokenizer.content, **tokenizer.beside}.items():
        (folder / name).write_bytes(content)
    write_model(folder, source, "native", dtype, manifest)
