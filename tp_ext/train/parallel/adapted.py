"""Layers with a change of low rank, of which each part has some of the rows or columns.

Of the two factors one is cut as the weight is. All parts have the other alike, each uses it for its own part of what is
computed, and its gradient is the sum of theirs. Dropout leaves in all parts what it would leave in the whole layer: they
draw the same random numbers, for all of what enters the whole.
"""

# B batch, T tokens, E model size, I inputs of this part, O outputs of this part

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from tp_ext.nn.lora import LoraLinear
from tp_ext.train.parallel.mesh import Mesh
from tp_ext.train.parallel.sums import shared_linear, summed


class PartOfLora(nn.Module):
    """Has the parameters of an adapted layer, under their names and in their order."""

    def __init__(self, layer: LoraLinear, mesh: Mesh) -> None:
        super().__init__()
        self.scale, self.dropout = layer.scale, layer.dropout
        self.weight = layer.weight
        self.bias: nn.Parameter | None
        self.register_parameter("bias", layer.bias)
        self.lora_A, self.lora_B = layer.lora_A, layer.lora_B
        self._group, self._rank, self._degree = mesh.tensor_group, mesh.tensor_rank, mesh.tensor


class RowsOfLora(PartOfLora):
    """Each part has some of the rows of the weight and of B, and all of A."""

    def forward(self, hidden: Tensor) -> Tensor:
        """`hidden` [B, T, E], the same in all parts, to [B, T, O]."""
        dropped = F.dropout(hidden, self.dropout, self.training) if self.dropout else hidden
        change = F.linear(shared_linear(self._group, dropped, self.lora_A) * self.scale, self.lora_B)
        return F.linear(hidden, self.weight, self.bias) + change


class ColumnsOfLora(PartOfLora):
    """Each part has some of the columns of the weight and of A, and all of B; the bias is added once."""

    def forward(self, hidden: Tensor) -> Tensor:
        """`hidden` [B, T, I] to [B, T, E], the same in all parts."""
        change = shared_linear(self._group, F.linear(self._dropped(hidden), self.lora_A) * self.scale, self.lora_B)
        output = summed(self._group, F.linear(hidden, self.weight) + change)
        return output if self.bias is None else output + self.bias

    def _dropped(self, hidden: Tensor) -> Tensor:
        if not (self.dropout and self.training):
            return hidden
        width = hidden.shape[-1]
        kept = F.dropout(hidden.new_ones(*hidden.shape[:-1], width * self._degree), self.dropout)
        return hidden * kept.narrow(-1, self._rank * width, width).contiguous()  # a view would keep all of it
