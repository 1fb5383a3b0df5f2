"""Loss on held-out text, in nats per token and in bits per byte, which other vocabularies can be compared by."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from tp_ext.data.pack import Windows
from tp_ext.train.engine import Engine
from tp_ext.train.feed import to_host
from tp_ext.train.processes import Processes


@dataclass(frozen=True)
class Score:
    """What a model gives to a text: its loss per token in nats, and bits per UTF-8 byte of the text."""

    loss: float
    bits_per_byte: float


def evaluate(engine: Engine, instances: Windows, batch_size: int, processes: Processes) -> Score:
    """The score of the whole dataset, each share of the processes taking a part of it.

    All tokens but the first are targets, eos and bos too, so the sum of nats is that of coding the text; it is divided
    by the bytes of the text. Every process does the same number of forward passes, as ZeRO 3 needs.
    """
    mesh = engine.mesh
    rounds = -(-len(instances) // (batch_size * mesh.data))
    nats = targets = 0.0
    with engine.measuring() as loss_of:
        for number in range(rounds):
            first = (number * mesh.data + mesh.data_rank) * batch_size
            indices = np.arange(first, min(first + batch_size, len(instances)))
            count = int(instances.targets(indices).sum())
            batch = instances.read(indices if len(indices) else np.zeros(1, dtype=np.int64))
            nats += loss_of(to_host(batch, processes.device)) * count
            targets += count
    nats, targets = processes.total(*((nats, targets) if mesh.counts else (0.0, 0.0)))
    return Score(nats / targets, nats / math.log(2) / instances.store.text_bytes)
