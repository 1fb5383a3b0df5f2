"""Where weights are cut between the ranks of tensor parallelism: one table of names, read by training and conversion."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch

from tp_ext.checkpoint.tensors import Shape, Span, Tensor
from tp_ext.config import ModelConfig
from tp_ext.errors import CheckpointError, raise_all


@dataclass(frozen=True)
class Unit:
    """What a cut may fall between, never into."""

    name: str
    count: Callable[[ModelConfig], int]


@dataclass(frozen=True)
class Cut:
    """How the weights whose names match a pattern are cut."""

    names: str
    """A regular expression for the whole name, ours."""
    axis: int | None
    """0: each rank has some of the rows (column parallel); 1: some of the columns; None: all ranks have the same."""
    unit: Unit | None = None


ROWS = Unit("rows", lambda config: config.rows)
HEADS = Unit("heads", lambda config: config.heads_num)
KV_HEADS = Unit("key and value heads", lambda config: config.kv_heads)
INNER = Unit("feed-forward rows", lambda config: config.feedforward_size)

CUTS = (
    Cut(r"embedding\.word\.embedding\.weight",              0, ROWS),
    Cut(r"target\.lm\.output_layer\.weight",                0, ROWS),
    Cut(r".*\.self_attn\.linear_layers\.0\.(weight|bias|lora_B)",  0, HEADS),
    Cut(r".*\.self_attn\.linear_layers\.[12]\.(weight|bias|lora_B)", 0, KV_HEADS),
    Cut(r".*\.self_attn\.final_linear\.(weight|lora_A)",    1, HEADS),
    Cut(r".*\.self_attn\.final_linear\.bias",               None),
    Cut(r".*\.feed_forward\.linear_(gate|1)\.(weight|bias|lora_B)", 0, INNER),
    Cut(r".*\.feed_forward\.linear_2\.(weight|lora_A)",     1, INNER),
    Cut(r".*\.feed_forward\.linear_2\.bias",                None),
    Cut(r".*\.lora_[AB]",                                   None),
    Cut(r"(.*\.)?layer_norm(_1|_2)?\.(weight|gamma|beta)",  None),
)  # fmt: skip
"""Biases behind a cut by columns are added once, after the ranks' parts were summed, so all ranks have them whole.

Of LoRA's two factors one is cut as its weight is; all ranks have the other whole, and its gradient is the sum of theirs."""


@dataclass(frozen=True)
class Part:
    """One of `count` equal parts of a tensor along an axis."""

    axis: int
    index: int
    count: int

    def of(self, tensor: Tensor) -> Tensor:
        """This part of `tensor`, a view."""
        return self.span(tensor.shape).of(tensor)

    def span(self, shape: Shape) -> Span:
        """Where this part of a tensor of that shape begins and ends."""
        size = shape[self.axis] // self.count
        return Span(self.axis, self.index * size, (self.index + 1) * size)

    def shape(self, shape: Shape) -> Shape:
        """The shape of this part of a tensor of that shape."""
        return tuple(extent // self.count if axis == self.axis else extent for axis, extent in enumerate(shape))


def axis_of(name: str, cuts: Sequence[Cut] = CUTS) -> int | None:
    """The axis along which a weight of ours is cut; None when every rank has it whole. Raises CheckpointError."""
    return _cut_of(name, cuts).axis


def check_degree(names: Iterable[str], config: ModelConfig, degree: int, cuts: Sequence[Cut] = CUTS) -> None:
    """Raise CheckpointError, with every reason in one message, when weights cannot be cut into `degree` parts."""
    if degree < 1:
        raise CheckpointError(f"the degree of tensor parallelism is {degree}; it must be at least 1")
    problems: dict[str, str] = {}
    for name in names:
        unit = _cut_of(name, cuts).unit
        if unit and unit.count(config) % degree:
            problems.setdefault(unit.name, f"cannot cut {name} into {degree}: {_advice(unit, config, degree)}")
    raise_all(CheckpointError, list(problems.values()))


def _advice(unit: Unit, config: ModelConfig, degree: int) -> str:
    count = unit.count(config)
    if unit is ROWS:
        return f"{count} rows; grow to {-(-count // degree) * degree} first, or convert with --pad_vocab"
    fitting = [str(number) for number in range(1, count + 1) if count % number == 0]
    return f"{count} {unit.name}; they divide into {', '.join(fitting[:12])}"


def parts_of(name: str, degree: int, cuts: Sequence[Cut] = CUTS) -> list[Part | None]:
    """The part of a weight that each rank has; None stands for all of it."""
    axis = axis_of(name, cuts)
    return [None if axis is None else Part(axis, rank, degree) for rank in range(degree)]


def joined_shape(name: str, shapes: Sequence[Shape], cuts: Sequence[Cut] = CUTS) -> Shape:
    """The shape of a whole weight from those of its parts. Raises CheckpointError when they do not fit together."""
    axis = axis_of(name, cuts)
    if len(set(shapes)) > 1 or (axis is not None and len(shapes[0]) <= axis):
        raise CheckpointError(f"{name} has other shapes on other ranks: {', '.join(str(list(each)) for each in shapes)}")
    return tuple(extent * (len(shapes) if place == axis else 1) for place, extent in enumerate(shapes[0]))


def join(name: str, parts: Sequence[Tensor], cuts: Sequence[Cut] = CUTS) -> Tensor:
    """A whole weight from its parts, in order of rank. Raises CheckpointError when what all ranks have is not equal."""
    axis = axis_of(name, cuts)
    if axis is not None:
        return torch.cat(list(parts), axis) if len(parts) > 1 else parts[0]
    for rank, part in enumerate(parts):
        if not torch.equal(part, parts[0]):
            raise CheckpointError(f"{name} should be the same on all ranks; that of rank {rank} differs from rank 0's")
    return parts[0]


def _cut_of(name: str, cuts: Sequence[Cut]) -> Cut:
    cut = next((cut for cut in cuts if re.fullmatch(cut.names, name)), None)
    if cut is None:
        raise CheckpointError(f"{name}: the table of cuts does not say how it is cut")
    return cut
