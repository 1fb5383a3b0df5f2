"""The DeepSpeed engine of a recipe: the model with its weights, the optimizer and the derived configuration."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from tp_ext.checkpoint.files import DTYPES
from tp_ext.checkpoint.source import Source
from tp_ext.config import ModelConfig
from tp_ext.models import build
from tp_ext.models.decoder import Decoder, initial_weight
from tp_ext.train.lora import adapt, adapted_of, is_factor, load_trained, merged
from tp_ext.train.moved import Moved
from tp_ext.train.processes import Processes
from tp_ext.train.recipe import Recipe


class Engine:
    """A model in training. One optimizer step is `accumulation_steps` calls of `backward`, then `step`."""

    def __init__(self, recipe: Recipe, config: ModelConfig, source: Source | None, processes: Processes) -> None:
        """Build the model of `config`, with the weights of `source`, or those a model starts from scratch with."""
        import deepspeed

        self._recipe, self._processes = recipe, processes
        self.adapted = adapted_of(recipe.lora, config) if recipe.lora else None
        settings = deepspeed_settings(recipe, processes.world_size)
        model = self._model(config, settings)
        self._give_weights(model, config, source)
        model.encoder.checkpoint_every = recipe.model.checkpoint_every if recipe.model.checkpoint_activations else 0
        model.train()
        optimizer = make_optimizer(model, recipe)
        self._engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=settings, dist_init_required=False)
        self.config = config
        # without ZeRO and in float32 DeepSpeed clips, but does not tell the norm
        self._clips = recipe.parallel.zero == 0 and recipe.train.dtype == "fp32"

    def _model(self, config: ModelConfig, settings: dict[str, Any]) -> Decoder:
        import deepspeed

        if self._recipe.parallel.zero == 3:
            # without dtype: given one, DeepSpeed 0.19 takes half precision whatever was given; it reads the settings'
            with deepspeed.zero.Init(config_dict_or_path=settings):
                return self._adapted(build(config))
        with torch.device("meta"):
            model = self._adapted(build(config))
        model = model.to(DTYPES[self._recipe.train.dtype]).to_empty(device=self._processes.device)
        model.tie()
        return model

    def _adapted(self, model: Decoder) -> Decoder:
        if self.adapted:
            adapt(model, self.adapted)
        return model

    def _give_weights(self, model: Decoder, config: ModelConfig, source: Source | None) -> None:
        """Fill the parameters one at a time; under ZeRO 3 the first process alone reads them."""
        import deepspeed

        partitioned = self._recipe.parallel.zero == 3
        reads = not partitioned or self._processes.is_first
        tensors: Iterator[tuple[str, Tensor]] | None = source.read() if source and reads else None
        for name, parameter in model.named_parameters():
            whole = deepspeed.zero.GatheredParameters([parameter], modifier_rank=0) if partitioned else nullcontext()
            with whole, torch.no_grad():
                if not reads:
                    continue
                if tensors is None or is_factor(name):
                    weight = initial_weight(name, parameter.shape, config, self._recipe.train.seed)
                else:
                    found, weight = next(tensors)
                    assert found == name, (found, name)
                parameter.copy_(weight)

    @property
    def module(self) -> nn.Module:
        """The model as the engine runs it."""
        module: nn.Module = self._engine.module
        return module

    @property
    def scales_loss(self) -> bool:
        """Whether the loss is scaled so that gradients fit into float16, which they overflow now and then."""
        return self._recipe.train.dtype == "fp16"

    def loss(self, src: Tensor, tgt: Tensor, seg: Tensor, documents: Tensor | None = None) -> Tensor:
        """Mean loss of a micro-batch [B, T], float32; the arguments are the model's."""
        loss: Tensor = self._engine(src, tgt, seg, documents)
        return loss

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a micro-batch."""
        self._engine.backward(loss)

    def step(self, learning_rate: float) -> float:
        """End a micro-batch and, after the last of a step, update the weights; the gradients' norm before clipping.

        The norm is nan between updates. Where it is not finite nothing was updated, in any process.
        """
        boundary = self._engine.is_gradient_accumulation_boundary()
        for group in self._engine.optimizer.param_groups:
            group["lr"] = learning_rate
        norm = float("nan")
        if boundary and self._clips:
            limit = self._recipe.train.max_grad_norm or float("inf")
            norm = float(nn.utils.clip_grad_norm_(self._engine.module.parameters(), limit))
            if not math.isfinite(norm):
                self._engine.module.zero_grad(set_to_none=True)  # of what has no gradient AdamW changes nothing
        self._engine.step()
        if boundary and not self._clips:
            norm = float(self._engine.get_global_grad_norm())
        return norm

    def save(self, folder: str, tag: str) -> None:
        """Write the weights that are trained, and optimizer state; every process calls it."""
        self._engine.save_checkpoint(folder, tag=tag, save_latest=False, exclude_frozen_parameters=self.adapted is not None)

    def load(self, folder: str, tag: str) -> None:
        """Read what `save` wrote; every process calls it."""
        self._engine.load_checkpoint(folder, tag=tag, custom_load_fn=load_trained if self.adapted else None)

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """Every weight of the model whole, LoRA's changes in it, one at a time; every process goes through it together."""
        whole = self._parameters(lambda parameter: True)
        return merged(whole, self.adapted) if self.adapted else whole

    def trained(self) -> Iterator[tuple[str, Tensor]]:
        """Every parameter that is trained, likewise: with LoRA its factors, each by itself."""
        return self._parameters(lambda parameter: parameter.requires_grad)

    def moved(self) -> Moved | None:
        """What looks after the first steps of LoRA; None when all is trained."""
        return Moved(self._engine.module, self._engine.optimizer, self._processes) if self.adapted else None

    def _parameters(self, wanted: Callable[[Tensor], bool]) -> Iterator[tuple[str, Tensor]]:
        import deepspeed

        for name, parameter in self._engine.module.named_parameters():
            if not wanted(parameter):
                continue
            partitioned = hasattr(parameter, "ds_id")
            with deepspeed.zero.GatheredParameters([parameter]) if partitioned else nullcontext():
                yield name, parameter.detach()


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


def deepspeed_settings(recipe: Recipe, world_size: int) -> dict[str, Any]:
    """The DeepSpeed configuration that a recipe means."""
    train, parallel = recipe.train, recipe.parallel
    zero: dict[str, Any] = {"stage": parallel.zero}
    if parallel.offload != "none":
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
    if parallel.offload == "all":
        zero["offload_param"] = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
    settings: dict[str, Any] = {
        "train_batch_size": train.global_batch_size,
        "train_micro_batch_size_per_gpu": train.micro_batch_size,
        "gradient_accumulation_steps": recipe.accumulation_steps(world_size),
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
