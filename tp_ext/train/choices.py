"""The shapes in which a run fits into its machines, by how long a step would take."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

from tp_ext.config import ModelConfig
from tp_ext.train.contradictions import contradictions
from tp_ext.train.inputs import cut_problems
from tp_ext.train.memory import PROCESS, Memory, memory_of
from tp_ext.train.pace import Machines, Pace, pace_of
from tp_ext.train.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A recipe in one of the shapes that fit."""

    recipe: Recipe
    memory: Memory
    pace: Pace

    def described(self) -> str:
        """Its settings."""
        parallel = self.recipe.parallel
        cut = f"tensor {parallel.tensor}, pipeline {parallel.pipeline}, " if parallel.tensor * parallel.pipeline > 1 else ""
        kept = "computed again" if self.recipe.model.checkpoint_activations else "kept"
        return f"{cut}zero {parallel.zero}, offload {parallel.offload}, activations {kept}"


def choices(recipe: Recipe, config: ModelConfig, machines: Machines) -> list[Choice]:
    """Of every tensor, pipeline and zero that fits the fastest, with or without activations kept and optimizer offloaded;
    the fastest first, by an estimate.

    Parts of a layer are within a machine; a pipeline has ZeRO 0 or 1. Batch, precision and all else are the recipe's.
    """
    best: dict[tuple[int, int, int], Choice] = {}
    own = set(contradictions(recipe))
    for tried in _shapes(recipe, config, machines):
        if set(contradictions(tried)) - own:
            continue
        memory = memory_of(tried, config, machines.processes, machines.gpus > 0)
        if not fits(memory, machines):
            continue
        choice = Choice(recipe=tried, memory=memory, pace=pace_of(tried, config, machines))
        key = (tried.parallel.tensor, tried.parallel.pipeline, tried.parallel.zero)
        if key not in best or choice.pace.total < best[key].pace.total:
            best[key] = choice
    return sorted(best.values(), key=lambda choice: (choice.pace.total, choice.memory.device))


def fits(memory: Memory, machines: Machines) -> bool:
    """Whether a process that needs so much has it, and a machine that has its share of the processes."""
    if not machines.gpus:
        return memory.device + PROCESS <= machines.memory
    host = machines.per_machine * (PROCESS + memory.offloaded)
    return memory.device <= machines.memory and (machines.host_memory is None or host <= machines.host_memory)


def _shapes(recipe: Recipe, config: ModelConfig, machines: Machines) -> Iterator[Recipe]:
    """The recipe in every shape that divides processes, batch and model, but for those that are the same as a simpler one:
    there is nothing to partition among one process."""
    offloads = ("none", "optimizer", "all") if machines.gpus else ("none",)
    for tensor in _divisors(machines.per_machine):
        for pipeline in _divisors(machines.processes // tensor):
            data = machines.processes // (tensor * pipeline)
            cut = dataclasses.replace(recipe.parallel, tensor=tensor, pipeline=pipeline)
            if not recipe.divides(data) or cut_problems(config, cut):
                continue
            for zero, offload, again in product((0, 1, 2, 3), offloads, (False, True)):
                if data == 1 and zero >= 2 and offload != "all":
                    continue
                shape: dict[str, Any] = {"zero": zero, "offload": offload}
                yield dataclasses.replace(
                    recipe, model=dataclasses.replace(recipe.model, checkpoint_activations=again),
                    parallel=dataclasses.replace(cut, **shape),
                )  # fmt: skip


def _divisors(number: int) -> list[int]:
    return [each for each in range(1, number + 1) if number % each == 0]
