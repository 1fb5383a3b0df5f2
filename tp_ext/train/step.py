"""One optimizer step: forward, verdict, backward, update."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from tp_ext.train import feed
from tp_ext.train.engine import Engine
from tp_ext.train.guard import Guard, Verdict
from tp_ext.train.parallel.pipeline import Judge
from tp_ext.train.processes import Processes
from tp_ext.train.watch import StopWatch


@dataclass(frozen=True)
class Outcome:
    """What a step came to; but for `own_losses` the same in all processes."""

    loss: float
    """Mean over the targets of the global batch, in nats."""
    own_losses: list[float]
    """The micro-batches of this process's share of the data: what each adds to the loss."""
    grad_norm: float
    """Before clipping; not finite when the step changed nothing."""
    verdict: Verdict
    is_stopped: bool
    """Whether any process was told to stop."""


def make_step(
    engine: Engine, step: feed.Step, rate: float, guard: Guard, processes: Processes, watch: StopWatch, stop: bool
) -> Outcome:
    """Learn from a step at the learning rate `rate`, unless the guard says that it is to change nothing.

    The loss of all processes is known before the last backward pass. If the step is to be skipped, the gradients are
    made to be no numbers there, and the optimizers of every ZeRO stage leave the weights as they are, in all processes.
    """
    count = len(step.micro_batches)
    verdict, mean, stopped = Verdict(), float("nan"), 0.0

    def skips(losses: list[float]) -> bool:
        """Whether the step is to change nothing; `losses` are those of this process's micro-batches."""
        nonlocal verdict, mean, stopped
        total, stopped = processes.total(sum(losses), stop)
        mean = total / count / processes.world_size
        verdict = guard.of_loss(mean)
        return verdict.skips

    if engine.is_pipeline:
        losses, norm = engine.train_pipeline(step.micro_batches, rate, skips, watch)
    else:
        losses, norm = _accumulate(engine, step, rate, skips, processes, watch)
    verdict = guard.count(mean, guard.of_gradients(verdict, norm, engine.scales_loss))
    return Outcome(mean, losses, norm, verdict, stopped > 0)


def _accumulate(
    engine: Engine, step: feed.Step, rate: float, skips: Judge, processes: Processes, watch: StopWatch
) -> tuple[list[float], float]:
    """One micro-batch after the other; their losses, and the norm of the gradients."""
    losses: list[torch.Tensor] = []
    norm = float("nan")
    for tensors, weight in step.micro_batches:
        loss = engine.loss(*feed.to_device(tensors, processes.device)) * weight
        losses.append(loss.detach())
        watch.lap("forward")
        if len(losses) == len(step.micro_batches) and skips(torch.stack(losses).tolist()):
            loss = loss * float("nan")
        engine.backward(loss)
        watch.lap("backward")
        norm = engine.step(rate)
        watch.lap("optimizer")
    return torch.stack(losses).tolist(), norm
