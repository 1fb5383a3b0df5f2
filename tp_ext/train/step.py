"""One optimizer step: forward, verdict, backward, update."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from tp_ext.train import feed
from tp_ext.train.engine import Engine
from tp_ext.train.guard import Guard, Verdict
from tp_ext.train.processes import Processes
from tp_ext.train.watch import StopWatch


@dataclass(frozen=True)
class Outcome:
    """What a step came to; but for `own_losses` the same in all processes."""

    loss: float
    """Mean over the targets of the global batch, in nats."""
    own_losses: list[float]
    """This process's micro-batches: what each adds to the loss."""
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
    losses: list[torch.Tensor] = []
    verdict, norm, mean, stopped = Verdict(), float("nan"), float("nan"), 0.0
    count = len(step.micro_batches)
    for tensors, weight in step.micro_batches:
        loss = engine.loss(*feed.to_device(tensors, processes.device)) * weight
        losses.append(loss.detach())
        watch.lap("forward")
        if len(losses) == count:
            total, stopped = processes.total(float(torch.stack(losses).sum()), stop)
            mean = total / count / processes.world_size
            verdict = guard.of_loss(mean)
            if verdict.skips:
                loss = loss * float("nan")
        engine.backward(loss)
        watch.lap("backward")
        norm = engine.step(rate)
        watch.lap("optimizer")
    verdict = guard.count(mean, guard.of_gradients(verdict, norm, engine.scales_loss))
    return Outcome(mean, torch.stack(losses).tolist(), norm, verdict, stopped > 0)
