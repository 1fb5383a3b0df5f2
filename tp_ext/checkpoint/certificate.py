"""The proof of a conversion: a hash of every tensor on its way out and, through the inverse table, on its way back."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from tp_ext import __version__
from tp_ext.checkpoint.ahead import read_ahead
from tp_ext.checkpoint.digests import ALGORITHM, Digests, digest_of
from tp_ext.checkpoint.formats.format import Format, Target
from tp_ext.checkpoint.source import Named, Source
from tp_ext.checkpoint.tensors import TYPES, Tensor, as_read
from tp_ext.errors import CheckpointError
from tp_ext.output import MANIFEST, let_go
from tp_ext.settings import read_json

FILE = "conversion.json"
_KEPT = 1 << 30
"""Bytes that reading back leaves in the system's cache, so that it drives out nothing that others read."""


def expected(source: Source, target: Target, to: Format, asked: bool, hashes: Digests) -> Named:
    """The tensors of `source` as they will be read back, hashed; those that will be quantised, as they are.

    Raises CheckpointError on values that are no finite numbers, that the type cannot hold, and on any change of a value
    where no other type was `asked` for.
    """
    for name, tensor in source.read():
        kind = to.type_of(tuple(tensor.shape), target.type)
        kept = as_read(tensor, kind)
        _check_finite(source.path, name, tensor, kept, kind)
        if hashes.exact or not asked:
            hashes.exact &= kind != "Q8_0" and _is_exact(tensor, kept)
        if not asked and not hashes.exact:
            raise CheckpointError(
                f"{source.path}: {name} is {_short(tensor.dtype)} and would lose digits as {kind}; choose with --dtype"
            )
        hashes.add(name, kept)
        yield name, tensor if kind == "Q8_0" else kept


def _is_exact(tensor: Tensor, kept: Tensor) -> bool:
    """Whether no value changed when `tensor` became `kept`; a type that holds all values of the other need not be asked."""
    holds_all = torch.promote_types(tensor.dtype, kept.dtype) == kept.dtype
    return holds_all or torch.equal(kept.to(tensor.dtype), tensor)


def _check_finite(path: Path, name: str, tensor: Tensor, kept: Tensor, kind: str) -> None:
    if is_finite(kept):
        return
    if not is_finite(tensor):
        raise CheckpointError(f"{path}: {name} holds values that are no finite numbers")
    raise CheckpointError(f"{path}: {name} has values too large for {_short(TYPES[kind])}; take bf16 or fp32")


def is_finite(tensor: Tensor) -> bool:
    """Whether all values are finite. A sum, which one other value would make none, is forty times faster to look at."""
    return bool(torch.isfinite(tensor.sum())) or bool(torch.isfinite(tensor).all())


def read_back(written: Source, to: Format, target: Target) -> dict[str, str]:
    """The hash of every tensor of what was written, in the type that it should have."""
    hashes, passed = Digests(), 0
    with read_ahead(written.read()) as tensors:
        for name, tensor in tensors:
            kind = TYPES[to.type_of(tuple(tensor.shape), target.type)]
            if tensor.dtype != kind:
                known = f"{_short(tensor.dtype)} instead of {_short(kind)}"
                raise CheckpointError(f"{name} reads back as {known}; nothing was kept")
            hashes.add(name, tensor)
            passed += tensor.nbytes
            if passed > _KEPT:
                let_go(written.folder)
                passed = 0
    return hashes.hashes


def compare(before: Mapping[str, str], after: Mapping[str, str], what: str) -> None:
    """Raise CheckpointError naming the tensors whose hashes differ."""
    wrong = [name for name in before if after.get(name) != before[name]] + [name for name in after if name not in before]
    if wrong:
        more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise CheckpointError(f"{wrong[0]}{more} {what}")


def check_parent(source: Source, hashes: Mapping[str, str]) -> str | None:
    """The digest of the tensors that the manifest beside `source` tells of, None where it tells none.

    Raises CheckpointError when tensors are no more those that were written.
    """
    path = source.weights_folder / MANIFEST
    tensors = read_json(path, CheckpointError).get("tensors") if path.is_file() else None
    if tensors is None:
        return None
    if not isinstance(tensors, dict):
        raise CheckpointError(f"{path}: damaged: its list of tensors is none")
    compare(tensors, hashes, f"in {source.path} is no more what it was when {path} was written; the file is damaged")
    return digest_of(tensors)


def certificate(
    source: Source, kept: Source, to: Format, target: Target, hashes: Mapping[str, str], own: Mapping[str, str],
    exact: bool, parent: str | None, logits: Mapping[str, Any] | None,
) -> dict[str, Any]:  # fmt: skip
    """What conversion.json says. `kept` is the source without what the format has no word for."""
    table = source.family.tables.get(to.name)
    rows = [[list(row.ours), row.theirs] for row in table] if table else "names are ours"
    return {
        "from": {"path": str(source.path), "folder": str(source.folder), "format": source.format,
                 "dtype": _short(source.dtype), "degree": vars(source.degree), "digest": digest_of(own),
                 "manifest": parent},
        "to": {"format": to.name, "type": target.type, "degree": vars(target.degree)},
        "family": source.family.name,
        "config": kept.config.to_json(),
        "exact": exact,
        "digest": digest_of(hashes),
        "hash": ALGORITHM,
        "tensors": dict(hashes),
        "table": rows,
        "logits": logits or "not compared",
        "versions": {"tp_ext": __version__, "torch": str(torch.__version__), "python": platform.python_version()},
    }  # fmt: skip


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
