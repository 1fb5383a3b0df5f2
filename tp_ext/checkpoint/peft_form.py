"""peft's form of an adapter: adapter_model.safetensors under Hugging Face's names, and adapter_config.json.

A weight of theirs that holds several of ours (BLOOM's query_key_value) has one pair of factors there. Ours have one each;
where these differ, theirs is A one below the other, and B with zeros where a row meets another one's A: the rank is the
sum, alpha grows with it, and what is computed is the same.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from tp_ext.checkpoint.adapter import PEFT_CONFIG, Adapter, Reader, number, pairs_of, reader
from tp_ext.checkpoint.containers import SAFETENSORS
from tp_ext.checkpoint.files import Weights, open_indexed
from tp_ext.checkpoint.layout import in_one_file, write_layout
from tp_ext.checkpoint.names import Row, expand
from tp_ext.checkpoint.source import EMBEDDING, HEAD, Source
from tp_ext.checkpoint.tensors import TYPE_OF, Slot, Tensor
from tp_ext.errors import CheckpointError, raise_all
from tp_ext.settings import read_json

STEM = "adapter_model"
_PREFIX, _FIRST, _SECOND = "base_model.model.", ".lora_A.weight", ".lora_B.weight"
_UNSUPPORTED: dict[str, Any] = {"use_dora": False, "fan_in_fan_out": False, "bias": "none", "use_rslora": False}


def open_peft(path: Path, base: Source) -> Adapter:
    """The adapter in peft's form in the folder `path`, of the model `base`. Raises CheckpointError."""
    values, rank, alpha = read_config(path)
    weights = open_indexed(path, STEM, [".safetensors", ".bin"])
    if weights is None:
        raise CheckpointError(f"{path}: has no {STEM}.safetensors")
    names = {name.removeprefix(_PREFIX): name for name in weights.names()}
    rows = {row.theirs: row for row in expand(base.family.tables["huggingface"], base.config)}
    if base.config.tie_weights:
        _drop_head(path, weights, names, base)
    saved = {name.rpartition(".")[2] for name in values.get("modules_to_save") or ()}
    whole = {name: rows[name] for name in names if name in rows and name.split(".")[-2] in saved}
    pairs = pairs_of(path, {name: own for name, own in names.items() if name not in whole}, _FIRST, _SECOND)
    parts: dict[str, tuple[Reader, Reader]] = {}
    for name, (one, other) in pairs.items():
        row = rows.get(f"{name}.weight")
        if row is None:
            raise CheckpointError(f"{path}: {name}: the model has no such weight")
        parts.update(_parts(weights, one, other, row, base, rank))
    return Adapter(path, "peft", rank, alpha, float(values.get("lora_dropout", 0.0)), parts,
                   {row.ours[0]: _filled(weights, names[name], base) for name, row in whole.items()})  # fmt: skip


def read_config(path: Path) -> tuple[dict[str, Any], int, float]:
    """What the folder `path` says of an adapter, its rank and its alpha. Raises CheckpointError on what is not supported."""
    values = read_json(path / PEFT_CONFIG, CheckpointError)
    problems = [f"{key} {values[key]!r} is not supported" for key, usual in _UNSUPPORTED.items()
                if values.get(key, usual) not in (usual, None, {}, [])]  # fmt: skip
    if values.get("peft_type") != "LORA":
        problems.append(f"its peft_type is {values.get('peft_type')!r}; only LORA is known")
    rank, alpha = int(values.get("r", 0)), float(values.get("lora_alpha", 0))
    ranks, alphas = values.get("rank_pattern") or {}, values.get("alpha_pattern") or {}
    if any(alphas.get(name, alpha) * rank != alpha * ranks.get(name, rank) for name in {**ranks, **alphas}):
        problems.append("rank_pattern and alpha_pattern give its layers several scales, which is not supported")
    raise_all(CheckpointError, [f"{path / PEFT_CONFIG}: {problem}" for problem in problems])
    return values, rank, alpha


def _their_name(ours: str, base: Source) -> str:
    return next(row.theirs for row in base.family.tables["huggingface"] if row.ours == (ours,))


def _drop_head(path: Path, weights: Weights, names: dict[str, str], base: Source) -> None:
    """Leave out the head of a model whose head is its embedding. Raises CheckpointError when the two differ."""
    head = names.pop(_their_name(HEAD, base), None)
    table = names.get(_their_name(EMBEDDING, base))
    if head is not None and (table is None or not torch.equal(weights.read(head), weights.read(table))):
        raise CheckpointError(f"{path}: {head} differs from the embedding, which is the head of its model")


