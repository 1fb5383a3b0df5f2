"""What a run keeps of its steps: files of JSON objects, one a line, each with its `step`."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tp_ext.errors import CheckpointError
from tp_ext.output import whole_file

METRICS, STEPS = "metrics.jsonl", "steps.jsonl"
"""What is reported every few steps and measured on held-out text, and what happened in each step."""
MODEL, FORMS = "model", {"adapter": "lora", "adapter_peft": "peft"}
RESULTS = (MODEL, *FORMS)
"""Folders that a finished run leaves: the model, and LoRA's adapter in the form that each has."""
RUN = "run.json"
"""What a run is, by which it knows its checkpoints: hashes of data, tokenizer and model."""


def append(path: Path, values: Mapping[str, Any]) -> None:
    """Add a line; a number that is not finite is written as null, which every reader of JSON knows.

    Raises CheckpointError when it cannot be written.
    """
    try:
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps(_finite(values), ensure_ascii=False) + "\n")
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be written ({error.strerror})") from None


def read(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a file in their order, without one that a killed run left half; none when there is no file."""
    if not path.is_file():
        return
    with open(path, encoding="utf-8") as file:
        for line in file:
            try:
                values = json.loads(line)
            except ValueError:
                continue
            if isinstance(values, dict) and "step" in values:
                yield values


def rewind(path: Path, step: int) -> None:
    """Forget what was written of steps after `step`: they will be made again."""
    if not path.is_file():
        return
    with whole_file(path) as part, open(part, "w", encoding="utf-8") as file:
        for values in read(path):
            if values["step"] <= step:
                file.write(json.dumps(values, ensure_ascii=False) + "\n")


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
