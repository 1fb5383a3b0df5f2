"""Where each process of a run stands: its pipeline stage, its share of the data, its part of every weight."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from tp_ext.checkpoint.shards import Part, parts_of
from tp_ext.errors import RecipeError
from tp_ext.train.processes import Processes
from tp_ext.train.recipe import ParallelSection

T = TypeVar("T")


def data_degree(parallel: ParallelSection, processes_num: int) -> int:
    """How many shares the data is in. Raises RecipeError when the processes do not divide."""
    model = parallel.tensor * parallel.pipeline
    if processes_num % model:
        raise RecipeError(
            f"recipe.parallel: tensor {parallel.tensor} x pipeline {parallel.pipeline} needs a multiple of {model} "
            f"processes; found {processes_num}"
        )
    return processes_num // model


class Mesh:
    """The processes as a grid of pipeline stages x shares of the data x parts of the weights, the last one fastest.

    Those that hold the parts of one layer are neighbours, so that they are in one machine.
    """

    def __init__(self, parallel: ParallelSection, processes: Processes) -> None:
        self.tensor, self.pipeline = parallel.tensor, parallel.pipeline
        self.data = data_degree(parallel, processes.world_size)
        rest, self.tensor_rank = divmod(processes.rank, self.tensor)
        self.stage, self.data_rank = divmod(rest, self.data)
        self.grid: Any = None
        """DeepSpeed's view of it; None where there is nothing but data parallelism."""
        if self.is_plain:
            return
        from deepspeed.runtime.pipe.topology import PipelineParallelGrid, PipeModelDataParallelTopology

        self.topology = PipeModelDataParallelTopology(num_pp=self.pipeline, num_mp=self.tensor, num_dp=self.data)
        with contextlib.redirect_stdout(io.StringIO()):
            self.grid = PipelineParallelGrid(topology=self.topology)

    @property
    def is_plain(self) -> bool:
        """Whether every process has the whole model, but for what ZeRO partitions."""
        return self.tensor == self.pipeline == 1

    @property
    def is_last_stage(self) -> bool:
        """Whether the loss is computed here."""
        return self.stage == self.pipeline - 1

    @property
    def counts(self) -> bool:
        """Whether this process stands for its share of the data, where several have the same."""
        return self.stage == self.tensor_rank == 0

    @property
    def tensor_group(self) -> Any:
        """The processes that hold the parts of the same layers; None where that is this one alone."""
        return self.grid.slice_proc_group if self.tensor > 1 else None

    def part(self, name: str) -> Part | None:
        """The part of a weight that this process has, where it has the layer; None stands for all of it."""
        return parts_of(name, self.tensor)[self.tensor_rank] if self.tensor > 1 else None

    def one_per_share(self, values: Sequence[T]) -> list[T]:
        """Of a value of every process, in order of rank, that of one process for each share of the data."""
        return list(values[: self.data * self.tensor : self.tensor])

    def from_stage(self, tensor: Tensor, stage: int) -> Tensor:
        """The tensor that the process of that stage has, in all stages; of one shape and type in all of them."""
        from deepspeed import comm  # whose exchanges are counted as such

        if self.pipeline > 1:
            comm.broadcast(tensor, src=self.grid.stage_to_global(stage), group=self.grid.pp_proc_group)
        return tensor

    def from_first_share(self, tensor: Tensor) -> Tensor:
        """The tensor of the process that has the same weights and the first share of the data, in all that have them."""
        from deepspeed import comm

        if self.data > 1:
            source = self.stage * self.data * self.tensor + self.tensor_rank
            group = None if self.is_plain else self.grid.get_data_parallel_group()
            comm.broadcast(tensor, src=source, group=group)
        return tensor

    def whole(self, part: Tensor, axis: int | None) -> Tensor:
        """A weight from the parts of all processes of the tensor group."""
        from deepspeed import comm

        if self.tensor == 1 or axis is None:
            return part
        part = part.contiguous()
        parts = [torch.empty_like(part) for _ in range(self.tensor)]
        comm.all_gather(parts, part, group=self.tensor_group)
        return torch.cat(parts, axis)
