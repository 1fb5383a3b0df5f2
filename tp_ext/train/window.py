"""Steps between two reports."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

TRAINING = ("data", "forward", "backward", "communication", "optimizer")
"""The parts of a step that count for the speed of training."""


class Window:
    """Sums over the steps between two reports."""

    def __init__(self) -> None:
        self._losses: list[float] = []
        self._seconds: Counter[str] = Counter()
        self.targets, self.steps = 0, 0

    def add(self, loss: float | None, targets: int, seconds: Mapping[str, float]) -> None:
        """Count one step: its loss, None when it was skipped, its targets and how long its parts took."""
        if loss is not None:
            self._losses.append(loss)
        self._seconds.update({part: seconds[part] for part in TRAINING})
        self.targets, self.steps = self.targets + targets, self.steps + 1

    @property
    def loss(self) -> float:
        """The mean loss of the steps that were not skipped; nan without any."""
        return sum(self._losses) / len(self._losses) if self._losses else float("nan")

    @property
    def seconds(self) -> float:
        """Seconds spent on training."""
        return sum(self._seconds.values())

    def spent(self, part: str) -> float:
        """Seconds that a part of training took."""
        return self._seconds[part]
