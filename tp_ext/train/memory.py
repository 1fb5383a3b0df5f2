"""How much memory a training process needs, part by part."""

# P parameters, N processes, B batch, T tokens, E model size, V vocabulary

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from tp_ext.checkpoint.files import DTYPES
from tp_ext.checkpoint.source import EMBEDDING, HEAD
from tp_ext.config import ModelConfig
from tp_ext.models import build
from tp_ext.nn.loss import CHUNK_ELEMENTS
from tp_ext.train.lora import adapt, adapted_of, counts_of
from tp_ext.train.parallel.tensor import padded, part_of
from tp_ext.train.recipe import LoraSection, Recipe

PROCESS = 0.42 * 2**30
"""Bytes of a process with torch and DeepSpeed in it and a model of nothing, measured on a CPU."""
BUCKET = 500_000_000
"""Elements of the buckets in which DeepSpeed sends gradients, where the recipe does not say."""
BUCKETS = {0: 2, 1: 3, 2: 3, 3: 5}
"""How many such buckets, or models where that is smaller, exist at the worst moment by ZeRO stage: measured on CPUs with
DeepSpeed 0.19.8 for models of 12 to 73 million parameters on 1 and 2 processes."""


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
    """What one of `world_size` processes needs; in a pipeline with its share of the layers and all around them."""
    tensor, pipeline = recipe.parallel.tensor, recipe.parallel.pipeline
    world_size = max(1, world_size // (tensor * pipeline))
    config = part_of(padded(config, tensor), tensor)
    layers = -(-config.layers_num // pipeline)
    if recipe.lora and pipeline > 1:
        recipe = dataclasses.replace(recipe, lora=_of_a_stage(recipe.lora, config, layers))
    config = config.replace(layers_num=layers)
    zero, offload, half = recipe.parallel.zero, recipe.parallel.offload, recipe.train.dtype != "fp32"
    size, counts = DTYPES[recipe.train.dtype].itemsize, counts_of(config, recipe.lora)
    trained, share = counts.trained, -(-counts.trained // world_size)
    weights = size * (-(-counts.all // world_size) if zero == 3 else counts.all)
    gradients = size * (share if zero >= 2 else trained) + (4 * share if half else 0)
    optimizer = 12 * share if zero else 8 * trained
    bucket = recipe.parallel.deepspeed.get("zero_optimization", {}).get("reduce_bucket_size", BUCKET)
    offloaded = {"none": 0, "optimizer": optimizer + 4 * share, "all": optimizer + 4 * share + weights}[offload]
    return Memory(
        weights=weights, gradients=gradients + (4 * share if offload != "none" and not half else 0), optimizer=optimizer,
        buckets=BUCKETS[zero] * size * min(trained, int(bucket)), activations=activations_of(recipe, config),
        loss=loss_buffers(recipe, config, "cuda" if on_gpu else "cpu"), offloaded=offloaded,
    )  # fmt: skip


def _of_a_stage(lora: LoraSection, config: ModelConfig, layers: int) -> LoraSection:
    """What LoRA trains in a stage of so many layers of the whole model `config`: in each place what any stage has there."""
    names = (re.sub(r"(?<=transformer\.)\d+", lambda found: str(int(found[0]) % layers), name, count=1)
             for name in adapted_of(lora, config).layers)  # fmt: skip
    return dataclasses.replace(lora, target_modules=tuple(dict.fromkeys(names)))


def activations_of(recipe: Recipe, config: ModelConfig) -> int:
    """Bytes that the forward pass of a micro-batch keeps, with or without checkpointing as the recipe says; in a pipeline
    that of as many as it has stages."""
    batch, tokens = recipe.train.micro_batch_size, recipe.data.seq_length
    dtype = DTYPES[recipe.train.dtype]
    layer = layer_bytes(config, batch, tokens, dtype, recipe.lora)
    hidden = batch * tokens * config.hidden_size * dtype.itemsize
    around = 3 * hidden  # the embedding's output, the last norm's, and the gradient that comes back
    if recipe.model.checkpoint_activations:
        every = min(recipe.model.checkpoint_every, config.layers_num)
        return recipe.parallel.pipeline * -(-config.layers_num // every) * hidden + every * layer + around
    return recipe.parallel.pipeline * config.layers_num * layer + around


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
    """Bytes that the loss needs: a chunk of logits, and the gradients of hidden states and output layer."""
    size = DTYPES[recipe.train.dtype].itemsize
    tokens = recipe.train.micro_batch_size * recipe.data.seq_length
    rows = min(tokens, max(1, CHUNK_ELEMENTS[device] // config.pieces))
    logits = rows * config.pieces * (size + 2 * 4)
    whole = adapted_of(recipe.lora, config).whole if recipe.lora else (EMBEDDING, HEAD)
    is_trained = (EMBEDDING if config.tie_weights else HEAD) in whole
    of_weight = config.rows * config.hidden_size * (4 + size) if is_trained else 0
    return logits + 2 * tokens * config.hidden_size * size + of_weight


def checkpoint_bytes(recipe: Recipe, config: ModelConfig) -> int:
    """Bytes of a checkpoint, of all processes together: of what is trained the weights, unless ZeRO 3 has them in the
    optimizer's part alone, and the optimizer's state."""
    zero = recipe.parallel.zero
    weights = 0 if zero == 3 else DTYPES[recipe.train.dtype].itemsize
    return counts_of(config, recipe.lora).trained * (weights + (12 if zero else 8))
