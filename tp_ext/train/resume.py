"""Checkpoints of a run: whole or absent, hashed, rotated, and refused when they do not belong to the recipe."""

from __future__ import annotations

import dataclasses
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread
from typing import Any

import torch

from tp_ext.checkpoint.containers.pieces import Pieces
from tp_ext.checkpoint.partitions import Layout, open_optimized
from tp_ext.errors import CheckpointError, RecipeError
from tp_ext.output import MANIFEST, check_files, sync, write_json, write_manifest
from tp_ext.settings import build, read_json
from tp_ext.train.engine import Engine
from tp_ext.train.guard import Watched
from tp_ext.train.processes import Processes

KIND = "tp_ext checkpoint 1"
STATE, TAG = "state.json", "engine"
SHAPE = ("processes_num", "tensor", "pipeline", "zero", "offload")
"""How the work is spread: of the identity of a run what may be another one when it goes on."""


@dataclass(frozen=True, kw_only=True)
class Identity:
    """What makes a run: its shape may change from one checkpoint to the next, all else must be the same."""

    dataset_sha256: str | None
    """None when there are sources."""
    tokenizer_sha256: str
    seq_length: int
    seed: int
    shuffle: bool
    model: dict[str, Any]
    dtype: str
    zero: int
    offload: str
    processes_num: int
    pretrained: str | None
    """The fingerprint of the weights it began with, with LoRA of all that is in them; None from scratch."""
    lora: dict[str, Any] | None = None
    """What is trained of the base, which checkpoints do not hold; None when all is trained and held."""
    tensor: int = 1
    pipeline: int = 1
    packing: str = "contiguous"
    document_mask: bool = False
    sources: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Name to the dataset's hash and its share of the targets."""


    def described(self) -> str:
        """The shape in a few words."""
        return (
            f"tensor {self.tensor}, pipeline {self.pipeline}, ZeRO {self.zero}, offload {self.offload}, "
            f"{self.processes_num} process{'es' * (self.processes_num > 1)}"
        )


@dataclass(frozen=True, kw_only=True)
class State:
    """How far a run is."""

    step: int
    """Optimizer steps made."""
    position: int
    """Instances used, over all epochs: where the data goes on."""
    tokens: int
    """Targets learned from."""
    identity: Identity
    recipe: dict[str, Any]
    watched: Watched = field(default_factory=Watched)
    """What the guard remembers."""


def folder_of(output: Path, step: int) -> Path:
    """Where the checkpoint of a step is kept."""
    return output / "checkpoints" / f"step_{step:08}"


def checkpoints(output: Path) -> list[Path]:
    """Whole checkpoints of a run, oldest first."""
    return [path for path in _folders(output) if (path / MANIFEST).is_file()]


def _folders(output: Path) -> list[Path]:
    """The folders of checkpoints, oldest first, whole or not."""
    return sorted(path for path in (output / "checkpoints").glob("step_*") if re.fullmatch(r"step_\d{8}", path.name))


def save(output: Path, state: State, engine: Engine, processes: Processes) -> Path:
    """Write a checkpoint; it appears when it is whole.

    Raises CheckpointError in all processes when one cannot write, for instance on a full disk; what is there already
    stays as it is.
    """
    from tp_ext.train.writing import write  # DeepSpeed, which looking at checkpoints does not need

    final = folder_of(output, state.step)
    part = final.with_name(f".{final.name}.part")
    try:
        with _told(output, processes):
            if processes.is_first:
                remove_parts(output)
                part.mkdir(parents=True)
        with _told(output, processes):
            known = engine.save(str(part), TAG)
            random = part / f"random_{processes.rank}.pt"
            with Pieces() as pieces:
                known[random] = write(_random_state(processes), random, pieces)
            for file in known:
                sync(file)
        known = {file: entry for share in processes.gathered(known) for file, entry in share.items()}
        with _told(output, processes):
            if processes.is_first:
                write_json(part / STATE, dataclasses.asdict(state))
                write_manifest(part, KIND, {"step": state.step}, known)
                for file in part.rglob("*"):
                    if file not in known:
                        sync(file)
    except CheckpointError:
        shutil.rmtree(part, ignore_errors=True)
        raise
    if processes.is_first:
        if final.exists():
            shutil.rmtree(final)
        part.replace(final)
        sync(final.parent)
    processes.wait()
    return final


def remove_older(output: Path, keep: int) -> Thread:
    """Remove all checkpoints but the newest `keep`, or none with 0, in a thread that has begun.

    They are gone for who looks for checkpoints when this returns; what a killed run leaves of them is removed by the next.
    """
    parts = []
    for old in checkpoints(output)[: -keep or None] if keep else []:
        parts.append(old.with_name(f".{old.name}.part"))
        old.replace(parts[-1])
    thread = Thread(target=_remove, args=(parts,))
    thread.start()
    return thread


