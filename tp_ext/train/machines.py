"""What the processes of a run must have in common when they are on several machines."""

from __future__ import annotations

import dataclasses
import socket
import time
import uuid
from pathlib import Path
from typing import Any

from tp_ext.errors import RecipeError
from tp_ext.train.processes import Processes

PATIENCE = 15.0
"""Seconds after which a file written on one machine must be seen on the others; NFS keeps what it knows for a few."""


def check_alike(identity: Any, checkpoint: Path | None, processes: Processes) -> None:
    """Raise RecipeError in all processes when one has other data, another model or another checkpoint than the first.

    `identity` is a dataclass of what makes the run.
    """
    own = {**dataclasses.asdict(identity), "checkpoint": checkpoint.name if checkpoint else None}
    everywhere = processes.gathered((socket.gethostname(), own))
    first_host, first = everywhere[0]
    for rank, (host, other) in enumerate(everywhere):
        unlike = [name for name in first if first[name] != other[name]]
        if unlike:
            name = unlike[0]
            raise RecipeError(
                f"process {rank} on {host} has {name} {_short(other[name])}, process 0 on {first_host} has "
                f"{_short(first[name])}: every machine needs the same recipe, data and model and, shared, the same "
                "train.output_model_path"
            )


def check_shared(output: Path, processes: Processes) -> None:
    """Raise RecipeError in all processes when `output` is not one folder that all of them see."""
    (name,) = {name for name in processes.gathered(f".seen_{uuid.uuid4().hex[:12]}" if processes.is_first else None) if name}
    try:
        if processes.is_first:
            output.mkdir(parents=True, exist_ok=True)
            (output / name).touch()
        processes.wait()
        blind = [host for host in processes.gathered(None if _appears(output / name) else socket.gethostname()) if host]
    finally:
        if processes.is_first:
            (output / name).unlink(missing_ok=True)
    if blind:
        raise RecipeError(
            f"recipe.train.output_model_path: {output} is not the same folder on {' and '.join(sorted(set(blind)))} as for "
            "process 0; every process writes its part of a checkpoint, so all machines must share it"
        )


def _appears(path: Path) -> bool:
    """Whether a file is there, or comes while one may wait for it."""
    until = time.monotonic() + PATIENCE
    while not path.exists():
        if time.monotonic() > until:
            return False
        if path.parent.is_dir():
            list(path.parent.iterdir())  # asks a server anew for the names
        time.sleep(0.2)
    return True


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
