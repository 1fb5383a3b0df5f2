"""The feed-forward layers, dense and gated."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_fast": partial(F.gelu, approximate="tanh"),
    "relu": F.relu,
}


class DenseFeedForward(nn.Module):
    """linear_2(act(linear_1(x)))."""

    def __init__(self, hidden_size: int, feedforward_size: int, act: str, bias: bool) -> None:
        super().__init__()
        self.act = ACTIVATIONS[act]
        self.linear_1 = nn.Linear(hidden_size, feedforward_size, bias=bias)
        self.linear_2 = nn.Linear(feedforward_size, hidden_size, bias=bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """`hidden` [..., E] to [..., E]."""
        output: Tensor = self.linear_2(self.act(self.linear_1(hidden)))
        return output


class GatedFeedForward(nn.Module):
    """linear_2(act(linear_gate(x)) * linear_1(x)) (Shazeer 2020, arXiv 2002.05202)."""

    def __init__(self, hidden_size: int, feedforward_size: int, act: str, bias: bool) -> None:
        super().__init__()
        self.act = ACTIVATIONS[act]
        self.linear_gate = nn.Linear(hidden_size, feedforward_size, bias=bias)
        self.linear_1 = nn.Linear(hidden_size, feedforward_size, bias=bias)
        self.linear_2 = nn.Linear(feedforward_size, hidden_size, bias=bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """`hidden` [..., E] to [..., E]."""
        gate, inner = self.linear_gate(hidden), self.linear_1(hidden)
        inner = silu_gate(gate, inner) if self.act is F.silu else self.act(gate) * inner
        output: Tensor = self.linear_2(inner)
        return output


def silu_gate(gate: Tensor, inner: Tensor) -> Tensor:
    """silu(gate) * inner, of equal shapes."""
    output: Tensor = _SiluGate.apply(gate, inner)  # type: ignore[no-untyped-call]
    return output


class _SiluGate(torch.autograd.Function):
    """silu(gate) * inner, keeping only the two inputs: silu is computed again for the gradient."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, inner: Tensor) -> Tensor:
        ctx.save_for_backward(gate, inner)
        return F.silu(gate).mul_(inner)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        gate, inner = ctx.saved_tensors
        of_inner = F.silu(gate).mul_(gradient)
        of_gate = torch.ops.aten.silu_backward(gradient * inner, gate)
        return of_gate, of_inner
