"""What a checkpoint is, and what is wrong with it, without its weights being loaded."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tp_ext.checkpoint.adapters import described, is_adapter
from tp_ext.checkpoint.certificate import FILE as CERTIFICATE
from tp_ext.checkpoint.formats import format_of, open_model
from tp_ext.checkpoint.source import Source
from tp_ext.errors import CheckpointError, UserError
from tp_ext.output import MANIFEST, check_files
from tp_ext.progress import short
from tp_ext.registry import Family, Registry
from tp_ext.settings import read_json
from tp_ext.tokens.rows import check_rows
from tp_ext.tokens.tokenizer import find_tokenizer, open_tokenizer


@dataclass(frozen=True)
class Finding:
    """What was found out."""

    facts: Mapping[str, str]
    """By what they are about, in the order in which they are told."""
    problems: list[str]


def inspect(
    path: Path, families: Registry[Family], config_path: Path | None = None, expected: str | None = None,
    hashes: bool = False,
) -> Finding:  # fmt: skip
    """Look at the checkpoint or the adapter at `path`. With `hashes` its files are read and compared with its manifest.

    Raises CheckpointError when it is none of the formats known here.
    """
    facts: dict[str, str] = {}
    problems: list[str] = []
    if expected is None and is_adapter(path):
        try:
            facts |= described(path)
        except UserError as error:
            problems += str(error).splitlines()
    else:
        chosen = format_of(path, expected)
        facts["format"] = f"{chosen.name}: {chosen.title}"
        try:
            source = open_model(path, families, config_path, chosen.name)
        except UserError as error:
            problems += str(error).splitlines()
        else:
            facts |= _of_the_model(source)
            _look_at_tokenizer(source, facts, problems)
    _look_at_manifest(path if path.is_dir() else path.parent, hashes, facts, problems)
    return Finding(facts, problems)


def _of_the_model(source: Source) -> dict[str, str]:
    config = source.config
    count = sum(math.prod(shape) for shape in source.shapes.values())
    sizes = source.family.sizes.items()
    known = next((name for name, size in sizes if size.replace(vocab_size=config.vocab_size) == config), None)
    groups = f", {config.kv_heads} of keys and values" if config.kv_heads != config.heads_num else ""
    padding = f", {config.vocab_padding} of them padding" if config.vocab_padding else ""
    return {
        "family": source.family.name + (f", the size of {known}" if known else ""),
        "sizes": f"{config.layers_num} layers of {config.hidden_size}, {config.heads_num} heads of {config.head_size}"
                 f"{groups}, feed-forward {config.feedforward_size}",
        "vocabulary": f"{config.rows} rows{padding}, head {'tied' if config.tie_weights else 'of its own'}",
        "position": _position(source),
        "parameters": f"{count:,} ({short(count)}) in {len(source.shapes)} tensors",
        "dtype": str(source.dtype).removeprefix("torch."),
        "degree": f"tensor {source.degree.tensor}, pipeline {source.degree.pipeline}",
    }  # fmt: skip


def _position(source: Source) -> str:
    config = source.config
    kind = f"rotary, theta {config.rope_theta:g}" if config.rotary_position_embedding else "ALiBi"
    return f"{kind}; made for {config.max_seq_length} tokens; norm epsilon {config.layernorm_eps:g}"


def _look_at_tokenizer(source: Source, facts: dict[str, str], problems: list[str]) -> None:
    path = find_tokenizer(source.folder)
    if path is None:
        facts["tokenizer"] = "none beside the weights"
        return
    try:
        tokenizer = open_tokenizer(path)
        facts["tokenizer"] = f"{path.name}, {tokenizer.vocab_size} pieces, SHA-256 {tokenizer.sha256[:12]}"
        check_rows(source.config, tokenizer)
    except UserError as error:
        problems.append(str(error))


def _look_at_manifest(folder: Path, hashes: bool, facts: dict[str, str], problems: list[str]) -> None:
    path = folder / MANIFEST
    if not path.is_file():
        facts["manifest"] = "none; it was not written by tp_ext, or was changed since"
        return
    try:
        manifest = read_json(path, CheckpointError)
        made_by = manifest.get("made_by")
        version = made_by.get("tp_ext") if isinstance(made_by, dict) else "?"
        facts["manifest"] = f"{manifest.get('kind')}, by tp_ext {version}; " + (
            "sizes and hashes of its files compared" if hashes else "sizes of its files compared, --hashes compares all"
        )
        facts |= _lineage(folder, manifest)
        check_files(folder, manifest, hashes, CheckpointError)
    except UserError as error:
        problems.append(str(error))


def _lineage(folder: Path, manifest: Mapping[str, Any]) -> dict[str, str]:
    """Where it came from, as manifest and certificate tell."""
    facts = {}
    if isinstance(trained := manifest.get("trained"), dict):
        facts["trained"] = ", ".join(f"{name} {str(value)[:12]}" for name, value in trained.items())
    if (folder / CERTIFICATE).is_file():
        said = read_json(folder / CERTIFICATE, CheckpointError)
        begin = said.get("from")
        begin = begin if isinstance(begin, dict) else {}
        facts["converted"] = (
            f"from {begin.get('path')} ({begin.get('format')}, {begin.get('dtype')}), "
            f"{'every value kept' if said.get('exact') else 'values rounded'}, digest {str(said.get('digest'))[:12]}"
        )
    return facts
