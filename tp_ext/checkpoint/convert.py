"""A model from one format into another, compared with its source before it is called done."""

from __future__ import annotations

from pathlib import Path

import torch

from tp_ext.checkpoint.files import DTYPES
from tp_ext.checkpoint.formats import FORMATS, KIND, Source, open_model, write_model
from tp_ext.errors import CheckpointError, suggest
from tp_ext.output import whole_folder
from tp_ext.registry import Family, Registry


def convert(
    path: Path, output: Path, to: str, families: Registry[Family], dtype: str | None = None, config_path: Path | None = None
) -> Source:
    """Write the model at `path` in the format `to` into the folder `output`; what was written, opened again.

    `dtype` (fp32, bf16, fp16) changes the type of the weights; None keeps it, and then every number stays bit for bit.
    Raises CheckpointError or ConfigError, and leaves no output, when the source is not exactly a model of its
    configuration, or when what was written, read back through the inverse table, is not what was read.
    """
    if to not in FORMATS:
        raise CheckpointError(f"no format named '{to}'.{suggest(to, FORMATS)}")
    if output.resolve() == path.resolve() or output.resolve() in path.resolve().parents:
        raise CheckpointError(f"{output}: is where the input is; name another folder")
    source = open_model(path, families, config_path)
    wanted = DTYPES[dtype] if dtype else source.dtype
    with whole_folder(output, KIND, CheckpointError) as folder:
        write_model(folder, source, to, wanted, {"source": {"path": str(path), "format": source.format}})
        _compare(source if to == "native" else source.without_padding(), open_model(folder, families), wanted)
    return open_model(output, families)


def _compare(source: Source, written: Source, dtype: torch.dtype) -> None:
    for (name, before), (same, after) in zip(source.read(), written.read(), strict=True):
        if not bool(torch.isfinite(before).all()):
            raise CheckpointError(f"{source.path}: {name} holds values that are no finite numbers")
        if not bool(torch.isfinite(before.to(dtype)).all()):
            raise CheckpointError(f"{source.path}: {name} has values too large for {str(dtype)[6:]}; take bf16 or fp32")
        if name != same or not torch.equal(before.to(dtype), after):
            raise CheckpointError(f"{name} reads back differently from what was written; nothing was kept")
