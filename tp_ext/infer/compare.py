"""Whether two models on disk compute the same, layer by layer in bounded memory."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from tp_ext.checkpoint.convert import Proof
from tp_ext.checkpoint.source import Source
from tp_ext.errors import CheckpointError
from tp_ext.infer.layerwise import logits

SMALL = 1_000_000_000
"""Parameters below which logits are compared by default."""
TOLERANCES = {"F32": 1e-5, "F16": 1e-2, "BF16": 5e-2, "Q8_0": 5e-2}
"""Largest difference of a logit when weights were rounded to a type, as a part of the largest logit. Where the type is
kept, weights and numbers are the same and so are the logits, bit for bit."""
_RUNS, _TOKENS = 2, 24


def compare_logits(source: Source, target: Source, kind: str) -> Mapping[str, Any]:
    """Logits of both models on fixed ids; what conversion.json says of them. Raises CheckpointError when they differ."""
    pieces = min(source.config.pieces, target.config.pieces)
    length = min(_TOKENS, source.config.max_seq_length)
    ids = torch.randint(pieces, (_RUNS, length), generator=torch.Generator().manual_seed(0))
    one, other = (logits(model, ids)[..., :pieces] for model in (source, target))
    kept = source.dtype == target.dtype and kind != "Q8_0"
    tolerance = 0.0 if kept else TOLERANCES[kind]
    difference = float((one - other).abs().max()) / (float(one.abs().max()) or 1.0)
    if not difference <= tolerance:
        raise CheckpointError(
            f"{source.path}: logits differ by {difference:.2g} of the largest, {tolerance:.2g} are allowed for {kind}; "
            "nothing was kept"
        )
    return {"ids": [_RUNS, length], "largest_difference": difference, "tolerance": tolerance}


def _below_a_billion(source: Source, target: Source, kind: str) -> Mapping[str, Any]:
    if sum(math.prod(shape) for shape in source.shapes.values()) >= SMALL:
        return {"not compared": "a model of a billion parameters or more; ask with --verify logits"}
    return compare_logits(source, target, kind)


PROOFS: dict[str, Proof | None] = {"auto": _below_a_billion, "logits": compare_logits, "hashes": None}
"""What is compared beside the hashes, as the command line names it."""
