"""Which layers each stage of a pipeline has."""

from __future__ import annotations

import math
import os
from itertools import pairwise

import torch
from torch import nn

from tp_ext.models.decoder import Decoder


def stages_of(decoder: Decoder, stages_num: int) -> list[range]:
    """What each stage has of embedding (0), layers (1 to their number) and output with the last norm (the last number).

    The stages differ as little as they can in what they compute, which goes by the parameters that something is multiplied
    with: the output layer's are, the embedding's are only looked up. Each has one of these at least.
    """
    weights = [1, *map(_size, decoder.encoder.transformer), _size(decoder.target)]
    if stages_num == 1:
        return [range(len(weights))]
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # or DeepSpeed says what it looked for
    from deepspeed.runtime.utils import partition_balanced

    return [range(first, stop) for first, stop in pairwise(partition_balanced(weights=weights, num_parts=stages_num))]


def _size(module: nn.Module) -> int:
    return sum(math.prod(parameter.shape) for parameter in module.parameters())
