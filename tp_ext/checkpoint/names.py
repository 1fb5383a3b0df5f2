"""Names and layouts of weights in other formats: tables of rows that are read in both directions."""

# H heads, K kv heads, D head size, E model size

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from tp_ext.checkpoint.tensors import Span
from tp_ext.config import ModelConfig

Tensor = torch.Tensor


@dataclass(frozen=True)
class Move:
    """Another order of rows in our tensors and one of theirs; the two functions undo each other bit for bit."""

    to_ours: Callable[[Tensor, ModelConfig], tuple[Tensor, ...]]
    to_theirs: Callable[[Sequence[Tensor], ModelConfig], Tensor]
    run: Callable[[ModelConfig], int] | None = None
    """How many rows of each of ours stay together: whole runs of them are made of the same runs of theirs, which can be
    moved alone. None where only all rows can."""

    def can_cut(self, span: Span, config: ModelConfig) -> bool:
        """Whether a span of ours can be made of the same span of theirs."""
        if span.axis > 0:  # columns stay where they are
            return True
        return self.run is not None and span.start % self.run(config) == span.stop % self.run(config) == 0


@dataclass(frozen=True)
class Row:
    """One or more of our tensors and the one of theirs that holds the same numbers.

    `{i}` in a name stands for the layer. `when` says for which configurations the row exists.
    """

    ours: tuple[str, ...]
    theirs: str
    move: Move
    when: Callable[[ModelConfig], bool] = lambda config: True


Table = tuple[Row, ...]

SAME = Move(lambda tensor, _: (tensor,), lambda tensors, _: tensors[0], lambda _: 1)


def row(ours: str | tuple[str, ...], theirs: str, move: Move = SAME, **more: Any) -> Row:
    """A Row, with a single name of ours written plainly."""
    return Row((ours,) if isinstance(ours, str) else ours, theirs, move, **more)


def expand(table: Table, config: ModelConfig) -> Iterator[Row]:
    """The rows of a model of this configuration, layer by layer, with `{i}` filled in."""
    for line in table:
        if not line.when(config):
            continue
        if "{i}" not in line.theirs:
            yield line
            continue
        for i in range(config.layers_num):
            ours = tuple(name.replace("{i}", str(i)) for name in line.ours)
            yield Row(ours, line.theirs.replace("{i}", str(i)), line.move, line.when)


def _head(config: ModelConfig) -> int:
    return config.head_size


def _to_pairs(tensor: Tensor, config: ModelConfig) -> tuple[Tensor, ...]:
    split = tensor.unflatten(0, (-1, 2, config.head_size // 2))
    return (split.transpose(1, 2).flatten(0, 2).contiguous(),)


def _to_halves(tensors: Sequence[Tensor], config: ModelConfig) -> Tensor:
    split = tensors[0].unflatten(0, (-1, config.head_size // 2, 2))
    halves: Tensor = split.transpose(1, 2).flatten(0, 2).contiguous()
    return halves


ROTARY_PAIRS = Move(_to_pairs, _to_halves, _head)
"""Rows of a query or key projection: interleaved pairs (ours, Meta's) to halves (Hugging Face's), and back."""


def _split_heads(tensor: Tensor, config: ModelConfig) -> tuple[Tensor, ...]:
    split = tensor.unflatten(0, (-1, 3, config.head_size))
    return tuple(split[:, part].flatten(0, 1).contiguous() for part in range(3))


def _fuse_heads(tensors: Sequence[Tensor], config: ModelConfig) -> Tensor:
    split = [tensor.unflatten(0, (-1, config.head_size)) for tensor in tensors]
    return torch.stack(split, 1).flatten(0, 2).contiguous()


FUSED_HEADS = Move(_split_heads, _fuse_heads, _head)
"""Query, key and value as one tensor with rows (head, which, D), as in BLOOM's `query_key_value`; weight or bias."""


def _unstack(tensor: Tensor, config: ModelConfig) -> tuple[Tensor, ...]:
    sizes = [heads * config.head_size for heads in (config.heads_num, config.kv_heads, config.kv_heads)]
    return tuple(part.contiguous() for part in tensor.split(sizes))


STACKED = Move(_unstack, lambda tensors, _: torch.cat(list(tensors)))
"""Query, key and value as one tensor, one below the other, as in GGUF's `attn_qkv`; weight or bias."""
