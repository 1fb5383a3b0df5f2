"""The optimizer of a run goes on where one of another shape stopped: weights and moments, parameter by parameter."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tp_ext.checkpoint.partitions import KINDS, WEIGHT
from tp_ext.checkpoint.shards import Part
from tp_ext.checkpoint.tensors import Entry, Shape
from tp_ext.train.parallel.mesh import Mesh


class Carrier:
    """Gives the parameters of an engine that has made no step yet what others had of them.

    One process of those that have the same weights reads; it holds one parameter at a time.
    """

    def __init__(self, engine: Any, mesh: Mesh, device: torch.device) -> None:
        self._engine, self._mesh, self._device = engine, mesh, device
        self._is_wrapped = hasattr(engine.optimizer, "optimizer")
        """Whether DeepSpeed keeps float32 copies of the weights: with ZeRO, or in half precision."""

    def begin(self, step: float) -> None:
        """Let the optimizer have counted so many steps, and have moments."""
        wrapped = self._engine.optimizer
        if not self._is_wrapped:
            for group in wrapped.param_groups:
                for parameter in group["params"]:
                    _begin(wrapped, parameter, step)
            return
        inner = wrapped.optimizer
        flat = getattr(wrapped, "fp32_partitioned_groups_flat", None)  # ZeRO 3
        for each in flat or [tensor for group in inner.param_groups for tensor in group["params"]]:
            _begin(inner, each, step)
        if flat is None:
            wrapped._lazy_init_hp_params_optimizer_state()

    def carry(self, parameter: nn.Parameter, entries: dict[str, Entry], shape: Shape, part: Part | None) -> None:
        """Set one parameter. `shape` is that of the whole one here, of which `part` is cut; it can have more rows or
        fewer than the entries, which then stand for nothing."""
        for kind in KINDS:
            self._set(parameter, kind, self._shared(entries[kind], shape, part))

    def _shared(self, entry: Entry, shape: Shape, part: Part | None) -> Tensor:
        if self._mesh.data_rank == 0:
            whole = entry.read().float()[: shape[0]]
            if len(whole) < shape[0]:
                whole = torch.cat([whole, whole.new_zeros(shape[0] - len(whole), *shape[1:])])
            value = (part.of(whole) if part else whole).contiguous().to(self._device)
        else:
            value = torch.empty(part.shape(shape) if part else shape, device=self._device)
        return self._mesh.from_first_share(value)

    @torch.no_grad()
    def _set(self, parameter: Any, kind: str, value: Tensor) -> None:
        from deepspeed import utils, zero

        if hasattr(parameter, "ds_id"):
            share = int(parameter.ds_tensor.numel())
            filled = F.pad(value.flatten(), (0, share * self._mesh.data - value.numel()))
            own = filled[self._mesh.data_rank * share :][:share]
            if kind == WEIGHT:
                with zero.GatheredParameters([parameter], modifier_rank=0):
                    parameter.copy_(value)
                utils.safe_set_local_fp32_param(parameter, own)
            else:
                utils.safe_set_local_optimizer_state(parameter, own, kind)
            return
        if kind == WEIGHT:
            parameter.copy_(value)
        if not self._is_wrapped:
            if kind != WEIGHT:
                self._engine.optimizer.state[parameter][kind].copy_(value)
        elif kind == WEIGHT:
            utils.safe_set_full_fp32_param(parameter, value)
        else:
            utils.safe_set_full_optimizer_state(parameter, value, kind)


def _begin(optimizer: torch.optim.Optimizer, tensor: Tensor, step: float) -> None:
    """The state that AdamW makes of a tensor at its first step, with so many counted; DeepSpeed's counts in an int."""
    counts_in_tensor = isinstance(optimizer, torch.optim.AdamW)
    counted = torch.tensor(step, dtype=torch.float32, device=tensor.device) if counts_in_tensor else int(step)
    moments = {kind: torch.zeros_like(tensor, dtype=torch.float32) for kind in KINDS if kind != WEIGHT}
    optimizer.state[tensor] = {"step": counted, **moments}
