"""A linear layer with a change of low rank beside its weight (LoRA, Hu et al. 2021, arXiv 2106.09685)."""

# B batch, T tokens, I inputs, O outputs, R rank

from __future__ import annotations

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
        self.bias: nn.Parameter | None
        self.register_parameter("bias", linear.bias)
        self.lora_A = nn.Parameter(linear.weight.new_empty(rank, self.in_features))
        self.lora_B = nn.Parameter(linear.weight.new_empty(self.out_features, rank))

    def forward(self, hidden: Tensor) -> Tensor:
        """`hidden` [..., I] to [..., O]."""
        dropped = F.dropout(hidden, self.dropout, self.training) if self.dropout else hidden
        change = F.linear(F.linear(dropped, self.lora_A) * self.scale, self.lora_B)
        return F.linear(hidden, self.weight, self.bias) + change
