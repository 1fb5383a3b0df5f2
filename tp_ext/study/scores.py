"""Scores on held-out text before and after a run, from its metrics."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tp_ext.errors import DatasetError
from tp_ext.train.records import METRICS, read

SUFFIX = "_bits_per_byte"


@dataclass(frozen=True)
class Change:
    """Bits per byte of a held-out text at the first and the last measurement of a run."""

    name: str
    before: float
    after: float
    first_step: int
    last_step: int


def changes(run: Path) -> list[Change]:
    """What each held-out text of the run in the folder `run` came to. Raises DatasetError when nothing was measured."""
    file = run / METRICS
    if not file.is_file():
        raise DatasetError(f"{file}: no such file; name a folder that a recipe's train.output_model_path names")
    found = changes_of(read(file))
    if not found:
        raise DatasetError(f"{file}: nothing was measured; give the recipe evaluate.datasets")
    return found


def changes_of(metrics: Iterable[Mapping[str, Any]]) -> list[Change]:
    """What each held-out text came to in the lines of a run's metrics."""
    found: dict[str, list[tuple[int, float]]] = {}
    for row in metrics:
        for key, value in row.items():
            if key.endswith(SUFFIX):
                found.setdefault(key.removesuffix(SUFFIX), []).append((row["step"], value))
    return [
        Change(name, scores[0][1], scores[-1][1], scores[0][0], scores[-1][0]) for name, scores in found.items()
    ]


def table(rows: list[Change]) -> str:
    """The changes as a table of text."""
    lines = [f"{'bits per byte':<16}{'before':>10}{'after':>10}{'change':>10}"]
    for row in rows:
        share = (row.after - row.before) / row.before
        lines.append(f"{row.name:<16}{row.before:>10.4f}{row.after:>10.4f}{share:>+10.1%}")
    return "\n".join(lines)
