"""GGUF files, which llama.cpp and what is built on it load: weights, sizes and vocabulary in one file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tp_ext.checkpoint import companions
from tp_ext.checkpoint.containers import Container, gguf_file
from tp_ext.checkpoint.files import Weights
from tp_ext.checkpoint.formats.format import Format, Plan, Target
from tp_ext.checkpoint.layout import in_one_file
from tp_ext.checkpoint.names import expand
from tp_ext.checkpoint.source import EMBEDDING, Source, check_layers, from_table, to_table
from tp_ext.checkpoint.tensors import Q8_BLOCK, Shape, Slot
from tp_ext.config import ModelConfig
from tp_ext.errors import CheckpointError, ConfigError, raise_all
from tp_ext.registry import Family, Registry
from tp_ext.tokens.gguf_reading import tokenizer_of
from tp_ext.tokens.gguf_vocabulary import add_vocabulary, gguf_package
from tp_ext.tokens.rows import check_rows
from tp_ext.tokens.tokenizer import find_tokenizer, open_tokenizer

FILE = "model.gguf"
_FILE_TYPES = {"F32": "ALL_F32", "F16": "MOSTLY_F16", "BF16": "MOSTLY_BF16", "Q8_0": "MOSTLY_Q8_0"}


@dataclass(frozen=True)
class _Key:
    """A key of the file, behind the architecture's name, and what it says of a configuration."""

    name: str
    value: Callable[[ModelConfig], Any]
    when: Callable[[ModelConfig], bool] = lambda config: True


def _is_rotary(config: ModelConfig) -> bool:
    return config.rotary_position_embedding


KEYS = (
    _Key("context_length",                   lambda config: config.max_seq_length),
    _Key("embedding_length",                 lambda config: config.hidden_size),
    _Key("block_count",                      lambda config: config.layers_num),
    _Key("feed_forward_length",              lambda config: config.feedforward_size),
    _Key("attention.head_count",             lambda config: config.heads_num),
    _Key("attention.head_count_kv",          lambda config: config.kv_heads),
    _Key("attention.layer_norm_rms_epsilon", lambda config: config.layernorm_eps, lambda config: config.layernorm == "rms"),
    _Key("attention.layer_norm_epsilon",     lambda config: config.layernorm_eps, lambda config: config.layernorm != "rms"),
    _Key("attention.key_length",             lambda config: config.head_size, _is_rotary),
    _Key("attention.value_length",           lambda config: config.head_size, _is_rotary),
    _Key("rope.dimension_count",             lambda config: config.head_size, _is_rotary),
    _Key("rope.freq_base",                   lambda config: config.rope_theta, _is_rotary),
    _Key("vocab_size",                       lambda config: config.rows),
)  # fmt: skip
"""Without context_length and an epsilon llama.cpp does not load a file; a missing rope.freq_base is taken for 10000."""


def _file_of(path: Path) -> Path | None:
    if path.is_file():
        return path if path.suffix == ".gguf" else None
    files = sorted(path.glob("*.gguf"))
    return files[0] if len(files) == 1 else None


def _open(path: Path, families: Registry[Family], config_path: Path | None) -> Source:
    file = _file_of(path)
    assert file is not None
    values, entries = gguf_file.read_file(file)
    named = values.get("general.architecture")
    family = next((family for family in families if family.name == named and "gguf" in family.tables), None)
    if family is None:
        known = ", ".join(family.name for family in families if "gguf" in family.tables)
        raise CheckpointError(f"{file}: is of the architecture {named!r}; this converter knows {known}")
    weights = Weights(file, entries)
    config = _config(file, family, values, weights)
    check_layers(path, config, weights)
    rows = list(expand(family.tables["gguf"], config))
    matrices = {weights.dtypes[name] for name, shape in weights.shapes.items() if len(shape) > 1}
    if len(matrices) > 1:
        raise CheckpointError(f"{file}: matrices of several types ({', '.join(sorted(map(str, matrices)))}); expected one")
    dtype = matrices.pop() if matrices else None
    extras = companions.read_extras(file.parent)
    carried = {} if find_tokenizer(file.parent) else tokenizer_of(values, file)
    return from_table(path, "gguf", family, config, weights, rows, None, "its keys", dtype, extras=extras, carried=carried)