def _parts(
    weights: Weights, one: str, other: str, row: Row, base: Source, rank: int
) -> dict[str, tuple[Reader, Reader]]:
    """What reads the factors of each of our weights in one of theirs."""
    count = len(row.ours)
    several = count > 1 and weights.shapes[one][0] == count * rank
    blocks = _blocks(weights.read(one), row.move.to_ours(weights.read(other), base.config), rank) if several else None
    if blocks is None:
        first = reader(weights, one)
        return {ours: (first, _moved(weights, other, row, place, base)) for place, ours in enumerate(row.ours)}
    return {ours: (_value(blocks[place][0]), _value(blocks[place][1])) for place, ours in enumerate(row.ours)
            if blocks[place][0].any()}  # fmt: skip


def _blocks(first: Tensor, seconds: Sequence[Tensor], rank: int) -> list[tuple[Tensor, Tensor]] | None:
    """The factors of each of several weights where one pair holds them all; None where they share A."""
    own = [slice(place * rank, (place + 1) * rank) for place in range(len(seconds))]
    for second, columns in zip(seconds, own, strict=True):
        others = second.clone()
        others[:, columns] = 0
        if others.any():
            return None
    return [(first[columns].clone(), second[:, columns].contiguous()) for second, columns in zip(seconds, own, strict=True)]


def _value(tensor: Tensor) -> Reader:
    return lambda: tensor


def _moved(weights: Weights, name: str, row: Row, place: int, base: Source) -> Reader:
    """B in our order of rows, which is all that a change of layout moves."""
    return lambda: row.move.to_ours(weights.read(name), base.config)[place]


def _filled(weights: Weights, name: str, base: Source) -> Callable[[], Tensor]:
    """A table with the rows that stand for no piece, which peft knows nothing of: the mean of the others."""

    def read() -> Tensor:
        table = weights.read(name)
        missing = base.config.vocab_padding if table.shape[0] == base.config.pieces else 0
        return torch.cat([table, table.float().mean(0).to(table.dtype).expand(missing, -1)]) if missing else table

    return read


def write_peft(folder: Path, adapter: Adapter, base: Source) -> None:
    """Write the adapter into `folder`."""
    tensors: list[tuple[str, Tensor]] = []
    modules: dict[str, None] = {}
    saved: list[str] = []
    patterns: dict[str, dict[str, float]] = {"rank_pattern": {}, "alpha_pattern": {}}
    for row in expand(base.family.tables["huggingface"], base.config):
        name = row.theirs.removesuffix(".weight")
        if row.ours[0] in adapter.whole:
            table = adapter.whole[row.ours[0]]()[: base.config.pieces].contiguous()
            theirs = [row.theirs, *([_their_name(HEAD, base)] if base.config.tie_weights else [])]
            saved += [each.split(".")[-2] for each in theirs]
            tensors += [(f"{_PREFIX}{each}", table) for each in theirs]
            continue
        if not any(ours in adapter.parts for ours in row.ours):
            continue
        first, second = _pair(adapter, row, base)
        modules[name.rpartition(".")[2]] = None
        if first.shape[0] != adapter.rank:
            patterns["rank_pattern"][name] = first.shape[0]
            patterns["alpha_pattern"][name] = number(adapter.scale * first.shape[0])
        tensors += [(f"{_PREFIX}{name}{_FIRST}", first), (f"{_PREFIX}{name}{_SECOND}", second)]
    values = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "inference_mode": True, "r": adapter.rank,
        "lora_alpha": number(adapter.alpha), "lora_dropout": adapter.dropout, "target_modules": sorted(modules),
        "bias": "none", "fan_in_fan_out": False, "base_model_name_or_path": str(base.path),
        **{key: pattern for key, pattern in patterns.items() if pattern},
    }  # fmt: skip
    if saved:
        values["modules_to_save"] = saved
    (folder / PEFT_CONFIG).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    slots = {name: Slot(tuple(tensor.shape), TYPE_OF[tensor.dtype]) for name, tensor in tensors}
    write_layout(folder, SAFETENSORS, in_one_file(f"{STEM}.safetensors", slots), slots, iter(tensors))


def _pair(adapter: Adapter, row: Row, base: Source) -> tuple[Tensor, Tensor]:
    """The factors of one of their weights."""
    pairs = {place: tuple(part() for part in adapter.parts[name]) for place, name in enumerate(row.ours)
             if name in adapter.parts}  # fmt: skip
    if len(pairs) == len(row.ours) and all(torch.equal(first, pairs[0][0]) for first, _ in pairs.values()):
        return pairs[0][0], row.move.to_theirs([second for _, second in pairs.values()], base.config)
    rank = max(first.shape[0] for first, _ in pairs.values())
    like = next(iter(pairs.values()))[0]
    firsts, seconds = like.new_zeros(len(row.ours), rank, like.shape[1]), []
    for place, name in enumerate(row.ours):
        second = like.new_zeros(base.shapes[name][0], len(row.ours), rank)
        if place in pairs:
            firsts[place, : pairs[place][0].shape[0]] = pairs[place][0]
            second[:, place, : pairs[place][1].shape[1]] = pairs[place][1]
        seconds.append(second.flatten(1))
    return firsts.flatten(0, 1), row.move.to_theirs(seconds, base.config)
