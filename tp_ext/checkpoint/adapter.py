"""What an adapter is (LoRA, Hu et al. 2021, arXiv 2106.09685), whatever the form in which it is kept.

A weight W [out, in] becomes W + alpha / rank x B A, with A [rank, in] and B [out, rank].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tp_ext.checkpoint.files import Weights
from tp_ext.checkpoint.tensors import Tensor
from tp_ext.errors import CheckpointError

LORA_FILE, PEFT_CONFIG = "lora.bin", "adapter_config.json"
"""By which a folder with an adapter is known, in TencentPretrain's form and in peft's."""
Reader = Callable[[], Tensor]


@dataclass(frozen=True)
class Adapter:
    """An adapter of a model of ours."""

    path: Path
    form: str
    rank: int
    """That its alpha is divided by; peft's may have factors of another rank at the same scale."""
    alpha: float
    dropout: float
    parts: Mapping[str, tuple[Reader, Reader]]
    """What reads A and B, by the name of the weight, ours."""
    whole: Mapping[str, Reader] = field(default_factory=dict)
    """Weights that were trained themselves, by their names, ours; they take the place of the model's."""

    @property
    def scale(self) -> float:
        """By which B A is multiplied."""
        return self.alpha / self.rank

    @property
    def told(self) -> str:
        """What is in it, in a few words."""
        also = f" and {len(self.whole)} whole weights" if self.whole else ""
        return f"{len(self.parts)} pairs of rank {self.rank}{also}"


def pairs_of(path: Path, names: Mapping[str, str], first: str, second: str) -> dict[str, tuple[str, str]]:
    """Names of A and B in the file by what they belong to. Raises CheckpointError on anything else in it."""
    owners = {name.removesuffix(first) for name in names if name.endswith(first)}
    wanted = {owner + end for owner in owners for end in (first, second)}
    if not owners or wanted != set(names):
        wrong = ", ".join(sorted(wanted ^ set(names))[:8]) or "nothing"
        raise CheckpointError(f"{path}: an adapter is pairs of {first[1:]} and {second[1:]}; what has no pair: {wrong}")
    return {owner: (names[owner + first], names[owner + second]) for owner in sorted(owners)}


def reader(weights: Weights, name: str) -> Reader:
    """What reads a tensor."""
    return lambda: weights.read(name)


def number(value: float) -> float | int:
    """A whole number as one, as others write it."""
    return int(value) if value == int(value) else value
