"""Our own folder (safetensors under our names) and TencentPretrain's .bin, in one file or in blocks."""

from __future__ import annotations

import json
from pathlib import Path

from tp_ext.checkpoint import companions
from tp_ext.checkpoint.companions import CONFIG
from tp_ext.checkpoint.containers import SAFETENSORS, TORCH
from tp_ext.checkpoint.files import Weights, open_indexed
from tp_ext.checkpoint.formats.format import Format, Plan, Target, our_config, slots_of
from tp_ext.checkpoint.layout import Layout, fits_one_file, in_one_file, in_shards
from tp_ext.checkpoint.source import EMBEDDING, HEAD, WHOLE, Degree, Source, check_layers, from_table, our_rows, shapes_of
from tp_ext.checkpoint.tensors import Slot
from tp_ext.errors import CheckpointError, ConfigError
from tp_ext.output import MANIFEST, check_files
from tp_ext.registry import Family, Registry, family_of
from tp_ext.settings import read_json

STEM = "tencentpretrain_model"


def has(path: Path, name: str) -> bool:
    """Whether a folder holds a file of weights, or the index of its shards."""
    return path.is_dir() and ((path / name).is_file() or (path / f"{name}.index.json").is_file())


def _holds_native(path: Path) -> bool:
    return has(path, "model.safetensors") and not is_huggingface(path)


def is_huggingface(path: Path) -> bool:
    """Whether the config.json in a folder is Hugging Face's."""
    return (path / CONFIG).is_file() and "architectures" in read_json(path / CONFIG, ConfigError)


def _holds_tencentpretrain(path: Path) -> bool:
    return (path / f"{STEM}.bin").is_file() or (path.is_file() and path.suffix in (".bin", ".pt"))


def open_ours(
    path: Path, kind: str, weights: Weights, families: Registry[Family], config_path: Path | None, degree: Degree = WHOLE
) -> Source:
    """A model whose weights have our names. Raises CheckpointError, ConfigError."""
    config = our_config(path, config_path)
    table = weights.shapes.get(EMBEDDING, (None,))[0]
    if config.vocab_size is None and table is not None:
        config = config.replace(vocab_size=table)
    family = family_of(families, config)
    check_layers(path, config, weights)
    rows = our_rows(shapes_of(family, config))
    extras = companions.read_extras(path if path.is_dir() else path.parent)
    return from_table(path, kind, family, config, weights, rows, HEAD, extras=extras, degree=degree)


def _open_native(path: Path, families: Registry[Family], config_path: Path | None) -> Source:
    if (path / MANIFEST).is_file():
        check_files(path, read_json(path / MANIFEST, CheckpointError), hashes=False, kind=CheckpointError)
    weights = open_indexed(path, "model", [".safetensors"])
    assert weights is not None
    return open_ours(path, "native", weights, families, config_path)


def _open_tencentpretrain(path: Path, families: Registry[Family], config_path: Path | None) -> Source:
    weights = Weights.open(path, [path if path.is_file() else path / f"{STEM}.bin"])
    return open_ours(path, "tencentpretrain", weights, families, config_path)


def _open_blocks(path: Path, families: Registry[Family], config_path: Path | None) -> Source:
    weights = open_indexed(path, STEM, [".bin"])
    assert weights is not None
    return open_ours(path, "tencentpretrain-blocks", weights, families, config_path)


def write_our_config(folder: Path, source: Source) -> None:
    """Write the model's JSON, and what Hugging Face's programs know of it."""
    (folder / CONFIG).write_text(json.dumps(source.config.to_json(), indent=2) + "\n", encoding="utf-8")
    companions.write_extras(source.folder, folder, source.extras)


def safetensors_layout(folder: Path, slots: dict[str, Slot]) -> Layout:
    """`model.safetensors`, or shards of at most 4 GiB with an index."""
    if fits_one_file(slots):
        return in_one_file("model.safetensors", slots)
    return in_shards(folder, "model.safetensors.index.json", "model-{number:05}-of-{count:05}.safetensors", slots)


def _plan_native(folder: Path, source: Source, target: Target) -> Plan:
    write_our_config(folder, source)
    slots = slots_of(source.shapes, target.type)
    return Plan(SAFETENSORS, safetensors_layout(folder, slots), slots, source.read)


def tied_copies(source: Source) -> dict[str, str]:
    """The second name of a tied embedding, which TencentPretrain's files have too."""
    return {EMBEDDING: HEAD} if source.config.tie_weights else {}


def _plan_tencentpretrain(folder: Path, source: Source, target: Target) -> Plan:
    write_our_config(folder, source)
    slots = slots_of(source.shapes, target.type)
    return Plan(TORCH, in_one_file(f"{STEM}.bin", slots, tied_copies(source)), slots, source.read)


def _plan_blocks(folder: Path, source: Source, target: Target) -> Plan:
    write_our_config(folder, source)
    slots = slots_of(source.shapes, target.type)
    layout = in_shards(folder, f"{STEM}.bin.index.json", STEM + "-{number}.bin", slots, 0, tied_copies(source))
    return Plan(TORCH, layout, slots, source.read)


NATIVE = Format(
    name="native", title="our folder: safetensors, config.json, tokenizer, manifest", holds=_holds_native,
    open=_open_native, plan=_plan_native, keeps_padding=True,
)  # fmt: skip
TENCENTPRETRAIN = Format(
    name="tencentpretrain", title="TencentPretrain's tencentpretrain_model.bin", holds=_holds_tencentpretrain,
    open=_open_tencentpretrain, plan=_plan_tencentpretrain,
)  # fmt: skip
BLOCKS = Format(
    name="tencentpretrain-blocks", title="TencentPretrain's blocks: tencentpretrain_model-N.bin and their index",
    holds=lambda path: (path / f"{STEM}.bin.index.json").is_file(), open=_open_blocks, plan=_plan_blocks,
)  # fmt: skip
