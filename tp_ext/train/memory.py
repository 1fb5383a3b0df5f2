"""How much memory a training process needs, part by part."""

# P parameters, N processes, B batch, T tokens, E model size, V vocabulary

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from tp_ext.checkpoint.files import DTYPES
from tp_ext.checkpoint.source import EMBEDDING, HEAD
from tp_ext.config import ModelConfig
from tp_ext.models import build
from tp_ext.nn.loss import CHUNK_ELEMENTS
from tp_ext.train.lora import Counts, adapt, adapted_of
from tp_ext.train.recipe import LoraSection, Recipe
from tp_ext.train.share import Share, shares_of

PROCESS = 0.42 * 2**30
"""Bytes of a process with torch and DeepSpeed in it and a model of nothing, measured on a CPU."""
BUCKETS = {0: 2, 1: 3, 2: 3, 3: 5}
"""How many buckets of gradients, or trained models where those are smaller, exist at the worst moment by ZeRO stage:
measured on CPUs with DeepSpeed 0.19.8 for models of 12 to 73 million parameters on 1 and 2 processes."""
ARRIVING = 2
"""How many more copies of frozen weights exist under ZeRO 3 while they arrive from other processes, early in the forward
pass, when there are hardly any activations: measured likewise, for 55 and 96 million parameters on 2 processes."""
ELEMENTS = {"reduce_bucket_size": 500_000_000, "stage3_max_live_parameters": 1_000_000_000}
"""DeepSpeed's settings where the recipe says nothing: elements of a bucket of gradients, and of the weights that ZeRO 3 has
whole at once."""


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes that one process needs."""

    weights: int
    gradients: int
    optimizer: int
    """Float32 copy of the weights, and AdamW's two moments."""
    buckets: int
    """What DeepSpeed sends gradients and weights in."""
    activations: int
    """What the forward pass keeps for the backward pass of one micro-batch."""
    loss: int
    """Logits of a chunk, and the gradients that are made with the loss."""
    offloaded: int
    """Of weights, gradients and optimizer, what lies in the host's memory instead of the device's."""

    @property
    def device(self) -> int:
        """On the device, at the worst moment; without a GPU that is the host."""
        parts = self.weights + self.gradients + self.optimizer + self.buckets + self.activations + self.loss
        return parts - self.offloaded


def memory_of(recipe: Recipe, config: ModelConfig, world_size: int, on_gpu: bool) -> Memory:
    """What the one of `world_size` processes needs that needs most."""
    return max(memories_of(recipe, config, world_size, on_gpu), key=lambda memory: memory.device)


