"""A progress bar that shows on a terminal only."""

from __future__ import annotations

import sys
import time
from types import TracebackType

_UNITS = ("", "k", "M", "G", "T")


def short(number: float) -> str:
    """`number` with three digits and a unit of thousands: 1234567 is `1.23M`."""
    unit = 0
    while abs(number) >= 999.5 and unit < len(_UNITS) - 1:
        number /= 1000
        unit += 1
    return f"{number:.3g}{_UNITS[unit]}"


def clock(seconds: float) -> str:
    """Seconds as `h:mm:ss` or `m:ss`."""
    minutes, rest = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class Progress:
    """Call it with what is done and what there is in all; it draws at most five times a second.

    Speeds are over what was done since the first call, as what an earlier run did is done in no time.
    """

    def __init__(self, title: str, unit: str) -> None:
        self._title, self._unit = title, unit
        self._first: tuple[float, int, int] | None = None  # when the first call was, and what was done by then
        self._drawn = 0.0
        self._shown = sys.stderr.isatty()

    def __call__(self, done: int, total: int, tokens: int | None = None) -> None:
        """Show that `done` of `total` is done, and how many `tokens` a second that were."""
        now = time.monotonic()
        self._first = self._first or (now, done, tokens or 0)
        if not self._shown or now - self._drawn < 0.2:
            return
        self._drawn = now
        start, done_before, tokens_before = self._first
        seconds, new = max(now - start, 1e-6), done - done_before
        share = done / total if total else 1.0
        left = clock(seconds / new * (total - done)) if new > 0 else "?"
        bar = ("#" * int(30 * share)).ljust(30, ".")
        speed = "" if tokens is None else f", {short((tokens - tokens_before) / seconds)} tokens/s"
        line = f"{self._title} [{bar}] {share:4.0%} {short(new / seconds)}{self._unit}/s{speed}, {left} left"
        print(f"\r{line:<79}", end="", file=sys.stderr, flush=True)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._shown and self._drawn:
            print("\r" + " " * 79 + "\r", end="", file=sys.stderr, flush=True)
