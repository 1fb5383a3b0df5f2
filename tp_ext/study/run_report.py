"""What happened in a run, as a page to read."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tp_ext.errors import DatasetError
from tp_ext.output import MANIFEST
from tp_ext.page import Line, Page, Share, large, number, write_page
from tp_ext.settings import read_json
from tp_ext.study.scores import SUFFIX, changes_of
from tp_ext.train import records
from tp_ext.train.records import METRICS, RUN, STEPS
from tp_ext.train.watch import PARTS

PAGE = "report.html"
MOST = 800
"""Points of a curve; of more the mean of each stretch is drawn."""
EVENTS = 200
"""Odd steps and resumes that are listed."""
Rows = Sequence[Mapping[str, Any]]


def write_report(run: Path, path: Path | None = None) -> Path:
    """Write the page of the run in the folder `run`; where it is. Raises DatasetError when no step was made there."""
    path = path or run / PAGE
    write_page(path, make_page(run))
    return path


def make_page(run: Path) -> Page:
    """The page of a run."""
    metrics, steps = list(records.read(run / METRICS)), list(records.read(run / STEPS))
    if not steps:
        raise DatasetError(f"{run / STEPS}: no steps here; name a folder that a recipe's train.output_model_path names")
    page = Page(f"Training run: {run.resolve().name}")
    _summary(page, metrics, steps)
    _learning(page, metrics, steps)
    _speed(page, metrics, steps)
    _events(page, steps)
    _settings(page, run)
    return page


def _summary(page: Page, metrics: Rows, steps: Rows) -> None:
    reported = _with(metrics, "tokens_per_second")
    tiles = [(f"{steps[-1]['step']:,}", "steps"), (number(_last(steps, "loss")), "loss of the last step")]
    if reported:
        tiles += [(large(reported[-1]["tokens"]), "tokens learned from"),
                  (large(round(reported[-1]["tokens_per_second"])), "tokens a second, last"),
                  (number(Share(reported[-1]["mfu"])), "of the products the machine can make"),
                  (f"{max(row['memory_gib'] for row in reported):.2f} GiB", "memory of the largest process")]  # fmt: skip
    tiles.append((f"{sum(row['skipped'] for row in steps):,}", "steps skipped"))
    page.tiles(tiles)
    for change in changes_of(metrics):
        page.paragraph(f"{change.name}: {change.before:.4f} bits per byte at step {change.first_step}, {change.after:.4f} "
                       f"at step {change.last_step}.")  # fmt: skip


def _learning(page: Page, metrics: Rows, steps: Rows) -> None:
    page.heading("Learning")
    page.lines("Loss", "Nats per token of each step, over all processes.", [_curve(steps, "loss")], x="step", y="loss")
    names = sorted({key for row in metrics for key in row if key.endswith(SUFFIX)})
    if names:
        scores = [_curve(metrics, key, key.removesuffix(SUFFIX)) for key in names]
        page.lines("Held-out text", "Bits per byte, which other vocabularies can be compared by.", scores, x="step",
                   y="bits per byte")  # fmt: skip
    page.lines("Learning rate", "", [_curve(steps, "learning_rate")], x="step", y="rate")
    page.lines("Norm of the gradients", "Before clipping; steps without a finite one are left out.",
               [_curve(steps, "grad_norm")], x="step", y="norm")  # fmt: skip


def _speed(page: Page, metrics: Rows, steps: Rows) -> None:
    page.heading("Speed and memory")
    for title, caption, key, unit in _FIGURES:
        if rows := _with(metrics, key):
            page.lines(title, caption, [_curve(rows, key)], x="step", y=unit)
    spent = {part: sum(row["seconds"].get(part, 0.0) for row in steps) for part in PARTS}
    total = sum(spent.values()) or 1.0
    page.table(["part", "seconds", "share"], [[part, seconds, Share(seconds / total)] for part, seconds in spent.items()],
               "Where the time of the first process went. Communication is what forward, backward and optimizer were held "
               "up by exchanges with other processes, waiting for slower ones included.")  # fmt: skip


def _events(page: Page, steps: Rows) -> None:
    page.heading("Events")
    events = []
    for row in steps:
        if row.get("resumed"):
            events.append([row["step"], f"resumed: {'; '.join(row['resumed'])}", "", None, None])
        if row["reason"]:
            done = "skipped" if row["skipped"] else "made all the same"
            events.append([row["step"], row["reason"], done, row["loss"], row["grad_norm"]])
    if not events:
        page.paragraph("The run was never resumed, and no step was out of the ordinary.")
        return
    first = f"The first {EVENTS} of {len(events):,}. " if len(events) > EVENTS else ""
    page.table(["step", "what", "done", "loss", "norm of the gradients"], events[:EVENTS],
               f"{first}The text of the instances of steps that are out of the ordinary is in odd_steps.")  # fmt: skip


def _settings(page: Page, run: Path) -> None:
    page.heading("Recipe and manifest")
    for name, caption in _MANIFESTS:
        if (run / name).is_file():
            values = {key: value for key, value in read_json(run / name).items() if key not in ("files", "tensors")}
            page.table(["setting", "value"], [[key, _as_written(value)] for key, value in _flat("", values)], caption)


def _flat(prefix: str, value: Any) -> Iterable[tuple[str, Any]]:
    """The values inside `value`, each with its path."""
    if isinstance(value, Mapping) and value:
        for key, each in value.items():
            yield from _flat(f"{prefix}.{key}" if prefix else key, each)
    else:
        yield prefix, value


def _as_written(value: Any) -> str:
    """A value as a recipe has it, without the quotes of a string."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _with(rows: Rows, key: str) -> Rows:
    return [row for row in rows if row.get(key) is not None]


def _last(rows: Rows, key: str) -> float | None:
    found = _with(rows, key)
    return found[-1][key] if found else None


def _curve(rows: Rows, key: str, name: str = "") -> Line:
    """The values of `key` over the steps; beyond MOST points, the mean of each stretch of steps."""
    points = [(float(row["step"]), float(row[key])) for row in _with(rows, key)]
    wide = -(-len(points) // MOST) or 1
    stretches = [points[start : start + wide] for start in range(0, len(points), wide)]
    means = [(_mean(x for x, _ in part), _mean(y for _, y in part)) for part in stretches]
    return Line(name or key.replace("_", " "), means)


def _mean(values: Iterable[float]) -> float:
    known = list(values)
    return sum(known) / len(known)


_MANIFESTS = (
    ("recipe.json", "Every setting of the run."), (RUN, "What it learned from and began with."),
    (f"model/{MANIFEST}", "The trained model."),
)  # fmt: skip
_FIGURES = (
    ("Throughput", "Tokens that were targets, over all processes.", "tokens_per_second", "tokens a second"),
    ("Use of the machine", "Floating-point operations of the model over those of large matrix products, measured on the "
     "machine itself.", "mfu", "share"),
    ("Memory", "The most that a process has used so far.", "memory_gib", "GiB"),
    ("Imbalance", "Seconds that the slowest process computed, forward and backward, over the mean: 1 is even.", "imbalance",
     "slowest over mean"),
)  # fmt: skip
