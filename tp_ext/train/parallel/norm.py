"""The norm of gradients that are spread over processes."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn

from tp_ext.train.parallel.mesh import Mesh


def clip_gradients(parameters: Iterable[nn.Parameter], limit: float, mesh: Mesh) -> float:
    """Scale all gradients down to the norm `limit`; the norm before that, over all processes.

    What several processes have alike counts once. Where it is no finite number the gradients are removed.
    """
    from deepspeed import comm  # whose exchanges are counted as such

    parameters = [parameter for parameter in parameters if parameter.grad is not None]
    if mesh.is_plain:
        norm = float(nn.utils.clip_grad_norm_(parameters, limit))
    else:
        own = [parameter.grad for parameter in parameters if _is_counted(parameter, mesh) and parameter.grad is not None]
        square = torch.nn.utils.get_total_norm(own).double() ** 2
        comm.all_reduce(square, group=mesh.grid.get_model_parallel_group())
        norm = math.sqrt(float(square))
        nn.utils.clip_grads_with_norm_(parameters, limit, torch.tensor(norm))
    if not math.isfinite(norm):
        for parameter in parameters:
            parameter.grad = None  # of what has no gradient AdamW changes nothing
    return norm


def _is_counted(parameter: nn.Parameter, mesh: Mesh) -> bool:
    if getattr(parameter, "ds_pipe_replicated", False):
        return False
    return mesh.tensor_rank == 0 or getattr(parameter, "tensor_model_parallel", False)
