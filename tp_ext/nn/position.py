"""Where a token stands: rotary rotations of queries and keys, and ALiBi's slopes."""

# B batch, T tokens, H heads, D head size

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor


class Rotary:
    """Rotary position embedding (Su et al. 2021, arXiv 2104.09864) of interleaved pairs, as in Meta's LLaMA.

    Not a module: its table must stay in float32 whatever the model is cast to, and is in no checkpoint.
    """

    def __init__(self, head_size: int, theta: float) -> None:
        self._head_size = head_size
        self._theta = theta
        self._table: Tensor | None = None

    def __call__(self, heads: Tensor, start: int = 0, positions: Tensor | None = None) -> Tensor:
        """`heads` [B, T, H, D] turned for the positions start ... start + T - 1; same shape and dtype.

        Or for `positions` [B, T], none of them above start + T - 1.
        """
        stop = start + heads.shape[1]
        if self._table is None or len(self._table) < stop or self._table.device != heads.device:
            self._table = self._angles(max(stop, 2048), heads.device)
        turns = self._table[start:stop] if positions is None else self._table[positions]
        turned: Tensor = _Rotate.apply(heads, turns.unsqueeze(-2))  # type: ignore[no-untyped-call]
        return turned

    def _angles(self, length: int, device: torch.device) -> Tensor:
        exponents = torch.arange(0, self._head_size, 2, device=device, dtype=torch.float32) / self._head_size
        angles = torch.outer(torch.arange(length, device=device, dtype=torch.float32), self._theta**-exponents)
        return torch.polar(torch.ones_like(angles), angles)  # [length, D / 2] complex64


class _Rotate(torch.autograd.Function):
    """A rotation, whose gradient is the rotation back: nothing of the size of the heads is kept for it."""

    @staticmethod
    def forward(ctx: Any, heads: Tensor, turns: Tensor) -> Tensor:
        ctx.save_for_backward(turns)
        return _turn(heads, turns)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _turn(gradient, ctx.saved_tensors[0].conj()), None


def _turn(heads: Tensor, turns: Tensor) -> Tensor:
    pairs = torch.view_as_complex(heads.float().unflatten(-1, (-1, 2)).contiguous())
    return torch.view_as_real(pairs * turns).flatten(-2).to(heads.dtype)


def alibi_slopes(heads_num: int) -> list[float]:
    """ALiBi's slope of each head (Press et al. 2022, arXiv 2108.12409), for any number of heads.

    A power of two n has 2^(-8/n), 2^(-16/n) ...; another number takes those of the power below it, then every other
    slope of the power above.
    """
    power = 2 ** math.floor(math.log2(heads_num))
    slopes = [2.0 ** (-8.0 * (i + 1) / power) for i in range(power)]
    slopes += [2.0 ** (-4.0 * (2 * i + 1) / power) for i in range(heads_num - power)]
    return slopes
