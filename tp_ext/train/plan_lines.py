"""A plan to read."""

from __future__ import annotations

from collections.abc import Iterator

from tp_ext.progress import clock, short
from tp_ext.train.choices import Choice
from tp_ext.train.pace import GIB, Machines
from tp_ext.train.plan import Plan
from tp_ext.train.recipe import Recipe

SHOWN = 10
"""Choices that are told."""


def told(recipe: Recipe, machines: Machines, made: Plan) -> Iterator[str]:
    """The lines of a plan."""
    yield from _of_the_shape(recipe, machines, made)
    yield ""
    if made.stages:
        yield from _of_memory(recipe, machines, made)
        yield ""
    yield from _of_time(recipe, machines, made)
    yield ""
    yield from _of_choices(recipe, machines, made)
    yield from (f"note: {note}" for note in made.notes)
    yield from (f"problem: {problem}" for problem in made.problems)


def _of_the_shape(recipe: Recipe, machines: Machines, made: Plan) -> Iterator[str]:
    counts, parallel = made.parameters, recipe.parallel
    trained = f", {counts.trained:,} of them trained (LoRA)" if recipe.lora else ""
    yield f"{counts.all:,} parameters{trained}, {made.config.rows:,} rows, {recipe.train.dtype}"
    where = f"{machines.gpus} GPU{'s' * (machines.gpus > 1)}" if machines.gpus else "one process on a CPU"
    across = f" in {machines.machines} machines" if machines.machines > 1 else ""
    data = max(1, machines.processes // (parallel.tensor * parallel.pipeline))
    size = recipe.train.micro_batch_size
    count = max(1, recipe.train.global_batch_size // (size * data))
    yield (f"{where}{across}: tensor {parallel.tensor}, pipeline {parallel.pipeline}, data {data}, ZeRO {parallel.zero}, "
           f"offload {parallel.offload}; {count} micro-batch{'es' * (count > 1)} of {size} x {recipe.data.seq_length:,} "
           "a step")  # fmt: skip


_COLUMNS = (("weights", 8), ("gradients", 10), ("optimizer", 10), ("buckets", 8), ("activations", 12), ("loss", 6),
            ("offloaded", 10))  # fmt: skip


def _of_memory(recipe: Recipe, machines: Machines, made: Plan) -> Iterator[str]:
    is_cut = len(made.stages) > 1
    head = "".join(f"{name:>{width}}" for name, width in _COLUMNS)
    yield f"GiB of a process{'  ' if is_cut else ' '}    parameters{head}    peak"
    for share, memory in made.stages:
        name = f"stage {share.stage:<3}({share.layers_num} layers)" if is_cut else f"each ({share.layers_num} layers)"
        parts = "".join(f"{getattr(memory, column) / GIB:>{width}.2f}" for column, width in _COLUMNS)
        yield f"{name:<18}{share.counts.all:>14,}{parts}{memory.device / GIB:>8.2f}"
    peak = max(memory.device for _, memory in made.stages)
    now, other = ("computed again", "kept") if recipe.model.checkpoint_activations else ("kept", "computed again")
    whose = "each GPU" if machines.gpus else "the machine"
    beside = "" if machines.gpus else f", and {(made.host - peak) / GIB:.2f} of the process itself"
    yield (f"peak {peak / GIB:.2f} of {machines.memory / GIB:.2f} GiB that {whose} has, activations {now}; "
           f"{made.otherwise / GIB:.2f} with them {other}{beside}")  # fmt: skip
    if machines.gpus:
        known = f" of {machines.host_memory / GIB:.2f}" if machines.host_memory is not None else ""
        yield f"own memory of a machine {made.host / GIB:.2f}{known} GiB, for its processes ({machines.per_machine})"
    kept = recipe.train.keep_checkpoints
    together = f"{kept} are kept and one more while it is written: {(kept + 1) * made.checkpoint / GIB:.2f}"
    held = together if kept else "all are kept"
    what = "the trained model"
    if recipe.lora:
        what = "the adapter in two forms" + (" and the merged model" if recipe.lora.merge else "")
    yield f"disk {made.checkpoint / GIB:.2f} GiB a checkpoint ({held}), {made.result / GIB:.2f} GiB {what}"


def _of_time(recipe: Recipe, machines: Machines, made: Plan) -> Iterator[str]:
    again = ", not counting what is computed again" if recipe.model.checkpoint_activations else ""
    yield f"a step {made.tokens_per_step:,} tokens, {made.flops_per_step:.4g} floating-point operations{again}"
    if made.steps is None or made.seconds is None:
        yield "the run: as long as its data, which are not here; --tokens N plans for so many"
        return
    yield (f"the run {made.steps:,} steps, {short(made.steps * made.tokens_per_step)} tokens, "
           f"{made.steps * made.flops_per_step:.4g} operations: {clock(made.seconds)} h:mm:ss "
           f"({made.seconds / 3600 * machines.processes:,.0f} {'GPU' if machines.gpus else 'CPU'} hours) if "
           f"{machines.utilisation:.0%} of {short(machines.flops)} operations a second are reached")  # fmt: skip


def _of_choices(recipe: Recipe, machines: Machines, made: Plan) -> Iterator[str]:
    if not made.choices:
        yield ("no tensor, pipeline, ZeRO, offload and checkpointing fit these machines and this batch; for memory "
               "take more GPUs, or a smaller micro_batch_size or model")  # fmt: skip
        return
    fastest = made.choices[0].pace.total
    own = f", the recipe's own {made.pace.total / fastest:.2f}" if made.pace else ""
    yield f"what fits, the fastest first; step: estimated time, 1 for the first{own}; nothing sent while computing"
    yield "  step  waiting  sending  offload  peak GiB  tensor pipeline data zero  offload    activations"
    for choice in made.choices[:SHOWN]:
        yield _line(choice, fastest, recipe, machines)
    if len(made.choices) > SHOWN:
        yield f"  and {len(made.choices) - SHOWN} slower ones"


def _line(choice: Choice, fastest: float, recipe: Recipe, machines: Machines) -> str:
    parallel, pace = choice.recipe.parallel, choice.pace
    spent = "".join(f"{part / pace.total:>9.0%}" for part in (pace.idle, pace.sent, pace.offload))
    kept = "again" if choice.recipe.model.checkpoint_activations else "kept"
    data = machines.processes // (parallel.tensor * parallel.pipeline)
    own = "  <- the recipe" if choice.recipe == recipe else ""
    return (f"{pace.total / fastest:>6.2f}{spent}{choice.memory.device / GIB:>10.2f}{parallel.tensor:>8}"
            f"{parallel.pipeline:>9}{data:>5}{parallel.zero:>5}  {parallel.offload:<10} {kept}{own}")  # fmt: skip
