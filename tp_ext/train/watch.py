"""Where the time of a step goes."""

from __future__ import annotations

import torch

from tp_ext.train.exchanges import Exchanges, Mark, between, mark

PARTS = ("data", "forward", "backward", "communication", "optimizer", "report", "evaluate", "save")
"""What a step is made of. `communication` is what forward, backward and optimizer were held up by exchanges with other
processes, waiting for slower ones included; it is not in these three then."""
_HELD_UP = ("forward", "backward", "optimizer")


class StopWatch:
    """Seconds of the parts of a step; the time since the part before is given to each as it ends.

    On a GPU the marks are set into its queue; the device must have come to the last one before they are read.
    """

    def __init__(self, device: torch.device, exchanges: Exchanges | None = None) -> None:
        """Without `exchanges` communication is in the part that waits for it."""
        self._device, self._exchanges = device, exchanges
        self._laps: list[tuple[str, Mark, Mark, list[tuple[Mark, Mark]]]] = []
        self._take()
        self._last = mark(device.type == "cuda")

    def lap(self, part: str) -> None:
        """End a part."""
        now = mark(self._device.type == "cuda")
        self._laps.append((part, self._last, now, self._take()))
        self._last = now

    def seconds(self) -> dict[str, float]:
        """Seconds of each part so far."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        spent = dict.fromkeys(PARTS, 0.0)
        for part, start, stop, exchanges in self._laps:
            held_up = sum(between(*each) for each in exchanges) if part in _HELD_UP else 0.0
            spent[part] += between(start, stop) - held_up
            spent["communication"] += held_up
        return spent

    def _take(self) -> list[tuple[Mark, Mark]]:
        return self._exchanges.take() if self._exchanges else []
