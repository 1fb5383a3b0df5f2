"""What is done with a step whose loss or gradients are out of the ordinary."""

from __future__ import annotations

import dataclasses
import math
import statistics
from dataclasses import dataclass

from tp_ext.train.recipe import GuardSection

EVEN = 1e-3
"""The least standard deviation, as a share of the mean: in a run that has become even, rounding is no spike."""


@dataclass(frozen=True, kw_only=True)
class Watched:
    """What a guard remembers; it is kept with a checkpoint, so that a resumed run judges as if it had never stopped."""

    recent: tuple[float, ...] = ()
    """Losses of the last steps that counted."""
    in_row: int = 0
    """Steps that were skipped one after the other up to now."""
    skipped: int = 0
    """Steps that were skipped in all."""


@dataclass(frozen=True)
class Verdict:
    """What is thought of a step: nothing, or what is wrong with it, and whether it may change the weights."""

    reason: str = ""
    skips: bool = False
    stops: bool = False
    is_spike: bool = False
    """Whether it is a loss far above the others; weights and loss are numbers, so the run can be saved as it is."""
    is_expected: bool = False
    """Whether it is how float16 finds the scale of its gradients; such a step counts as none in a row."""


class Guard:
    """Judges steps by figures that are the same on all processes, so that all do the same."""

    def __init__(self, section: GuardSection, watched: Watched) -> None:
        self._section = section
        self.watched = watched

    def of_loss(self, loss: float) -> Verdict:
        """The verdict on the mean loss of a step, before its gradients are used."""
        if not math.isfinite(loss):
            return Verdict("the loss is no finite number", skips=True)
        deviation = self._deviation(loss)
        if self._section.spike == "off" or deviation <= self._section.spike_deviation:
            return Verdict()
        reason = (
            f"the loss {loss:.4g} is {deviation:.1f} standard deviations above the mean of the last "
            f"{self._section.spike_window} steps, {statistics.fmean(self.watched.recent):.4g}"
        )
        spike = self._section.spike
        return Verdict(reason, skips=spike != "warn", stops=spike == "stop", is_spike=True)

    def of_gradients(self, verdict: Verdict, norm: float, scaled: bool) -> Verdict:
        """`verdict` on the loss, with what the norm of the gradients adds to it.

        With a loss that is `scaled` so that float16 can hold its gradients they overflow now and then; such a step is
        void, and the scale is smaller in the next.
        """
        if verdict.skips or math.isfinite(norm):
            return verdict
        if scaled:
            return Verdict("the gradients overflowed float16", skips=True, is_expected=True)
        return Verdict("the gradients are no finite numbers", skips=True)

    def count(self, loss: float, verdict: Verdict) -> Verdict:
        """Remember the step; the verdict, which says stop when too many were skipped in a row."""
        now = self.watched
        if not verdict.skips:
            recent = (*now.recent, loss)[-self._section.spike_window :]
            self.watched = dataclasses.replace(now, recent=recent, in_row=0)
            return verdict
        in_row = now.in_row + (not verdict.is_expected)
        self.watched = dataclasses.replace(now, in_row=in_row, skipped=now.skipped + 1)
        return dataclasses.replace(verdict, stops=verdict.stops or in_row >= self._section.stop_after)

    def _deviation(self, loss: float) -> float:
        """How many standard deviations a loss lies above the mean of a full window; 0 until it is full."""
        recent = self.watched.recent
        if len(recent) < self._section.spike_window:
            return 0.0
        mean = statistics.fmean(recent)
        return (loss - mean) / max(statistics.pstdev(recent, mean), EVEN * abs(mean), 1e-12)
