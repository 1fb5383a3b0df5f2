"""The weights a model begins with: each process reads its own of them, and no more."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tp_ext.checkpoint.source import Shapes, Source
from tp_ext.checkpoint.tensors import Shape, Span
from tp_ext.train.lora import is_factor
from tp_ext.train.parallel.mesh import Mesh


@dataclass(frozen=True)
class Place:
    """What a process has of a weight, and where."""

    span: Span | None
    """Of the whole weight; None where that is all of it."""
    values: slice | None = None
    """Of that span, flat, what ZeRO 3 has given to this process; None stands for all."""

    def of(self, found: Tensor) -> Tensor:
        """From what the span holds, the values that are kept."""
        return found if self.values is None else found.flatten()[self.values]


def place_of(shape: Shape, part: Span | None, share: slice | None) -> Place:
    """The place of a `share` of the flat values of a `part` of a weight of that shape, of which whole rows are read."""
    if share is None or (part and part.axis > 0):
        return Place(part, share)
    width, above = math.prod(shape[1:]), part.start if part else 0
    first, last = share.start // width, -(-share.stop // width)
    return Place(Span(0, above + first, above + last), slice(share.start - first * width, share.stop - first * width))


def give_weights(
    model: nn.Module, shapes: Shapes, source: Source | None, initial: Callable[[str], Tensor], mesh: Mesh
) -> None:
    """Fill the parameters of a process, one at a time; every process calls it.

    `shapes` are those of the whole weights. What `source` does not have is taken of `initial`, a whole weight.
    """
    own = dict(model.named_parameters())
    places = {}
    for name in filter(own.__contains__, shapes):
        part, share = mesh.part(name), _share(own[name], mesh.data_rank)
        if share is None or share.start < share.stop:  # of a small weight there may be none left for the last processes
            places[name] = place_of(shapes[name], part.span(shapes[name]) if part else None, share)
    in_source = {name: place.span for name, place in places.items() if not is_factor(name)}
    tensors = source.read(in_source) if source else None
    for name, place in places.items():
        if tensors is not None and name in in_source:
            found, weight = next(tensors)
            assert found == name, (found, name)
        else:
            weight = initial(name)
            weight = place.span.of(weight) if place.span else weight
        _fill(own[name], place.of(weight))
        del weight  # or its pages would stay in memory beside those of the next


def _share(parameter: Any, rank: int) -> slice | None:
    """Which of its flat values a process has of a parameter that ZeRO 3 has partitioned; None of any other."""
    if not _is_partitioned(parameter):
        return None
    size, count = parameter.ds_tensor.numel(), parameter.ds_numel
    return slice(min(rank * size, count), min((rank + 1) * size, count))


def _is_partitioned(parameter: Any) -> bool:
    """Whether the process's partition is nothing but its values: ZeRO++ quantises them or keeps them twice."""
    partition: Any = getattr(parameter, "ds_tensor", None)
    if partition is None or parameter.ds_secondary_tensor is not None:
        return False
    return bool(partition.is_floating_point())


@torch.no_grad()
def _fill(parameter: Any, values: Tensor) -> None:
    if _is_partitioned(parameter):
        parameter.ds_tensor[: values.numel()].copy_(values)
    elif hasattr(parameter, "ds_id"):
        import deepspeed

        with deepspeed.zero.GatheredParameters([parameter], modifier_rank=0):
            parameter.copy_(values)
    else:
        parameter.copy_(values)