def _remove(folders: Sequence[Path]) -> None:
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def remove_parts(output: Path) -> list[str]:
    """Remove what runs that were killed left of checkpoints; its names."""
    parts = sorted((output / "checkpoints").glob(".step_*.part"))
    for part in parts:
        shutil.rmtree(part)
    return [part.name for part in parts]


@contextmanager
def _told(output: Path, processes: Processes) -> Iterator[None]:
    """Raise a CheckpointError in all processes when the disk takes no more from one of them."""
    problem = None
    try:
        yield
    except OSError as error:
        free = shutil.disk_usage(output).free / 2**30
        whole = checkpoints(output)
        problem = f"{output}: no checkpoint could be written ({error.strerror}; {free:.1f} GiB are free there); " + (
            f"the last whole one is {whole[-1].name}" if whole else "there is none yet"
        )
    processes.agree(problem)


def find(output: Path, resume: str) -> Path | None:
    """The checkpoint `train.resume` means, or None to begin. Raises RecipeError, CheckpointError."""
    found = checkpoints(output)
    if resume == "auto":
        last = max(_folders(output), default=None)  # an older one may be half removed, since it was to go
        if last and last not in found:
            raise CheckpointError(f"{last}: damaged: has no {MANIFEST}; remove it to go on from "
                                  f"{found[-1].name if found else 'the beginning'}")  # fmt: skip
        return last
    if resume == "never":
        if found:
            raise RecipeError(
                f"recipe.train.resume: 'never', but {output} has checkpoints up to {found[-1].name}; "
                "name another output_model_path, remove them, or set resume to 'auto'"
            )
        return None
    path = Path(resume)
    if not (path / MANIFEST).is_file():
        raise CheckpointError(f"{path}: no whole checkpoint here; recipe.train.resume takes 'auto', 'never' or its folder")
    return path


def processes_of(path: Path) -> int:
    """The number of processes that wrote the checkpoint at `path`. Raises CheckpointError when it is damaged."""
    number = read_json(path / STATE, CheckpointError).get("identity", {}).get("processes_num")
    if not isinstance(number, int):
        raise CheckpointError(f"{path / STATE}: damaged: does not say how many processes wrote it")
    return number


def read_state(path: Path, expected: Identity, hashes: bool = True) -> State:
    """How far the checkpoint at `path` is. Raises CheckpointError when it is damaged or of another run.

    It can be of another shape than is `expected`: the identity in it is the one it was written with.
    Without `hashes` files are compared by size only.
    """
    manifest = read_json(path / MANIFEST, CheckpointError)
    if manifest.get("kind") != KIND:
        raise CheckpointError(f"{path}: is not a checkpoint but '{manifest.get('kind')}'")
    check_files(path, manifest, hashes=hashes, kind=CheckpointError)
    problems: list[str] = []
    state = build(State, read_json(path / STATE, CheckpointError), str(path / STATE), problems)
    if state is None:
        raise CheckpointError("\n".join(problems))
    there, here = ({name: value for name, value in dataclasses.asdict(identity).items() if name not in SHAPE}
                   for identity in (state.identity, expected))  # fmt: skip
    differences = list(_differences("", there, here))
    if differences:
        raise CheckpointError(
            f"{path}: belongs to another run: {'; '.join(differences)}. "
            "Set these back, or name another train.output_model_path"
        )
    if state.identity != expected and expected.dtype == "fp16":
        raise CheckpointError(
            f"{path}: was written with {state.identity.described()}; with fp16 a run goes on at the same shape only "
            f"(here: {expected.described()})"
        )
    return state


def _differences(name: str, there: Any, here: Any) -> Iterator[str]:
    """What differs between two values, with its path when they are objects."""
    if isinstance(there, Mapping) and isinstance(here, Mapping):
        for key in {**there, **here}:
            yield from _differences(f"{name}.{key}" if name else key, there.get(key), here.get(key))
    elif there != here:
        yield f"{name} {_short(there)} there, {_short(here)} here"


def _short(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_short(each)}" for key, each in value.items()) + "}"
    return value[:12] if isinstance(value, str) and len(value) == 64 else str(value)


def load(path: Path, engine: Engine, processes: Processes) -> None:
    """Bring weights, optimizer and random numbers back to where they were. Its hashes must have been compared."""
    engine.load(str(path), TAG)
    file = path / f"random_{processes.rank}.pt"
    state = torch.load(file, weights_only=True)
    torch.set_rng_state(state["host"])
    if processes.device.type == "cuda":
        torch.cuda.set_rng_state(state["device"], processes.device)


def convert(path: Path, written: Identity, engine: Engine) -> None:
    """Bring weights and optimizer to where they were in a run of the shape that `path` was `written` with."""
    layout = Layout(written.zero, written.tensor, written.pipeline, engine.config.tie_weights)
    engine.carry(open_optimized(path / TAG, layout))


def _random_state(processes: Processes) -> dict[str, torch.Tensor]:
    state = {"host": torch.get_rng_state()}
    if processes.device.type == "cuda":
        state["device"] = torch.cuda.get_rng_state(processes.device)
    return state