def _config(file: Path, family: Family, values: Mapping[str, Any], weights: Weights) -> ModelConfig:
    def value(name: str, kind: type = int, default: Any = None) -> Any:
        found = values.get(f"{family.name}.{name}", default)
        if isinstance(found, bool) or not isinstance(found, (int, kind)):
            raise ConfigError(f"{file}: {family.name}.{name} is {found!r}; expected {kind.__name__}")
        return kind(found)

    base = next(iter(family.sizes.values()))
    scaling = values.get(f"{family.name}.rope.scaling.type", "none")
    if scaling != "none":
        raise ConfigError(f"{file}: rope scaling {scaling!r} is not supported; only plain rotary positions are")
    table = weights.shapes.get(_table_name(family), (0,))
    if not table[0]:
        raise CheckpointError(f"{file}: has no {_table_name(family)}")
    hidden, heads = value("embedding_length"), value("attention.head_count")
    kv_heads = value("attention.head_count_kv", default=heads)
    eps = "attention.layer_norm_rms_epsilon" if base.layernorm == "rms" else "attention.layer_norm_epsilon"
    if not heads or not hidden:
        raise ConfigError(f"{file}: embedding_length is {hidden} and attention.head_count {heads}")
    head_size = value("attention.key_length", default=hidden // heads)
    return base.replace(
        emb_size=hidden, hidden_size=hidden, feedforward_size=value("feed_forward_length"), heads_num=heads,
        layers_num=value("block_count"), max_seq_length=value("context_length"), vocab_size=table[0],
        local_kv_heads_num=None if kv_heads == heads else kv_heads, layernorm_eps=_short_float(value(eps, float)),
        attention_head_size=None if head_size * heads == hidden else head_size,
        rope_theta=_short_float(value("rope.freq_base", float, base.rope_theta)),
        tie_weights="output.weight" not in weights.shapes,
    )  # fmt: skip


def _short_float(value: float) -> float:
    """The shortest decimal that is the same float32, in which the file keeps it: 1e-5 and not 9.99999974e-06."""
    import numpy as np

    return float(str(np.float32(value)))


def _table_name(family: Family) -> str:
    return next(row.theirs for row in family.tables["gguf"] if row.ours == (EMBEDDING,))


def _plan(folder: Path, source: Source, target: Target) -> Plan:
    config, family = source.config, source.family
    if "gguf" not in family.tables:
        raise CheckpointError(f"{source.path}: no table of GGUF's names for {family.name}")
    path = find_tokenizer(folder)
    if path is None:
        raise CheckpointError(f"{source.path}: has no tokenizer beside it, which a GGUF file holds; copy it there")
    raise_all(ConfigError, [f"model: cannot be written as GGUF: {problem}" for problem in _not_expressed(config, family)])
    tokenizer = open_tokenizer(path)
    check_rows(config, tokenizer)
    companions.write_extras(source.folder, folder, source.extras)

    def prepare(writer: Any) -> None:
        writer.add_file_type(gguf_package().LlamaFileType[_FILE_TYPES[target.type]])
        writer.add_quantization_version(2)
        for key in KEYS:
            if key.when(config):
                value = key.value(config)
                add = writer.add_float32 if isinstance(value, float) else writer.add_uint32
                add(f"{family.name}.{key.name}", value)
        add_vocabulary(writer, tokenizer, config.rows)

    shapes, read = to_table(source, list(expand(family.tables["gguf"], config)))
    slots = {name: Slot(shape, type_of(shape, target.type)) for name, shape in shapes.items()}
    container = Container(".gguf", lambda file: gguf_file.read_file(file)[1],
                          lambda file, inside, *_: gguf_file.GgufWriter(file, inside, family.name, prepare))  # fmt: skip
    return Plan(container, in_one_file(FILE, slots), slots, read)


def _not_expressed(config: ModelConfig, family: Family) -> list[str]:
    """What the keys cannot say."""
    base = next(iter(family.sizes.values()))
    too_large = [(key.name, key.value(config)) for key in KEYS if key.when(config) and key.value(config) >= 1 << 32]
    fields = ("hidden_act", "feed_forward", "layernorm", "remove_transformer_bias", "remove_embedding_layernorm",
              "rotary_position_embedding", "alibi_position_embedding")  # fmt: skip
    return [f"{name} is {value}; the file has 32 bits for it" for name, value in too_large] + [
        f"{name} is {getattr(config, name)!r}; llama.cpp's {family.name} always has {getattr(base, name)!r}"
        for name in fields if getattr(config, name) != getattr(base, name)
    ]  # fmt: skip


def type_of(shape: Shape, kind: str) -> str:
    """Norms and biases stay in float32, which llama.cpp wants; Q8_0 needs rows of whole blocks."""
    if len(shape) < 2 or (kind == "Q8_0" and shape[-1] % Q8_BLOCK):
        return "F32"
    return kind


GGUF = Format(
    name="gguf", title="GGUF, one file for llama.cpp", holds=lambda path: _file_of(path) is not None, open=_open,
    plan=_plan, type_of=type_of,
)  # fmt: skip
