"""What a step of a run learned from, and what came of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tp_ext.errors import DatasetError
from tp_ext.progress import short
from tp_ext.settings import read_json
from tp_ext.train import records
from tp_ext.train.inputs import open_data
from tp_ext.train.recipe import parse_recipe
from tp_ext.train.records import RUN, STEPS
from tp_ext.train.seen import Seen, headline, seen


@dataclass(frozen=True)
class Explained:
    """A step of a run."""

    record: dict[str, Any]
    """Its line of steps.jsonl."""
    instances: list[Seen]
    sources: dict[str, float]
    """With several datasets, the share of the step's targets that each gave, by name."""


def explain(run: Path, step: int) -> Explained:
    """What the run in the folder `run` did in a step. Raises DatasetError, RecipeError.

    The documents are found from the step's position alone, by the formula that the run itself goes by.
    """
    if not (run / STEPS).is_file():
        raise DatasetError(f"{run}: is not the folder of a run, which has a {STEPS}")
    record = next((row for row in records.read(run / STEPS) if row["step"] == step), None)
    if record is None:
        raise DatasetError(f"{run / STEPS}: no step {step}; its last is {_last(run)}")
    data = open_data(parse_recipe(read_json(run / "recipe.json")))
    known = read_json(run / RUN, DatasetError)
    if (known.get("dataset_sha256"), known.get("sources")) != (data.sha256, data.sources):
        raise DatasetError(f"{run}: the dataset that its recipe names has been made anew; what the step saw is not in it")
    positions = np.arange(record["position"], record["position"] + record["instances"])
    instances = list(seen(data.stream, data.tokenizer, positions.tolist()))
    targets: Counter[str] = Counter()
    for each, count in zip(instances, data.stream.targets(positions).tolist(), strict=True):
        if each.source:
            targets[each.source] += count
    return Explained(record, instances, {name: count / targets.total() for name, count in sorted(targets.items())})


def told(step: Explained, characters: int) -> Iterator[str]:
    """The lines of a step to read; of each document at most so many characters."""
    record = step.record
    done = "skipped" if record["skipped"] else "made"
    yield f"step {record['step']}: {done}{': ' * bool(record['reason'])}{record['reason']}"
    yield (f"  loss {_number(record['loss'])}, gradients' norm {_number(record['grad_norm'])}, learning rate "
           f"{record['learning_rate']:.4g}")  # fmt: skip
    seconds = {part: value for part, value in record["seconds"].items() if value}
    yield "  seconds: " + ", ".join(f"{part} {value:.3g}" for part, value in seconds.items())
    documents = sum(len(each.passages) for each in step.instances)
    yield (f"  {record['instances']} instances from position {record['position']:,} on, {documents} passages, "
           f"{short(record['targets'])} targets")  # fmt: skip
    if step.sources:
        yield "  " + ", ".join(f"{name} {share:.1%}" for name, share in step.sources.items()) + " of the targets"
    for each in step.instances:
        yield f"=== position {each.position}: instance {each.index}{f' of {each.source}' if each.source else ''}"
        for passage, origin in each.passages:
            text = passage.text.replace("\n", " ")
            yield headline(passage, origin)
            yield f"    {text[:characters]}{'…' * (len(text) > characters)}"


def _number(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.6g}"


def _last(run: Path) -> int:
    return max((row["step"] for row in records.read(run / STEPS)), default=0)
