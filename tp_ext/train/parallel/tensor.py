"""Tensor parallelism: a model that has one part of every weight the table of cuts names (Shoeybi et al. 2019, arXiv
1909.08053)."""

# B batch, T tokens, E model size, R rows of this part

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tp_ext.checkpoint.shards import axis_of
from tp_ext.config import ModelConfig
from tp_ext.nn.attention import SelfAttention
from tp_ext.nn.lora import LoraLinear
from tp_ext.nn.loss import IGNORED, OutputLayer
from tp_ext.nn.position import alibi_slopes
from tp_ext.train.parallel.adapted import ColumnsOfLora, RowsOfLora
from tp_ext.train.parallel.mesh import Mesh
from tp_ext.train.parallel.sums import summed


def padded(config: ModelConfig, degree: int) -> ModelConfig:
    """The configuration with as many rows that stand for nothing as the vocabulary needs to be cut into `degree`."""
    added = -config.rows % degree
    return config.replace(vocab_size=config.rows + added, vocab_padding=config.vocab_padding + added)


def part_of(config: ModelConfig, degree: int) -> ModelConfig:
    """The configuration of one of `degree` parts: heads, feed-forward width and vocabulary are narrower."""
    if degree == 1:
        return config
    return config.replace(
        heads_num=config.heads_num // degree, local_kv_heads_num=config.kv_heads // degree,
        attention_head_size=config.head_size, feedforward_size=config.feedforward_size // degree,
        vocab_size=config.rows // degree, vocab_padding=0,
    )  # fmt: skip


def join_parts(model: nn.Module, config: ModelConfig, mesh: Mesh) -> None:
    """Make a model of `part_of(config)` work together with its other parts.

    What enters a layer that is cut by rows and then by columns is the same in all parts, so its gradient is their sum;
    what leaves it is the sum of theirs. All other values are the same everywhere.
    """
    if mesh.tensor == 1:
        return
    from deepspeed.module_inject.layers import ColumnParallel

    group, rank = mesh.tensor_group, mesh.tensor_rank

    def enter(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return (ColumnParallel.apply(group, inputs[0]), *inputs[1:])

    for name, module in list(model.named_modules()):
        above, _, own = name.rpartition(".")
        parent = model.get_submodule(above)
        if isinstance(module, SelfAttention) and module.slopes:
            count = len(module.slopes)
            module.slopes = alibi_slopes(count * mesh.tensor)[rank * count : (rank + 1) * count]
        if isinstance(module, OutputLayer):
            setattr(parent, own, OutputPart(module, config, mesh))
        elif isinstance(module, (nn.Linear, LoraLinear)):
            is_cut_by_columns = axis_of(f"{name}.weight") == 1
            if isinstance(module, LoraLinear):
                setattr(parent, own, (ColumnsOfLora if is_cut_by_columns else RowsOfLora)(module, mesh))
            elif is_cut_by_columns:
                setattr(parent, own, ColumnsOfLinear(module, group))
            if is_cut_by_columns:
                parent.register_forward_pre_hook(enter)
        elif isinstance(module, nn.Embedding):
            setattr(parent, own, RowsOfEmbedding(module, mesh))


def mark_parts(model: nn.Module) -> None:
    """Tell DeepSpeed which weights are parts of one; what all parts have alike counts once in the norm of gradients."""
    for name, parameter in model.named_parameters():
        parameter.tensor_model_parallel = axis_of(name) is not None  # type: ignore[attr-defined]


class ColumnsOfLinear(nn.Module):
    """A linear layer of which each part has some of the columns; the bias is added once."""

    def __init__(self, linear: nn.Linear, group: Any) -> None:
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias
        self._group = group

    def forward(self, hidden: Tensor) -> Tensor:
        """`hidden` [B, T, columns of this part] to [B, T, E], the same in all parts."""
        output = summed(self._group, F.linear(hidden, self.weight))
        return output if self.bias is None else output + self.bias


class RowsOfEmbedding(nn.Module):
    """An embedding of which each part has some of the rows."""

    def __init__(self, embedding: nn.Embedding, mesh: Mesh) -> None:
        super().__init__()
        self.weight = embedding.weight
        self._group, self._rows = mesh.tensor_group, embedding.num_embeddings
        self._first = mesh.tensor_rank * self._rows

    def forward(self, ids: Tensor) -> Tensor:
        """Rows [B, T, E] of `ids` [B, T], the same in all parts."""
        ids = ids - self._first
        elsewhere = (ids < 0) | (ids >= self._rows)
        rows = F.embedding(ids.masked_fill(elsewhere, 0), self.weight)
        return summed(self._group, rows.masked_fill(elsewhere[..., None], 0.0))


class OutputPart(nn.Module):
    """The output layer of which each part has some of the rows: the loss only, no part ever has all logits."""

    def __init__(self, layer: OutputLayer, config: ModelConfig, mesh: Mesh) -> None:
        super().__init__()
        self.weight = layer.weight
        self._group, self._rows = mesh.tensor_group, layer.out_features
        self._first = mesh.tensor_rank * self._rows
        self._pieces = min(max(config.pieces - self._first, 0), self._rows)

    def forward(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """The mean cross entropy in nats of `hidden` [B, T, E] to `targets` [B, T], a float32 scalar."""
        from deepspeed.sequence.linear_cross_entropy import vocab_parallel_linear_cross_entropy

        bias = None
        if self._pieces < self._rows:  # the rows that stand for nothing have no probability, and so no gradient
            bias = torch.zeros(self._rows, dtype=hidden.dtype, device=hidden.device)
            bias[self._pieces :] = float("-inf")
        loss: Tensor = vocab_parallel_linear_cross_entropy(
            hidden, self.weight, targets, bias=bias, tp_group=self._group, vocab_start_index=self._first,
            vocab_end_index=self._first + self._rows, ignore_index=IGNORED,
        )  # fmt: skip
        return loss
