"""Normalisation layers with TencentPretrain's parameter names."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class RMSNorm(nn.Module):
    """Root-mean-square norm (Zhang and Sennrich 2019, arXiv 1910.07467), over the last dimension."""

    def __init__(self, hidden_size: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(hidden_size))

    def forward(self, hidden: Tensor) -> Tensor:
        """`hidden` [..., E] normalised and scaled."""
        return F.rms_norm(hidden, self.weight.shape, self.weight, self.eps)


class LayerNorm(nn.Module):
    """Layer norm (Ba et al. 2016, arXiv 1607.06450), over the last dimension.

    The parameters are called `gamma` and `beta` as in the host; the arithmetic is `nn.LayerNorm`'s (biased variance,
    eps inside the root), from which the host's own layer is 1e-3 away.
    """

    def __init__(self, hidden_size: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.gamma = nn.Parameter(torch.ones(hidden_size))
        self.beta = nn.Parameter(torch.zeros(hidden_size))

    def forward(self, hidden: Tensor) -> Tensor:
        """`hidden` [..., E] normalised, scaled and shifted."""
        return F.layer_norm(hidden, self.gamma.shape, self.gamma, self.beta, self.eps)
