"""A linear layer with a change of low rank beside its weight (LoRA, Hu et al. 2021, arXiv 2106.09685)."""

# B batch, T tokens, I inputs, O outputs, R rank

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

FIRST, SECOND = "lora_A", "lora_B"
"""TencentPretrain's names of the two factors, beside `weight` and `bias`."""


class LoraLinear(nn.Module):
    """x W^T + b + scale x dropout(x) A^T B^T, with A [R, I] and B [O, R]; W and b are those of the layer it replaces."""

    def __init__(self, linear: nn.Linear, rank: int, scale: float, dropout: float) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.scale, self.dropout = scale, dropout
        self.weight = linear.weight
        self.register_parameter("bias", linear.bias)
        kind = {"dtype": linear.weight.dtype, "device": linear.weight.device}
        self.lora_A = nn.Parameter(torch.empty(rank, self.in_features, **kind))
        self.lora_B = nn.Parameter(torch.empty(self.out_features, rank, **kind))

    def forward(self, hidden: Tensor) -> Tensor:
        """`hidden` [..., I] to [..., O]."""
        dropped = F.dropout(hidden, self.dropout, self.training) if self.dropout else hidden
        change = F.linear(F.linear(dropped, self.lora_A) * self.scale, self.lora_B)
        return F.linear(hidden, self.weight, self.bias) + change
