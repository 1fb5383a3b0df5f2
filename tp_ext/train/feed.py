"""Batches on their way from the dataset to the device."""

# B batch, T tokens

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tp_ext.data.batch import Batch
from tp_ext.data.loader import Loader


@dataclass(frozen=True)
class Step:
    """What one process needs for an optimizer step, in the host's memory."""

    micro_batches: list[tuple[list[Tensor], float]]
    """Tensors as `to_host` gives them, and the weight of each micro-batch."""
    targets_num: int
    """Targets of all processes."""


def steps(loader: Loader, position: int, device: torch.device) -> Iterator[Step]:
    """The steps from `position` on, without end."""
    for start in itertools.count(position, loader.global_batch_size):
        batch = loader.global_batch(start)
        yield Step([(to_host(micro.batch, device), micro.weight) for micro in batch.micro_batches], batch.targets_num)


def to_host(batch: Batch, device: torch.device) -> list[Tensor]:
    """Window int64 [B, T + 1], seg [B, T] and, where there are any, documents [B, T]; pinned for a GPU."""
    arrays = [batch.window.astype(np.int64), batch.seg, *([] if batch.documents is None else [batch.documents])]
    tensors = [torch.from_numpy(array) for array in arrays]
    if device.type != "cuda":
        return tensors
    with torch.cuda.device(device):
        return [tensor.pin_memory() for tensor in tensors]


def to_device(tensors: list[Tensor], device: torch.device) -> list[Tensor]:
    """Ids, targets, seg and, where there are any, documents [B, T], as the model takes them."""
    window, *others = (tensor.to(device, non_blocking=True) for tensor in tensors)
    return [window[:, :-1], window[:, 1:], *others]
