"""Whether a run fits into the memory of the machine it is about to begin on."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from tp_ext.config import ModelConfig
from tp_ext.errors import RecipeError
from tp_ext.train.choices import choices
from tp_ext.train.memory import PROCESS, memory_of
from tp_ext.train.pace import GIB, Machines
from tp_ext.train.processes import processes_here
from tp_ext.train.recipe import Recipe
from tp_ext.train.report import say

_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
"""Where a container's limit stands, by the version of control groups."""


def check_memory(recipe: Recipe, config: ModelConfig) -> None:
    """Raise RecipeError, or with `guard.memory` warn say, when this process needs more memory than its share."""
    on_gpu, world = torch.cuda.is_available(), int(os.environ.get("WORLD_SIZE", "1"))
    own = host_memory() // processes_here()
    planned = memory_of(recipe, config, world, on_gpu)
    if not on_gpu:
        told = _excess("memory", planned.device + int(PROCESS), own)
        limit = own
    else:
        limit = torch.cuda.get_device_properties(int(os.environ.get("LOCAL_RANK", "0"))).total_memory
        told = _excess("the GPU's memory", planned.device, limit)
        told = told or _excess("the host's memory", planned.offloaded + int(PROCESS), own)
    if told is None:
        return
    here = processes_here()
    machines = Machines(gpus=world if on_gpu else 0, machines=-(-world // here), memory=limit, host_memory=own * here)
    fitting = next(iter(choices(recipe, config, machines)), None)
    advice = f"{fitting.described()} would, in {fitting.memory.device / GIB:.2f} GiB" if fitting else (
        "no shape, zero stage, offload or checkpointing would; use more processes, a smaller train.micro_batch_size or model"
    )  # fmt: skip
    if recipe.guard.memory == "warn":
        say(f"warning: {told}; {advice}")
        return
    raise RecipeError(f"recipe: {told}; {advice}. guard.memory=warn begins all the same")


def host_memory() -> int:
    """Bytes of memory that this machine has, or the container is allowed."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for path in _LIMITS:
        if path.is_file() and (text := path.read_text().strip()).isdigit():
            return min(total, int(text))
    return total


def _excess(what: str, needed: int, limit: int) -> str | None:
    if needed <= limit:
        return None
    return (f"does not fit: a process needs {needed / GIB:.2f} GiB of {what} and has {limit / GIB:.2f}, "
            f"{(needed - limit) / GIB:.2f} GiB too little")  # fmt: skip
