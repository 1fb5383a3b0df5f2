"""Where the documents of a batch are, so that attention and positions can stay within each."""

# B batch, T tokens

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Spans(NamedTuple):
    """The documents of a batch, row after row; a tuple, whose tensors DeepSpeed's hooks can find."""

    lengths: list[int]
    """Tokens of each document; together B x T."""
    positions: Tensor
    """How many tokens of its document stand before each token, int64 [B, T]."""


def spans_of(documents: Tensor) -> Spans:
    """The runs of equal numbers in each row of `documents` [B, T]."""
    begins = torch.ones_like(documents, dtype=torch.bool)
    begins[:, 1:] = documents[:, 1:] != documents[:, :-1]
    starts = begins.flatten().nonzero().flatten()
    lengths = torch.diff(starts, append=starts.new_tensor([documents.numel()]))
    place = torch.arange(documents.numel(), device=documents.device)
    positions = place - torch.repeat_interleave(starts, lengths, output_size=documents.numel())
    return Spans(lengths.tolist(), positions.view_as(documents))
