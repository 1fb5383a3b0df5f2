"""What a run will need and take, before anything is spent."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from dataclasses import dataclass

from tp_ext.checkpoint.files import DTYPES
from tp_ext.config import ModelConfig
from tp_ext.errors import RecipeError, UserError
from tp_ext.progress import clock, short
from tp_ext.train.inputs import config_of_recipe, open_inputs
from tp_ext.train.lora import Counts, counts_of
from tp_ext.train.memory import PROCESS, Memory, checkpoint_bytes, memory_of
from tp_ext.train.recipe import Recipe
from tp_ext.train.report import flops_per_token

GIB = 2**30
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": GIB, "T": 2**40}


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

    @property
    def processes(self) -> int:
        """Processes of the run."""
        return max(self.gpus, 1)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a run will need."""

    parameters: Counts
    memory: Memory
    host: int
    """Bytes of a machine's own memory, for all of its processes."""
    checkpoint: int
    steps: int | None
    """None where the data that decide it are not there yet."""
    tokens_per_step: int
    flops_per_step: float
    seconds: float | None
    problems: list[str]
    choices: list[tuple[str, int]]
    """Other settings that fit, the cheapest first, with the bytes that each needs of a GPU."""


def parse_bytes(text: str) -> int:
    """Bytes written as `80G`, `512M` or a number, in powers of 1024. Raises RecipeError."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if not found:
        raise RecipeError(f"'{text}': expected an amount of memory, for instance 80G")
    return int(float(found[1]) * _UNITS[found[2].upper()])


def plan(recipe: Recipe, machines: Machines) -> Plan:
    """The plan of a recipe. What its inputs lack or contradict is among the problems, as far as a plan can be made.

    Raises a UserError where not even the model is known.
    """
    config, steps, problems = _opened(recipe)
    counts = counts_of(config, recipe.lora)
    on_gpu = machines.gpus > 0
    memory = memory_of(recipe, config, machines.processes, on_gpu)
    processes = -(-machines.processes // machines.machines)
    host = processes * int(PROCESS + (memory.offloaded if on_gpu else memory.device))
    try:
        recipe.accumulation_steps(machines.processes)
    except RecipeError as error:
        problems.append(str(error))
    needed = memory.device if on_gpu else host
    if needed > machines.memory:
        problems.append(f"needs {needed / GIB:.1f} GiB of the {machines.memory / GIB:.1f} GiB there are")
    if machines.host_memory is not None and host > machines.host_memory:
        problems.append(f"needs {host / GIB:.1f} GiB of the {machines.host_memory / GIB:.1f} GiB of a machine's own memory")
    tokens = recipe.train.global_batch_size * recipe.data.seq_length
    flops = flops_per_token(counts.all, config, recipe.data.seq_length, counts.multiplied) * tokens
    speed = machines.processes * machines.flops * machines.utilisation
    return Plan(
        parameters=counts, memory=memory, host=host, checkpoint=checkpoint_bytes(recipe, config), steps=steps,
        tokens_per_step=tokens, flops_per_step=flops, seconds=steps * flops / speed if steps else None, problems=problems,
        choices=list(choices(recipe, config, machines.processes, machines.memory)) if on_gpu else [],
    )  # fmt: skip


def _opened(recipe: Recipe) -> tuple[ModelConfig, int | None, list[str]]:
    """The model, the number of steps, and what is wrong with the inputs."""
    try:
        inputs = open_inputs(recipe)
        return inputs.config, inputs.total_steps, []
    except UserError as error:
        config = config_of_recipe(recipe)
        if config is None or config.vocab_size is None:
            raise
        return config, recipe.train.total_steps, str(error).splitlines()


def choices(
    recipe: Recipe, config: ModelConfig, processes: int, limit: int, on_gpu: bool = True
) -> Iterator[tuple[str, int]]:
    """What fits into `limit` bytes: without offload first, then without checkpointing, then the lower ZeRO stage, which
    sends less."""
    for offload in ("none", "optimizer") if on_gpu else ("none",):
        for checkpointing in (False, True):
            for zero in (0, 1, 2, 3):
                if zero == 0 and (recipe.train.dtype != "fp32" or offload != "none"):
                    continue
                tried = dataclasses.replace(
                    recipe, model=dataclasses.replace(recipe.model, checkpoint_activations=checkpointing),
                    parallel=dataclasses.replace(recipe.parallel, zero=zero, offload=offload),
                )  # fmt: skip
                needed = memory_of(tried, config, processes, on_gpu).device + (0 if on_gpu else int(PROCESS))
                if needed <= limit:
                    kept = "activations computed again" if checkpointing else "activations kept"
                    yield f"zero {zero}, offload {offload}, {kept}", needed


def told(recipe: Recipe, machines: Machines, made: Plan) -> Iterator[str]:
    """The lines of a plan to read."""
    device = "GPU" if machines.gpus else "host"
    counts = made.parameters
    part = f", {counts.trained:,} of them trained" if recipe.lora else ""
    yield f"{counts.all:,} parameters{part}, {recipe.train.dtype}, ZeRO {recipe.parallel.zero}; processes: " \
          f"{machines.processes}; machines: {machines.machines}"  # fmt: skip
    yield f"GiB of each process ({device}):"
    for field in dataclasses.fields(Memory):
        yield f"  {field.name:<12}{getattr(made.memory, field.name) / GIB:>10.2f}"
    yield f"  {'at most':<12}{made.memory.device / GIB:>10.2f}  of {machines.memory / GIB:.2f}"
    yield f"own memory of a machine: {made.host / GIB:.2f} GiB"
    kept = recipe.train.keep_checkpoints
    held = f"; {kept} are kept, and one more while it is written" if kept else "; all are kept"
    result = (counts.trained if recipe.lora else counts.all) * DTYPES[recipe.train.dtype].itemsize
    name = "the trained model"
    if recipe.lora:  # in two forms
        result, name = 2 * result, "the adapter"
        if recipe.lora.merge:
            result, name = result + counts.all * DTYPES[recipe.train.dtype].itemsize, "the adapter and the merged model"
    yield f"disk: {made.checkpoint / GIB:.2f} GiB a checkpoint{held}; {result / GIB:.2f} GiB {name}"
    yield f"a step: {made.tokens_per_step:,} tokens, {made.flops_per_step:.3g} floating-point operations"
    if made.steps and made.seconds is not None:
        yield (f"the run: {made.steps:,} steps, {short(made.steps * made.tokens_per_step)} tokens, "
               f"{made.steps * made.flops_per_step:.3g} operations, {clock(made.seconds)} (h:mm:ss) at "
               f"{machines.utilisation:.0%} of {short(machines.flops)} a second (assumed)")  # fmt: skip
    if made.choices:
        yield "what fits, the fastest first:"
        yield from (f"  {needed / GIB:>8.2f} GiB  {name}" for name, needed in made.choices)
    yield from (f"problem: {problem}" for problem in made.problems)
