"""What each process of a run has of a model: the layers of its stage, and of every weight its part."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from tp_ext.checkpoint.source import EMBEDDING
from tp_ext.config import ModelConfig
from tp_ext.train.lora import Counts, adapted_of, count, outline
from tp_ext.train.parallel.balance import stages_of
from tp_ext.train.parallel.tensor import padded, part_of
from tp_ext.train.recipe import LoraSection


@dataclass(frozen=True, kw_only=True)
class Share:
    """What the processes of one stage have, each of its part; all parts are of one size."""

    stage: int
    config: ModelConfig
    """Of the part: heads, feed-forward width and vocabulary are those of one process, the layers all."""
    layers_num: int
    is_first: bool
    """Whether it has the embedding."""
    is_last: bool
    """Whether it has the output layer."""
    counts: Counts


@cache
def shares_of(config: ModelConfig, lora: LoraSection | None, tensor: int, pipeline: int) -> tuple[Share, ...]:
    """What the processes of each stage have; together more than the model, by what stands for nothing and is had twice."""
    part = part_of(padded(config, tensor), tensor)
    model = outline(part, adapted_of(lora, part) if lora else None)
    parameters, last = dict(model.named_parameters()), part.layers_num + 1
    shares = []
    for stage, held in enumerate(stages_of(model, pipeline)):
        own = {name: each for name, each in parameters.items() if _place(name, last) in held}
        if part.tie_weights and last in held:
            own[EMBEDDING] = parameters[EMBEDDING]
        layers_num = sum(1 for place in held if 0 < place < last)
        shares.append(Share(stage=stage, config=part, layers_num=layers_num, is_first=0 in held, is_last=last in held,
                            counts=count(own, part)))  # fmt: skip
    return tuple(shares)


def _place(name: str, last: int) -> int:
    """Where a parameter is in the order of the layers, as `stages_of` numbers them."""
    if name.startswith("encoder.transformer."):
        return int(name.split(".")[2]) + 1
    return 0 if name.startswith("embedding.") else last
