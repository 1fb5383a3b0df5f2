"""Where the time of a step goes."""

from __future__ import annotations

import time

import torch

PARTS = ("data", "forward", "backward", "optimizer", "report", "evaluate", "save")
"""What a step is made of. Communication is in the part that waits for it: of gradients in `backward` and `optimizer`, of
the weights that ZeRO 3 partitions in `forward` too."""

_Mark = float | torch.cuda.Event


class StopWatch:
    """Seconds of the parts of a step; the time since the part before is given to each as it ends.

    On a GPU the marks are set into its queue, so that nothing waits for them; the device must have come to the last
    one before they are read.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._laps: list[tuple[str, _Mark, _Mark]] = []
        self._last = self._mark()

    def lap(self, part: str) -> None:
        """End a part."""
        now = self._mark()
        self._laps.append((part, self._last, now))
        self._last = now

    def seconds(self) -> dict[str, float]:
        """Seconds of each part so far."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        spent = dict.fromkeys(PARTS, 0.0)
        for part, start, stop in self._laps:
            spent[part] += _between(start, stop)
        return spent

    def _mark(self) -> _Mark:
        if self._device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event


def _between(start: _Mark, stop: _Mark) -> float:
    if isinstance(start, float) or isinstance(stop, float):
        assert isinstance(start, float) and isinstance(stop, float)
        return stop - start
    return float(start.elapsed_time(stop)) / 1000
