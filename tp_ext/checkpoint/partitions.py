"""Whole weights and optimizer states from the files of DeepSpeed, which keep them in parts under ZeRO 1 to 3.

The pickles in these files are not executed (see containers.torch_file).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tp_ext.checkpoint.containers import torch_file
from tp_ext.checkpoint.shards import axis_of, joined_shape
from tp_ext.checkpoint.source import HEAD
from tp_ext.checkpoint.tensors import Entry, Shape, Tensor
from tp_ext.errors import CheckpointError

WEIGHT, FIRST_MOMENT, SECOND_MOMENT = "weight", "exp_avg", "exp_avg_sq"
KINDS = (WEIGHT, FIRST_MOMENT, SECOND_MOMENT)
"""What there is of a parameter: its float32 value, and what Adam remembers."""

Kinds = dict[str, Entry]
Piece = tuple[list[Entry], int, int]
"""Flat tensors that lie one behind the other, where in them something begins, and its number of values."""


@dataclass(frozen=True)
class Optimized:
    """What a checkpoint has of all that is trained."""

    parameters: dict[str, Kinds]
    """Name to an entry of each kind, of the whole parameter."""
    step: float
    """Steps that Adam has counted: without those that were skipped."""


@dataclass(frozen=True)
class Layout:
    """How a checkpoint was written."""

    zero: int
    tensor: int
    pipeline: int
    is_tied: bool
    """Whether the output layer is the embedding, so that its second name stands for nothing."""


def open_optimized(engine: Path, layout: Layout) -> Optimized:
    """All that is trained, whole, from the files in `engine`. Raises CheckpointError when they do not fit together."""
    try:
        return _optimized(engine, layout)
    except (OSError, KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        told = f"{type(error).__name__}: {str(error)[:100]}"
        raise CheckpointError(f"{engine}: damaged: not written as its state.json says ({told})") from None


def _optimized(engine: Path, layout: Layout) -> Optimized:
    read = {0: _unpartitioned, 1: _flattened, 2: _flattened, 3: _partitioned}[layout.zero]
    parameters: dict[str, Kinds] = {}
    steps: set[float] = set()
    for stage in range(layout.pipeline):
        models = range(stage * layout.tensor, (stage + 1) * layout.tensor)  # of one stage by tensor rank
        parts = [dict(read(engine, model, layout, steps)) for model in models]
        if any(set(part) != set(parts[0]) for part in parts):
            raise CheckpointError(f"{engine}: the parts of stage {stage} do not have the same parameters")
        for name in parts[0]:
            if name not in parameters:  # a tied embedding is in two stages
                parameters[name] = {kind: _joined(name, [part[name][kind] for part in parts]) for kind in KINDS}
    if len(steps) != 1:
        raise CheckpointError(f"{engine}: its optimizer states are of the steps {sorted(steps)}; expected one")
    return Optimized(parameters, steps.pop())


def partitioned_weights(engine: Path) -> dict[str, Entry]:
    """Entries of the float32 weights that ZeRO 3 has cut over the processes. Raises CheckpointError."""
    return {name: kinds[WEIGHT] for name, kinds in _partitioned(engine, 0, Layout(3, 1, 1, False), None)}


def _joined(name: str, parts: list[Entry]) -> Entry:
    """The whole from what each tensor rank has."""
    axis = axis_of(name)
    if axis is None or len(parts) == 1:
        return parts[0]
    shape = joined_shape(name, [part.shape for part in parts])
    return Entry(shape, torch.float32, lambda: torch.cat([part.read() for part in parts], axis))


def _unpartitioned(engine: Path, model: int, layout: Layout, steps: set[float]) -> Iterator[tuple[str, Kinds]]:
    """Without ZeRO, in float32: the optimizer counts its parameters, those that decay before the others."""
    file = engine / f"mp_rank_{model:02}_model_states.pt"
    values = torch_file.read_values(file)
    weights = {name: entry for name, entry in values["module"].items() if not (layout.is_tied and name == HEAD)}
    ordered = [name for name in weights if len(weights[name].shape) > 1]
    ordered += [name for name in weights if len(weights[name].shape) <= 1]
    states = _states(file, values.get("optimizer"), len(ordered), steps)
    for name, state in zip(ordered, states, strict=True):
        if state[FIRST_MOMENT].shape != weights[name].shape:
            raise CheckpointError(f"{file}: the optimizer's state is not in the order of the weights ({name})")
        yield name, {WEIGHT: weights[name], **state}


def _flattened(engine: Path, model: int, layout: Layout, steps: set[float]) -> Iterator[tuple[str, Kinds]]:
    """ZeRO 1 and 2: all of a group one behind the other, cut into equal parts, so that a parameter can be in several."""
    groups_of_shapes = _shapes(engine / f"mp_rank_{model:02}_model_states.pt")
    shapes = {name: shape for group in groups_of_shapes for name, shape in group.items()}
    pieces: dict[str, dict[str, list[Piece]]] = {name: {kind: [] for kind in KINDS} for name in shapes}
    for file in _by_rank(engine, model, "optim"):
        values = _optimizer(file)
        groups = _flat_groups(file, values, "single_partition_of_fp32_groups")
        states = _states(file, values.get("base_optimizer_state"), len(groups), steps)
        mappings = values.get("param_slice_mappings")
        if not isinstance(mappings, list) or len(mappings) != len(groups):
            raise CheckpointError(f"{file}: does not tell where each weight is (param_slice_mappings)")
        for weights, state, mapping in zip(groups, states, mappings, strict=True):
            for name, address in mapping.items():
                place = vars(address)
                for kind, entry in {WEIGHT: weights, **state}.items():
                    pieces[name][kind].append(([entry], place["start"], place["numel"]))
    for name, shape in shapes.items():
        held = sum(count for _, _, count in pieces[name][WEIGHT])
        if held != math.prod(shape):
            raise CheckpointError(f"{engine}: has {held} values of {name}, {math.prod(shape)} are wanted")
        yield name, {kind: Entry(shape, torch.float32, _reader(pieces[name][kind], shape)) for kind in KINDS}


def _partitioned(engine: Path, model: int, layout: Layout, steps: set[float] | None) -> Iterator[tuple[str, Kinds]]:
    """ZeRO 3: every parameter flat, filled up, in equal parts; a rank has its parts of all one behind the other.

    Without `steps` of the weights only.
    """
    files = _by_rank(engine, model, "optim")
    shapes = _shapes(_by_rank(engine, model, "model")[0])
    ranks: list[dict[str, list[Entry]]] = []
    for file in files:
        values = _optimizer(file)
        groups = _flat_groups(file, values, "fp32_flat_groups")
        ranks.append({WEIGHT: groups})
        if steps is not None:
            states = _states(file, values.get("optimizer_state_dict"), len(groups), steps)
            ranks[-1] |= {kind: [state[kind] for state in states] for kind in KINDS[1:]}
    offset = 0
    for name, shape in (pair for group in shapes for pair in group.items()):
        part = -(-math.prod(shape) // len(ranks))
        pieces: dict[str, list[Piece]] = {kind: [(rank[kind], offset, part) for rank in ranks] for kind in ranks[0]}
        yield name, {kind: Entry(shape, torch.float32, _reader(pieces[kind], shape)) for kind in pieces}
        offset += part
    held = min(sum(entry.shape[0] for entry in flat) for rank in ranks for flat in rank.values())
    if held < offset:
        raise CheckpointError(f"{engine}: a rank holds {held} values, {offset} are wanted")


def _states(file: Path, optimizer: Any, count: int, steps: set[float]) -> list[Kinds]:
    """What Adam remembers of each of its tensors; adds the steps it has counted to `steps`."""
    states = optimizer.get("state") if isinstance(optimizer, dict) else None
    if not isinstance(states, dict) or set(states) != set(range(count)):
        raise CheckpointError(f"{file}: has no optimizer state of its {count} tensors: no step had been made yet")
    for state in states.values():
        step = state.get("step")
        steps.add(float(step.read() if isinstance(step, Entry) else step))
    return [{kind: states[index][kind] for kind in KINDS[1:]} for index in range(count)]


def _optimizer(file: Path) -> dict[str, Any]:
    values = torch_file.read_values(file)
    found = values.get("optimizer_state_dict") if isinstance(values, dict) else None
    return found if isinstance(found, dict) else {}


def _flat_groups(file: Path, values: dict[str, Any], key: str) -> list[Entry]:
    groups = values.get(key)
    if not groups or not isinstance(groups, list) or not all(isinstance(each, Entry) and each.read_part for each in groups):
        raise CheckpointError(f"{file}: has no float32 copy of the weights ({key})")
    return groups


def _by_rank(engine: Path, model: int, kind: str) -> list[Path]:
    """Files of one part of the model, of all that share the data."""
    pattern = re.compile(rf"(?:bf16_)?zero_pp_rank_(\d+)_mp_rank_{model:02}_{kind}_states\.pt")
    named = ((pattern.fullmatch(file.name), file) for file in engine.iterdir())
    found = {int(match[1]): file for match, file in named if match}
    if not found or sorted(found) != list(range(len(found))):
        raise CheckpointError(f"{engine}: has the files of the ranks {sorted(found)}; expected all from 0 on")
    return [found[rank] for rank in sorted(found)]


def _shapes(file: Path) -> list[dict[str, Shape]]:
    """The shapes of the weights of each group, in the order in which they are cut."""
    values = torch_file.read_values(file)
    groups = values.get("param_shapes") if isinstance(values, dict) else None
    if not isinstance(groups, list) or not all(isinstance(group, dict) for group in groups):
        raise CheckpointError(f"{file}: does not tell the shapes of the weights (param_shapes)")
    return [{name: tuple(map(int, shape)) for name, shape in group.items()} for group in groups]


def _reader(pieces: list[Piece], shape: Shape) -> Callable[[], Tensor]:
    def read() -> Tensor:
        flat = torch.cat([_slice(*piece) for piece in pieces])
        return flat[: math.prod(shape)].view(shape)

    return read


def _slice(groups: list[Entry], offset: int, count: int) -> Tensor:
    """Values `offset` to `offset + count` of flat tensors that lie one behind the other."""
    pieces = []
    for group in groups:
        size = group.shape[0]
        if offset < size and count:
            taken = min(count, size - offset)
            assert group.read_part is not None
            pieces.append(group.read_part(offset, offset + taken))
            count -= taken
            offset = 0
        else:
            offset -= size
    return torch.cat(pieces)
