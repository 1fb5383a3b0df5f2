"""The weights a model begins with: each process gets its parts of them, and reads no more."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from tp_ext.checkpoint.source import Shapes, Source
from tp_ext.train.lora import is_factor
from tp_ext.train.parallel.mesh import Mesh


def give_weights(
    model: nn.Module, shapes: Shapes, source: Source | None, initial: Callable[[str], Tensor], mesh: Mesh, partitioned: bool
) -> None:
    """Fill the parameters of a process one at a time; every process calls it.

    `shapes` are those of the whole weights, in the order in which all processes go through them. What `source` does not
    have is its part of `initial`, a whole weight. Where ZeRO 3 has `partitioned` the parameters, one process of those that
    share a weight reads it, and the others get their pieces from that one.
    """
    import deepspeed

    own = dict(model.named_parameters())
    parts = {name: mesh.part(name) for name in shapes if name in own}
    reads = not partitioned or mesh.data_rank == 0
    in_source = {name: part.span(shapes[name]) if part else None for name, part in parts.items() if not is_factor(name)}
    tensors = source.read(in_source) if source and reads else None
    for name, part in parts.items():
        parameter = own[name]
        gathered = deepspeed.zero.GatheredParameters([parameter], modifier_rank=0) if partitioned else nullcontext()
        with gathered, torch.no_grad():
            if not reads:
                continue
            if tensors is not None and name in in_source:
                found, weight = next(tensors)
                assert found == name, (found, name)
            else:
                weight = initial(name)
                weight = part.of(weight) if part else weight
            parameter.copy_(weight)
            del weight  # or its pages would stay in memory beside those of the next
