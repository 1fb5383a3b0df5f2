"""Meta's own checkpoints of LLaMA: consolidated.NN.pth, one a rank of model parallelism, and params.json.

The layout is that of the loader which Meta published with LLaMA (2023): query and key rows in pairs, as ours.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tp_ext.checkpoint import companions
from tp_ext.checkpoint.containers import TORCH, torch_file
from tp_ext.checkpoint.formats.format import Format, Plan, Target, slots_of
from tp_ext.checkpoint.formats.parallel import check_numbers, joined, numbered
from tp_ext.checkpoint.layout import Place
from tp_ext.checkpoint.names import Row, expand
from tp_ext.checkpoint.shards import CUTS, Cut, check_degree, parts_of
from tp_ext.checkpoint.source import EMBEDDING, Degree, Source, from_table, to_table
from tp_ext.checkpoint.tensors import Entry
from tp_ext.config import ModelConfig
from tp_ext.errors import CheckpointError, ConfigError, raise_all
from tp_ext.registry import Family, Registry
from tp_ext.settings import read_json

PARAMS = "params.json"
_FILE = re.compile(r"consolidated\.(\d{2,})\.pth")
_COMPUTED = "rope.freqs"
_BY_COLUMNS = (Cut(re.escape(EMBEDDING), 1), *CUTS)
"""LLaMA 1 and 2 cut the embedding by columns; LLaMA 3 as all others do."""
_KNOWN = {"dim", "n_layers", "n_heads", "n_kv_heads", "multiple_of", "ffn_dim_multiplier", "norm_eps", "vocab_size",
          "rope_theta", "max_seq_len", "max_batch_size", "use_scaled_rope"}  # fmt: skip


def _holds(path: Path) -> bool:
    return bool(numbered(path, _FILE))


def _family(families: Registry[Family], path: Path) -> Family:
    family = next((family for family in families if "meta" in family.tables), None)
    if family is None:
        raise CheckpointError(f"{path}: no family here has a table of Meta's names")
    return family


def _open(path: Path, families: Registry[Family], config_path: Path | None) -> Source:
    files = numbered(path, _FILE)
    check_numbers(path, {rank for (rank,) in files}, "rank")
    family = _family(families, path)
    ranks: dict[str, list[Entry]] = {}
    for file in files.values():
        for name, entry in torch_file.open_file(file).items():
            if name != _COMPUTED:
                ranks.setdefault(name, []).append(entry)
    values = read_json(config_path or path / PARAMS, ConfigError)
    layers = values.get("n_layers")
    if not isinstance(layers, int) or not 0 < layers < 10_000:
        raise ConfigError(f"{path / PARAMS}: n_layers is {layers!r}; expected a number of layers")
    shape = family.sizes["llama-7b"].replace(layers_num=layers)  # the table asks for the number of layers alone
    rows = list(expand(family.tables["meta"], shape))
    ours = {row.theirs: row.ours[0] for row in rows}
    by_columns = _embedding_is_cut_by_columns(ranks, rows, values)
    cuts = _BY_COLUMNS if by_columns else CUTS
    weights = joined(path, ranks, len(files), cuts, ours)
    config = _config(path, family, values, {ours.get(name, name): shape for name, shape in weights.shapes.items()})
    check_degree(ours.values(), config, len(files), cuts)
    extras = companions.read_extras(path)
    return from_table(path, "meta", family, config, weights, rows, None, f"its {PARAMS}", extras=extras,
                      degree=Degree(len(files)))  # fmt: skip


def _embedding_is_cut_by_columns(ranks: Mapping[str, list[Entry]], rows: list[Row], values: Mapping[str, Any]) -> bool:
    name = next(row.theirs for row in rows if row.ours == (EMBEDDING,))
    shape = ranks[name][0].shape if name in ranks else ()
    return len(shape) == 2 and shape[1] != values.get("dim")


def _config(path: Path, family: Family, values: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> ModelConfig:
    """The configuration; what params.json does not say is in the shapes."""
    problems = [f"no key named '{key}' is known" for key in values if key not in _KNOWN]
    if values.get("use_scaled_rope"):
        problems.append("use_scaled_rope is not supported; only plain rotary positions are")
    gate, table = "encoder.transformer.0.feed_forward.linear_gate.weight", EMBEDDING
    missing = [name for name in (gate, table) if len(shapes.get(name, ())) != 2]
    problems += [f"{name} is missing or no matrix" for name in missing]
    raise_all(CheckpointError, [f"{path}: {problem}" for problem in problems])
    try:
        dim, heads = int(values["dim"]), int(values["n_heads"])
        kv_heads = int(values.get("n_kv_heads") or heads)
        return family.sizes["llama-7b"].replace(
            emb_size=dim, hidden_size=dim, feedforward_size=shapes[gate][0], heads_num=heads,
            layers_num=int(values["n_layers"]), vocab_size=shapes[table][0],
            local_kv_heads_num=None if kv_heads == heads else kv_heads, layernorm_eps=float(values["norm_eps"]),
            rope_theta=float(values.get("rope_theta") or 10000.0),
            max_seq_length=int(values.get("max_seq_len") or 2048),
        )  # fmt: skip
    except KeyError as error:
        raise ConfigError(f"{path / PARAMS}: {error} is missing") from None
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{path / PARAMS}: {error}") from None


def _plan(folder: Path, source: Source, target: Target) -> Plan:
    config, ranks = source.config, target.degree.tensor
    if "meta" not in source.family.tables:
        raise CheckpointError(f"{source.path}: is a {source.family.name}; Meta's format is LLaMA's alone")
    if target.degree.pipeline > 1:
        raise CheckpointError("Meta's checkpoints have one pipeline stage")
    # the loader of LLaMA 1 and 2 gathers columns; from LLaMA 3 on, whose vocabulary is larger, it sums rows
    cuts = CUTS if config.rope_theta >= 500000.0 else _BY_COLUMNS
    rows = list(expand(source.family.tables["meta"], config))
    check_degree(source.shapes, config, ranks, cuts)
    (folder / PARAMS).write_text(json.dumps(params_of(config), indent=2) + "\n", encoding="utf-8")
    companions.write_extras(source.folder, folder, source.extras)
    ours = {row.theirs: row.ours[0] for row in rows}
    shapes, read = to_table(source, rows)
    layout = {
        name: [
            Place(f"consolidated.{rank:02}.pth", name, part)
            for rank, part in enumerate(parts_of(ours[name], ranks, cuts))
        ] for name in shapes
    }  # fmt: skip
    return Plan(TORCH, layout, slots_of(shapes, target.type), read)


def params_of(config: ModelConfig) -> dict[str, Any]:
    """Our configuration as params.json. Raises ConfigError on what it cannot say."""
    problems = []
    if config.tie_weights:
        problems.append("its head is tied to the embedding, for which Meta's format has no word")
    if config.head_size * config.heads_num != config.hidden_size:
        problems.append(f"its heads are {config.head_size} wide; Meta's are always dim / n_heads")
    raise_all(ConfigError, [f"model: cannot be written as Meta's: {problem}" for problem in problems])
    multiple, multiplier = feed_forward_rule(config.hidden_size, config.feedforward_size)
    params: dict[str, Any] = {"dim": config.hidden_size, "multiple_of": multiple, "n_heads": config.heads_num,
                              "n_layers": config.layers_num, "norm_eps": config.layernorm_eps,
                              "vocab_size": config.rows}  # fmt: skip
    if multiplier is not None:
        params["ffn_dim_multiplier"] = multiplier
    if config.kv_heads != config.heads_num:
        params["n_kv_heads"] = config.kv_heads
    if config.rope_theta != 10000.0:
        params["rope_theta"] = config.rope_theta
    return params


def feed_forward_size(dim: int, multiple: int, multiplier: float | None) -> int:
    """The width that Meta's loader computes: two thirds of 4 dim, times the multiplier, rounded up to a multiple."""
    size = int(2 * (4 * dim) / 3)
    if multiplier is not None:
        size = int(multiplier * size)
    return multiple * ((size + multiple - 1) // multiple)


def feed_forward_rule(dim: int, size: int) -> tuple[int, float | None]:
    """`multiple_of` and `ffn_dim_multiplier` that give the width `size`. Raises ConfigError when none do."""
    for multiple in (256, 4096, 1024, 512, 128, 64, 32, 16, 8, 4, 2, 1):
        if feed_forward_size(dim, multiple, None) == size:
            return multiple, None
    for multiple in (4096, 1024, 256, 64, 16, 4, 1):
        for multiplier in (1.3, round((size + 0.5) / int(8 * dim / 3), 6), (size + 0.5) / int(8 * dim / 3)):
            if feed_forward_size(dim, multiple, multiplier) == size:
                return multiple, multiplier
    raise ConfigError(f"model: no params.json of Meta's gives a feed-forward size of {size} at {dim}")


META = Format(
    name="meta", title="Meta's consolidated.NN.pth and params.json (LLaMA)", holds=_holds, open=_open, plan=_plan,
    is_cut=True,
)  # fmt: skip
