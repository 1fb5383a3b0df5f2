"""How long a step takes in one shape beside another: an estimate from what is computed and sent."""

# B batch, T tokens, E model size

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from tp_ext.checkpoint.tensors import DTYPES
from tp_ext.config import ModelConfig
from tp_ext.errors import RecipeError
from tp_ext.train.lora import counts_of
from tp_ext.train.recipe import Recipe
from tp_ext.train.report import flops_per_token
from tp_ext.train.share import shares_of

GIB = 2**30
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": GIB, "T": 2**40}
HOST_LINK = 20e9
"""Bytes a second between a GPU and its machine's memory (PCIe 4.0 x16, as copies reach it)."""
HOST_SPEED = 100e9
"""Bytes a second of a machine's own memory, which bounds AdamW there; for all of its processes."""
ADAM_BYTES = 28
"""Bytes that AdamW reads and writes of a parameter: weight and two moments there and back, and a gradient, in float32."""


@dataclass(frozen=True, kw_only=True)
class Machines:
    """What a run is planned for."""

    gpus: int
    """Processes in all; 0 plans for a single process on a CPU."""
    machines: int = 1
    memory: int = 80 * GIB
    """Bytes of a GPU, or of the host without one."""
    host_memory: int | None = None
    """Bytes of a machine's own memory; None where it is not known."""
    flops: float = 312e12
    """Floating-point operations a second that a GPU is said to make in the run's type."""
    utilisation: float = 0.4
    """The share of them that the model's own are assumed to be."""
    link: float = 200e9
    """Bytes a second from a GPU to the others of its machine."""
    network: float = 25e9
    """Bytes a second from a machine to the others, for all of its GPUs."""

    @property
    def processes(self) -> int:
        """Processes of the run."""
        return max(self.gpus, 1)

    @property
    def per_machine(self) -> int:
        """Processes of one machine."""
        return -(-self.processes // self.machines)

    def problems(self) -> list[str]:
        """What cannot be, a line each."""
        wrong = [f"{name} {value}: must be above 0, and finite" for name, value in (
            ("--machines", self.machines), ("--gpu-memory", self.memory), ("--tflops", self.flops / 1e12),
            ("--gpu-link", self.link / 1e9), ("--network", self.network / 1e9)) if not 0 < value < math.inf]  # fmt: skip
        if self.gpus < 0:
            wrong.append(f"--gpus {self.gpus}: must be at least 1, or 0 for a process on a CPU")
        if not 0 < self.utilisation <= 1:
            wrong.append(f"--utilisation {self.utilisation}: must be above 0 and at most 1, the share of --tflops")
        if not wrong and self.processes % self.machines:
            wrong.append(f"--machines {self.machines}: {self.processes} processes cannot be spread over them evenly")
        return wrong


def parse_bytes(text: str) -> int:
    """Bytes written as `80G`, `512M` or a number, in powers of 1024. Raises RecipeError."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if not found:
        raise RecipeError(f"'{text}': expected an amount of memory, for instance 80G")
    return int(float(found[1]) * _UNITS[found[2].upper()])


@dataclass(frozen=True, kw_only=True)
class Pace:
    """Seconds of a step by what they are spent on, as if nothing were sent while something is computed."""

    compute: float
    """With what is computed again."""
    idle: float
    """Waiting for the first and the last micro-batch of a pipeline."""
    sent: float
    """Between GPUs."""
    offload: float
    """To the host and back, and AdamW there."""

    @property
    def total(self) -> float:
        """All of a step."""
        return self.compute + self.idle + self.sent + self.offload


def pace_of(recipe: Recipe, config: ModelConfig, machines: Machines) -> Pace:
    """The pace of a recipe whose processes and batch divide as its shape needs.

    Collectives are rings: a process sends an all-reduce's bytes 2 (n-1)/n times and those of a gather or a scatter (n-1)/n
    times. Neighbours by rank are the parts of a layer, then the shares of the data, then the stages.
    """
    shape, train = recipe.parallel, recipe.train
    tensor, pipeline = shape.tensor, shape.pipeline
    data = machines.processes // (tensor * pipeline)
    micro_batches = recipe.accumulation_steps(data)
    size = DTYPES[train.dtype].itemsize
    hidden = train.micro_batch_size * recipe.data.seq_length * config.hidden_size * size
    counts, again = counts_of(config, recipe.lora), recipe.model.checkpoint_activations
    length = recipe.data.seq_length
    flops = flops_per_token(counts.all, config, length, counts.multiplied)
    if again:
        flops += flops_per_token(counts.all, config, length) / 3
    speed = machines.processes * machines.flops * machines.utilisation
    compute = flops * train.global_batch_size * length / speed

    def rate(span: int, rings: int) -> float:
        """Bytes a second of a group over `span` neighbours, beside so many others on the same network."""
        return machines.link if span <= machines.per_machine else min(machines.link, machines.network / rings)

    layers = -(-config.layers_num // pipeline)
    collectives = micro_batches * (layers * (6 if again else 4) + 3)
    parts = collectives * 2 * (tensor - 1) / tensor * hidden / rate(tensor, min(tensor, machines.per_machine))
    crossing = min(tensor * data, machines.per_machine)
    stages = (2 * micro_batches * hidden / rate(pipeline * tensor * data, crossing)) if pipeline > 1 else 0.0
    largest = max((share.counts for share in shares_of(config, recipe.lora, tensor, pipeline)), key=lambda each: each.all)
    times = {0: 2 * largest.trained, 1: 2 * largest.trained, 2: (micro_batches + 1) * largest.trained,
             3: micro_batches * (2 * largest.all + largest.trained)}[shape.zero]  # fmt: skip
    shares = times * size * (data - 1) / data / rate(tensor * data, min(tensor, machines.per_machine))
    own = largest.trained / data
    offload = 0.0
    if shape.offload != "none":
        offload = own * (4 + size) / HOST_LINK + own * ADAM_BYTES / (HOST_SPEED / machines.per_machine)
    if shape.offload == "all":
        offload += micro_batches * 2 * size * largest.all / data / HOST_LINK
    idle = compute * (pipeline - 1) / micro_batches
    return Pace(compute=compute, idle=idle, sent=parts + stages + shares, offload=offload)
