"""One optimizer step of DeepSpeed's pipeline, with what this library does between its instructions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from tp_ext.train import feed
from tp_ext.train.parallel.mesh import Mesh
from tp_ext.train.watch import StopWatch

Judge = Callable[[list[float]], bool]
"""Whether the step is to be skipped, from what each micro-batch of this share of the data adds to the loss."""


@dataclass
class _Step:
    """A step that is being made."""

    judge: Judge
    watch: StopWatch
    clip: Callable[[], float] | None
    losses: list[float] = field(default_factory=list)
    norm: float = float("nan")


class Pipeline:
    """Drives the pipeline engine. The loss is judged before the gradients of the processes are brought together."""

    def __init__(self, engine: Any, mesh: Mesh, device: torch.device) -> None:
        from deepspeed.runtime.pipe import schedule

        self._engine, self._mesh, self._device = engine, mesh, device
        self._step: _Step | None = None
        known = engine._INSTRUCTION_MAP
        engine._INSTRUCTION_MAP = {
            **known,
            schedule.ForwardPass: self._timed("forward", known[schedule.ForwardPass]),
            schedule.ReduceTiedGrads: self._judged(known[schedule.ReduceTiedGrads]),
            schedule.OptimizerStep: self._clipped(known[schedule.OptimizerStep]),
        }

    def train(
        self, micro_batches: list[tuple[list[Tensor], float]], judge: Judge, watch: StopWatch,
        clip: Callable[[], float] | None,
    ) -> tuple[list[float], float]:  # fmt: skip
        """Make a step; the losses of the micro-batches, and the norm that `clip` or else DeepSpeed gives."""
        self._step = _Step(judge, watch, clip)
        self._engine.train_batch(self._batches(micro_batches))
        made, self._step = self._step, None
        watch.lap("optimizer")
        return made.losses, made.norm if clip else float(self._engine.get_global_grad_norm())

    def loss(self, tensors: list[Tensor]) -> float:
        """The loss of one micro-batch without learning from it; every stage calls it."""
        self._engine.reset_activation_shape()
        losses = self._engine.eval_batch(
            self._batches([(tensors, 1.0)]), reduce_output=None, bcast_loss=False, num_micro_batches=1
        )
        self._engine.reset_activation_shape()
        self._engine.module.train()
        found = losses[0].double() if self._mesh.is_last_stage else torch.zeros((), dtype=torch.float64, device=self._device)
        return float(self._mesh.from_stage(found, self._mesh.pipeline - 1))

    def _batches(self, micro_batches: list[tuple[list[Tensor], float]]) -> Iterator[tuple[Any, tuple[Tensor, ...]]]:
        """Micro-batches as the first and the last stage take them."""
        for tensors, weight in micro_batches:
            src, tgt, seg, *documents = feed.to_device(tensors, self._device)
            scale = torch.tensor(weight, device=self._device)
            yield (src, *documents) if documents else src, (tgt, seg, scale)

    def _timed(self, part: str, instruction: Callable[..., None]) -> Callable[..., None]:
        def run(engine: Any, **arguments: Any) -> None:
            if self._step:
                self._step.watch.lap("backward")  # and what was waited for
            instruction(engine, **arguments)
            if self._step:
                self._step.watch.lap(part)

        return run

    def _judged(self, instruction: Callable[..., None]) -> Callable[..., None]:
        def run(engine: Any, **arguments: Any) -> None:
            assert self._step is not None
            count = engine.micro_batches
            losses = torch.zeros(count, dtype=torch.float64, device=self._device)
            if self._mesh.is_last_stage:
                losses = torch.stack(engine.fwd_outputs).double()
            self._step.losses = self._mesh.from_stage(losses, self._mesh.pipeline - 1).tolist()
            if self._step.judge(self._step.losses):
                _void(engine.module.parameters())
            instruction(engine, **arguments)
            self._step.watch.lap("backward")

        return run

    def _clipped(self, instruction: Callable[..., None]) -> Callable[..., None]:
        def run(engine: Any, **arguments: Any) -> None:
            assert self._step is not None
            if self._step.clip:
                self._step.norm = self._step.clip()
            instruction(engine, **arguments)

        return run


def _void(parameters: Iterator[torch.nn.Parameter]) -> None:
    """Make gradients no numbers, wherever DeepSpeed keeps them, so that its optimizers leave the weights as they are."""
    for parameter in parameters:
        for name in ("grad", "grad_accum", "_hp_grad"):
            gradient = getattr(parameter, name, None)
            if isinstance(gradient, Tensor):
                gradient.fill_(float("nan"))
