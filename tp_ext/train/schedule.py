"""Learning-rate schedules: functions of the optimizer step, so that a resumed run needs no state of theirs."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Span:
    """The numbers every schedule is made of."""

    highest: float
    lowest: float
    total_steps: int
    warmup_steps: int

    @staticmethod
    def of(highest: float, lowest: float, total_steps: int, warmup: float) -> Span:
        """With a warm-up that is a share of the run (below 1) or a number of steps."""
        return Span(highest, lowest, total_steps, warmup_steps(warmup, total_steps))


def constant(share: float, span: Span) -> float:
    """The highest rate to the end."""
    return span.highest


def linear(share: float, span: Span) -> float:
    """A straight line from the highest to the lowest rate."""
    return span.highest + (span.lowest - span.highest) * share


def cosine(share: float, span: Span) -> float:
    """Half a cosine from the highest to the lowest rate (Loshchilov and Hutter 2017, arXiv 1608.03983)."""
    return span.lowest + (span.highest - span.lowest) / 2 * (1 + math.cos(math.pi * share))


SCHEDULES: dict[str, Callable[[float, Span], float]] = {"constant": constant, "linear": linear, "cosine": cosine}
"""Each gives the rate after the warm-up, from the share of the steps after it that is behind (0 to 1)."""


def warmup_steps(warmup: float, total_steps: int) -> int:
    """Steps of a warm-up given as a share of the run (below 1) or as their number."""
    return int(warmup) if warmup >= 1 else math.ceil(warmup * total_steps)


def rate_at(step: int, scheduler: str, span: Span) -> float:
    """The learning rate of optimizer step `step`, counted from 1.

    Step n of the warm-up has n / warmup_steps of the highest rate, so that no step is made at 0; the last step has the
    schedule's last rate.
    """
    if step <= span.warmup_steps:
        return span.highest * step / span.warmup_steps
    return SCHEDULES[scheduler](min(1.0, (step - span.warmup_steps) / (span.total_steps - span.warmup_steps)), span)