def memories_of(recipe: Recipe, config: ModelConfig, world_size: int, on_gpu: bool) -> list[Memory]:
    """What a process of each stage needs; there is one stage without a pipeline."""
    tensor, pipeline = recipe.parallel.tensor, recipe.parallel.pipeline
    data = max(1, world_size // (tensor * pipeline))
    shares = shares_of(config, recipe.lora, tensor, pipeline)
    return [_memory(recipe, share, data, on_gpu) for share in shares]


def _memory(recipe: Recipe, share: Share, data: int, on_gpu: bool) -> Memory:
    """What a process with this share needs, one of `data` that have the same."""
    zero, offload, half = recipe.parallel.zero, recipe.parallel.offload, recipe.train.dtype != "fp32"
    size, trained = DTYPES[recipe.train.dtype].itemsize, share.counts.trained
    own = -(-trained // data)
    weights = size * (-(-share.counts.all // data) if zero == 3 else share.counts.all)
    gradients = size * (own if zero >= 2 else trained) + (4 * own if half else 0)
    optimizer = 12 * own if zero else 8 * trained
    activations = activations_of(recipe, share, data)
    offloaded = {"none": 0, "optimizer": optimizer + 4 * own, "all": optimizer + 4 * own + weights}[offload]
    return Memory(
        weights=weights, gradients=gradients + (4 * own if offload != "none" and not half else 0), optimizer=optimizer,
        buckets=_buckets(recipe, share.counts, data, activations), activations=activations,
        loss=loss_buffers(recipe, share.config, "cuda" if on_gpu else "cpu") if share.is_last else 0, offloaded=offloaded,
    )  # fmt: skip


def _buckets(recipe: Recipe, counts: Counts, data: int, activations: int) -> int:
    """Bytes of what DeepSpeed sends; of frozen weights that it gathers, what does not lie where activations come later."""
    settings = {**ELEMENTS, **recipe.parallel.deepspeed.get("zero_optimization", {})}
    size = DTYPES[recipe.train.dtype].itemsize
    gradients = size * BUCKETS[recipe.parallel.zero] * min(counts.trained, int(settings["reduce_bucket_size"]))
    if recipe.parallel.zero < 3 or data == 1:
        return gradients
    gathered = size * min(counts.all - counts.trained, int(settings["stage3_max_live_parameters"]))
    return gradients + gathered + max(0, ARRIVING * gathered - activations)


def activations_of(recipe: Recipe, share: Share, data: int) -> int:
    """Bytes that the forward pass of a micro-batch keeps, with or without checkpointing as the recipe says; in a pipeline
    that of as many micro-batches as a stage is ahead of the last one."""
    batch, tokens = recipe.train.micro_batch_size, recipe.data.seq_length
    dtype = DTYPES[recipe.train.dtype]
    layer = layer_bytes(share.config, batch, tokens, dtype, recipe.lora)
    hidden = batch * tokens * share.config.hidden_size * dtype.itemsize
    around = 3 * hidden  # the embedding's output, the last norm's, and the gradient that comes back
    micro_batches = max(1, recipe.train.global_batch_size // (batch * data))
    ahead = min(recipe.parallel.pipeline - share.stage, micro_batches)
    if recipe.model.checkpoint_activations:
        every = max(1, min(recipe.model.checkpoint_every, share.layers_num))
        return ahead * -(-share.layers_num // every) * hidden + every * layer + around
    return ahead * share.layers_num * layer + around


@cache
def layer_bytes(
    config: ModelConfig, batch: int, tokens: int, dtype: torch.dtype, lora: LoraSection | None = None
) -> int:
    """Bytes that one layer, the first, keeps for its backward pass, without its weights.

    Counted, not computed from a formula: the layer is run on tensors without memory and what autograd saves is added
    up, so it holds for every family. The kernels are a CPU's; those of a GPU save no more.
    """
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    try:
        with FakeTensorMode():
            model = build(config.replace(layers_num=1, vocab_size=1, vocab_padding=0))
            if lora:
                adapted = adapted_of(lora, config)
                layers = tuple(name for name in adapted.layers if name.startswith("encoder.transformer.0."))
                adapt(model, dataclasses.replace(adapted, layers=layers, whole=()))
            weights = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
            hidden = torch.empty(batch, tokens, config.hidden_size, requires_grad=True)
            with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
                model.train().encoder.transformer[0](hidden)
            return sum(each.untyped_storage().nbytes() for at, each in kept.items() if at not in weights)
    finally:
        torch.set_default_dtype(before)


def loss_buffers(recipe: Recipe, config: ModelConfig, device: str) -> int:
    """Bytes that the loss needs: a chunk of logits, and the gradients of hidden states and output layer.

    `config` is that of a part; where there are several, the loss is DeepSpeed's, whose chunks are as large as the hidden
    states.
    """
    size = DTYPES[recipe.train.dtype].itemsize
    tokens = recipe.train.micro_batch_size * recipe.data.seq_length
    rows = min(tokens, max(1, CHUNK_ELEMENTS[device] // config.pieces))
    logits = rows * config.pieces * (size + 2 * 4)
    whole = adapted_of(recipe.lora, config).whole if recipe.lora else (EMBEDDING, HEAD)
    is_trained = (EMBEDDING if config.tie_weights else HEAD) in whole
    if recipe.parallel.tensor > 1:
        hidden = tokens * config.hidden_size
        copies = 2 * size if size < 4 else 0
        return hidden * (4 + 4 + copies) + (config.rows * config.hidden_size * size if is_trained else 0)
    of_weight = config.rows * config.hidden_size * (4 + size) if is_trained else 0
    return logits + 2 * tokens * config.hidden_size * size + of_weight


def checkpoint_bytes(recipe: Recipe, config: ModelConfig) -> int:
    """Bytes of a checkpoint, of all processes together: of what is trained the weights, unless ZeRO 3 has them in the
    optimizer's part alone, and the optimizer's state. What several parts or stages have whole is there several times."""
    parallel = recipe.parallel
    weights = 0 if parallel.zero == 3 else DTYPES[recipe.train.dtype].itemsize
    shares = shares_of(config, recipe.lora, parallel.tensor, parallel.pipeline)
    return parallel.tensor * sum(share.counts.trained for share in shares) * (weights + (12 if parallel.zero else 8))
