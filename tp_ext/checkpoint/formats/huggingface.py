"""Hugging Face's folders: safetensors or .bin, whole or in shards, config.json, tokenizer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tp_ext.checkpoint import companions
from tp_ext.checkpoint.companions import CONFIG
from tp_ext.checkpoint.containers import SAFETENSORS
from tp_ext.checkpoint.files import Weights, open_indexed
from tp_ext.checkpoint.formats.format import Format, Plan, Target, slots_of
from tp_ext.checkpoint.formats.native import has, is_huggingface, safetensors_layout
from tp_ext.checkpoint.names import expand
from tp_ext.checkpoint.source import Source, check_layers, from_table, to_table
from tp_ext.checkpoint.tensors import TYPES
from tp_ext.config import ModelConfig
from tp_ext.errors import CheckpointError, ConfigError
from tp_ext.registry import Family, Registry
from tp_ext.settings import read_json

_HEAD = "lm_head.weight"
_COMPUTED = ".rotary_emb.inv_freq"
"""Computed again at need; old writers store it."""


def _holds(path: Path) -> bool:
    return (has(path, "model.safetensors") or has(path, "pytorch_model.bin")) and is_huggingface(path)


def _open(path: Path, families: Registry[Family], config_path: Path | None) -> Source:
    values = read_json(path / CONFIG, ConfigError)
    family, config = described(path / CONFIG, values, families)
    weights = open_indexed(path, "model", [".safetensors"]) or open_indexed(path, "pytorch_model", [".bin"])
    assert weights is not None
    weights = Weights(path, {name: entry for name, entry in weights.entries.items() if not name.endswith(_COMPUTED)})
    check_layers(path, config, weights)
    rows = list(expand(family.tables["huggingface"], config))
    prefix = family.huggingface_prefix
    if not any(name.startswith(prefix) for name in weights.names()):
        rows = [replace(row, theirs=row.theirs.removeprefix(prefix)) for row in rows]
    extras = companions.extras_of(values, family.to_huggingface(config))
    return from_table(path, "huggingface", family, config, weights, rows, _HEAD, "its config.json", extras=extras)


def described(path: Path, values: Mapping[str, Any], families: Registry[Family]) -> tuple[Family, ModelConfig]:
    """The family and the configuration that a config.json tells of. Raises CheckpointError, ConfigError."""
    classes = values["architectures"]
    named = classes[0] if isinstance(classes, list) and classes else classes
    family = next((family for family in families if family.huggingface_class == named), None)
    if family is None:
        known = ", ".join(family.huggingface_class for family in families)
        raise CheckpointError(f"{path.parent}: a {named}; this converter knows {known}")
    try:
        return family, family.from_huggingface(values)
    except (KeyError, StopIteration) as error:
        raise ConfigError(f"{path}: {str(error) or 'a size'} is missing") from None
    except (TypeError, ValueError, ZeroDivisionError, AttributeError) as error:
        raise ConfigError(f"{path}: cannot be read as {named} ({error})") from None


def _plan(folder: Path, source: Source, target: Target) -> Plan:
    values = source.family.to_huggingface(source.config)
    values["dtype"] = values["torch_dtype"] = str(TYPES[target.type]).removeprefix("torch.")
    companions.write_fast_tokenizer(folder)
    companions.write_huggingface_config(source.folder, folder, values, source.extras)
    shapes, read = to_table(source, list(expand(source.family.tables["huggingface"], source.config)))
    slots = slots_of(shapes, target.type)
    return Plan(SAFETENSORS, safetensors_layout(folder, slots), slots, read)


HUGGINGFACE = Format(
    name="huggingface", title="Hugging Face's folder: safetensors or .bin, config.json, tokenizer", holds=_holds,
    open=_open, plan=_plan,
)  # fmt: skip
