"""Tensors of files: what is known of one before it is read, and before it is written."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from tp_ext.tokens.gguf_vocabulary import gguf_package

Tensor = torch.Tensor
Shape = tuple[int, ...]

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""The types of weights, as options and recipes name them."""
TYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16, "Q8_0": torch.float32}
"""What a tensor is kept as in a file, and what it is when it is read. Q8_0 (GGUF): 32 values as int8 with one scale."""
TYPE_OF = {dtype: name for name, dtype in TYPES.items() if name != "Q8_0"}
Q8_BLOCK, Q8_BYTES = 32, 34
BLOCK = 2048
"""Rows of a table that exist in float32 at once."""


@dataclass(frozen=True)
class Span:
    """What is from one place to another along an axis of a tensor."""

    axis: int
    start: int
    stop: int

    def of(self, tensor: Tensor) -> Tensor:
        """That of `tensor`, a view."""
        return tensor.narrow(self.axis, self.start, self.stop - self.start)


@dataclass(frozen=True)
class Entry:
    """A tensor in a file."""

    shape: Shape
    dtype: torch.dtype
    read: Callable[[], Tensor]
    """Reads it, or maps it, and then its pages are read when they are touched. Raises CheckpointError when the file is
    found to be damaged there."""
    read_part: Callable[[int, int], Tensor] | None = None
    """Reads the values from one number to another of a flat tensor, where a file offers that; checks no sum of it."""
    cut: Callable[[Span], Tensor] | None = None
    """Reads a span, checked as the whole, where that takes less than a view of what `read` gives."""

    def part(self, span: Span | None) -> Tensor:
        """A span of it, or all of it."""
        if span is None:
            return self.read()
        return self.cut(span) if self.cut else span.of(self.read())


@dataclass(frozen=True)
class Slot:
    """Room for a tensor in a file that is being written."""

    shape: Shape
    type: str
    """One of TYPES."""

    @property
    def bytes(self) -> int:
        """How much room."""
        count = math.prod(self.shape)
        return count // Q8_BLOCK * Q8_BYTES if self.type == "Q8_0" else count * TYPES[self.type].itemsize


def mean_row(table: Tensor) -> Tensor:
    """The mean [E], float32, of rows [V, E]."""
    total = torch.zeros(table.shape[1], dtype=torch.float64)
    for part in table.split(BLOCK):
        total += part.double().sum(0)
    return (total / len(table)).float()


def quantize(tensor: Tensor) -> Tensor:
    """A float32 tensor [..., 32 n] as Q8_0: uint8 [..., 34 n]."""
    gguf = gguf_package()
    return torch.from_numpy(gguf.quants.quantize(tensor.float().numpy(), gguf.GGMLQuantizationType.Q8_0))


def dequantize(blocks: Tensor) -> Tensor:
    """The float32 tensor [..., 32 n] that uint8 [..., 34 n] stands for."""
    gguf = gguf_package()
    return torch.from_numpy(gguf.quants.dequantize(blocks.numpy(), gguf.GGMLQuantizationType.Q8_0))


def as_read(tensor: Tensor, kind: str) -> Tensor:
    """The tensor that will be read where `tensor` is kept as the type `kind`."""
    return dequantize(quantize(tensor)) if kind == "Q8_0" else tensor.to(TYPES[kind])


def bytes_of(tensor: Tensor, kind: str) -> memoryview:
    """What is written where `tensor` is kept as the type `kind`."""
    stored = quantize(tensor) if kind == "Q8_0" else tensor.detach().to("cpu", TYPES[kind])
    view: memoryview = stored.contiguous().view(-1).view(torch.uint8).numpy().data
    return view
