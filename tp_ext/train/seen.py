"""The text of the instances at given positions of a run, and where it came from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tp_ext.data.loader import Loader
from tp_ext.data.mixture import Stream
from tp_ext.data.store import Origin
from tp_ext.data.texts import Passage, passages
from tp_ext.output import whole_file
from tp_ext.tokens.tokenizer import Tokenizer
from tp_ext.train.parallel.mesh import Mesh
from tp_ext.train.processes import Processes


@dataclass(frozen=True)
class Seen:
    """An instance that a run learned from."""

    position: int
    """Its place in the run."""
    source: str | None
    """The name of its dataset, where there are several."""
    index: int
    """Its number in its dataset."""
    passages: list[tuple[Passage, Origin]]
    """What each document gives to it, and where that document came from."""


def seen(stream: Stream, tokenizer: Tokenizer, positions: Iterable[int]) -> Iterator[Seen]:
    """The instances at `positions`, one at a time."""
    for position in positions:
        (place,) = stream.places(np.array([position], dtype=np.int64))
        store = place.instances.store
        found = passages(place.instances, store, tokenizer, place.index)
        yield Seen(position, place.source, place.index, [(each, store.origin(each.document)) for each in found])


def headline(passage: Passage, origin: Origin) -> str:
    """One line on where a passage came from."""
    last = passage.first + passage.tokens - 1
    return (f"--- document {passage.document}, tokens {passage.first} to {last} of {passage.of}; {origin.path}, "
            f"byte {origin.offset}")  # fmt: skip


def suspects(
    loader: Loader, position: int, own_losses: Sequence[float], processes: Processes, mesh: Mesh
) -> list[int]:
    """The positions that may be what is wrong with the global batch at `position`; every process calls it.

    Those of the micro-batches whose loss is no finite number, or all, when each of them has one.
    """
    positions = loader.positions(position)  # [accumulation_steps, world_size, micro_batch_size]
    losses = np.array(mesh.one_per_share(processes.gathered(list(own_losses)))).T  # [accumulation_steps, world_size]
    odd = ~np.isfinite(losses)
    found: list[int] = positions[odd if odd.any() else ~odd].flatten().tolist()
    return found


def odd_step(output: Path, step: int) -> Path:
    """The file for the instances of a step that is out of the ordinary."""
    return output / "odd_steps" / f"step_{step:08}.txt"


def write_seen(path: Path, heading: str, instances: Iterable[Seen]) -> None:
    """Write instances as text to read, under a heading; whole or not at all."""
    with whole_file(path) as part, open(part, "w", encoding="utf-8", errors="backslashreplace") as file:
        file.write(heading + "\n")
        for each in instances:
            of = f" of {each.source}" if each.source else ""
            file.write(f"\n=== position {each.position}: instance {each.index}{of}\n")
            for passage, origin in each.passages:
                file.write(f"{headline(passage, origin)}\n{passage.text}\n")
