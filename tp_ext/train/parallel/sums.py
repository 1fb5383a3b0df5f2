"""Sums over the parts of a layer, on the way forward or on the way back."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def summed(group: Any, part: Tensor) -> Tensor:
    """The sum over all parts, whose gradient is that of each."""
    from deepspeed.module_inject.layers import RowParallel

    total: Tensor = RowParallel.apply(group, part.contiguous(), False)
    return total


def shared_linear(group: Any, hidden: Tensor, weight: Tensor) -> Tensor:
    """`hidden` [..., I] of one part times a `weight` [O, I] that all parts have alike, whose gradient is the sum of theirs.

    The gradient of `hidden` is that of this part.
    """
    output: Tensor = _SharedLinear.apply(group, hidden, weight)  # type: ignore[no-untyped-call]
    return output


class _SharedLinear(torch.autograd.Function):
    """Keeps the parameter itself and no view of it, which would hold on to what ZeRO 3 has gathered."""

    @staticmethod
    def forward(ctx: Any, group: Any, hidden: Tensor, weight: Tensor) -> Tensor:
        ctx.group = group
        ctx.save_for_backward(hidden, weight)
        return F.linear(hidden, weight)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, Tensor | None, Tensor]:
        from deepspeed import comm  # whose exchanges are counted as such

        hidden, weight = ctx.saved_tensors
        (gradient,) = gradients
        of_weight = (gradient.flatten(0, -2).T @ hidden.flatten(0, -2)).contiguous()
        comm.all_reduce(of_weight, group=ctx.group)
        return None, gradient @ weight if ctx.needs_input_grad[1] else None, of_weight
