"""Loss on held-out text, in nats per token and in bits per byte, which other vocabularies can be compared by."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from tp_ext.data.pack import Windows
from tp_ext.train.feed import to_device, to_host
from tp_ext.train.processes import Processes


@dataclass(frozen=True)
class Score:
    """What a model gives to a text: its loss per token in nats, and bits per UTF-8 byte of the text."""

    loss: float
    bits_per_byte: float


def evaluate(module: nn.Module, instances: Windows, batch_size: int, processes: Processes) -> Score:
    """The score of the whole dataset, each process taking a share of it.

    All tokens but the first are targets, eos and bos too, so the sum of nats is that of coding the text; it is divided
    by the bytes of the text. Every process does the same number of forward passes, as ZeRO 3 needs.
    """
    rounds = -(-len(instances) // (batch_size * processes.world_size))
    nats = targets = 0.0
    was_training = module.training
    module.eval()
    with torch.no_grad():
        for number in range(rounds):
            first = (number * processes.world_size + processes.rank) * batch_size
            indices = np.arange(first, min(first + batch_size, len(instances)))
            count = int(instances.targets(indices).sum())
            batch = instances.read(indices if len(indices) else np.zeros(1, dtype=np.int64))
            loss = module(*to_device(to_host(batch, processes.device), processes.device))
            nats += float(loss) * count
            targets += count
    module.train(was_training)
    nats, targets = processes.total(nats, targets)
    return Score(nats / targets, nats / math.log(2) / instances.store.text_bytes)
