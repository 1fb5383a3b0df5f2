"""What a recipe means for DeepSpeed: its configuration, and the optimizer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tp_ext.train.recipe import Recipe


def make_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """AdamW (Loshchilov and Hutter 2019, arXiv 1711.05101) that decays matrices, and neither norms nor biases."""
    train = recipe.train
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    decayed = [p for p in trained if _dimensions(p) > 1]
    others = [p for p in trained if _dimensions(p) <= 1]
    groups = [{"params": decayed, "weight_decay": train.weight_decay}, {"params": others, "weight_decay": 0.0}]
    settings: dict[str, Any] = {"lr": train.learning_rate, "betas": (train.beta1, train.beta2), "eps": train.eps}
    if recipe.parallel.offload != "none":
        from deepspeed.ops.adam import DeepSpeedCPUAdam

        offloaded: torch.optim.Optimizer = DeepSpeedCPUAdam(groups, adamw_mode=True, **settings)
        return offloaded
    return torch.optim.AdamW(groups, fused=True, **settings)


def _dimensions(parameter: Tensor) -> int:
    """Dimensions of a parameter, of the whole one where ZeRO 3 has partitioned it."""
    return len(getattr(parameter, "ds_shape", parameter.shape))


def deepspeed_settings(recipe: Recipe, shares: int) -> dict[str, Any]:
    """The DeepSpeed configuration that a recipe means when the data is in so many shares."""
    train, parallel = recipe.train, recipe.parallel
    zero: dict[str, Any] = {"stage": parallel.zero}
    if parallel.offload != "none":
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
    if parallel.offload == "all":
        zero["offload_param"] = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
    settings: dict[str, Any] = {
        "train_batch_size": train.global_batch_size,
        "train_micro_batch_size_per_gpu": train.micro_batch_size,
        "gradient_accumulation_steps": recipe.accumulation_steps(shares),
        "gradient_clipping": 0.0 if parallel.zero == 0 and train.dtype == "fp32" else train.max_grad_norm,
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "steps_per_print": 1 << 60,
    }
    if train.dtype != "fp32":
        settings[train.dtype] = {"enabled": True}
    if train.dtype == "bf16":  # without it ZeRO 1 and 2 would make steps of gradients that are no numbers
        settings["bf16"]["check_grad_overflow"] = True
    for name, value in parallel.deepspeed.items():
        settings[name] = {**settings[name], **value} if isinstance(settings.get(name), dict) else value
    return settings
