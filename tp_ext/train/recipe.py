"""A recipe: all that a training run is, from one JSON file, checked before anything is loaded."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tp_ext.data.pack import Packing
from tp_ext.errors import RecipeError, raise_all
from tp_ext.settings import build, read_json
from tp_ext.train.schedule import SCHEDULES


@dataclass(frozen=True, kw_only=True)
class ModelSection:
    """Which model, with which weights and tokenizer."""

    spm_model_path: str
    """The tokenizer that made the dataset, a sentencepiece model or a byte-level tokenizer.json; kept beside the
    trained weights."""
    pretrained_model_path: str | None = None
    """Folder or .bin to start from, in any format convert_weights.py reads; null trains from scratch."""
    size: str | None = None
    """A published size, `llama-7b`; or null."""
    config_path: str | None = None
    """A model JSON of TencentPretrain's or ours; or null."""
    config: dict[str, Any] | None = None
    """A model JSON written here; or null. Without all three the pretrained model's own is used."""
    checkpoint_activations: bool = False
    """Compute activations again in the backward pass instead of keeping them."""


@dataclass(frozen=True, kw_only=True)
class SourceSection:
    """One of several datasets."""

    dataset_path: str
    """A folder written by preprocess.py, with the tokenizer of the others."""
    weight: float
    """Its share of the targets that are learned from, beside the weights of the others: 7 and 3 are as 0.7 and 0.3."""


@dataclass(frozen=True, kw_only=True)
class DataSection:
    """What is learned from: dataset_path, or sources."""

    dataset_path: str | None = None
    """A folder written by preprocess.py."""
    sources: dict[str, SourceSection] = field(default_factory=dict)
    """Name to dataset and weight. Every dataset is gone through in epochs of its own; a small one with a large weight is
    repeated."""
    seq_length: int
    """Positions of an instance; the dataset serves any."""
    packing: Packing = "contiguous"
    """`contiguous`: the documents one after the other, cut every seq_length tokens. `best_fit`: whole documents, as many as
    fit; only those longer than an instance are cut, and hardly any position stays empty. `document`: one document an
    instance; short ones leave the most of it empty."""
    document_mask: bool = False
    """Documents in one instance do not see each other, and positions begin anew with each; false lets a document see those
    before it in the instance, as in TencentPretrain."""
    shuffle: bool = True
    """Another order of the instances in each epoch, by train.seed; false takes them as they are packed, which for
    `contiguous` is the order of the documents."""


@dataclass(frozen=True, kw_only=True)
class TrainSection:
    """How long, how fast, and where the result goes. Steps are optimizer steps."""

    output_model_path: str
    """Folder for checkpoints, metrics and the trained model."""
    global_batch_size: int
    """Instances of an optimizer step, over all processes."""
    micro_batch_size: int
    """Instances that one process computes at once."""
    total_steps: int | None = None
    """Length of the run; or give epochs."""
    epochs: float | None = None
    """Length of the run in passes over data.dataset_path; or give total_steps."""
    learning_rate: float
    """The highest of the run."""
    min_learning_rate: float = 0.0
    """The floor of the linear and cosine schedules."""
    scheduler: str = "cosine"
    warmup: float = 0.01
    """Share of the steps in which the rate rises from 0, or, when 1 or more, their number."""
    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-8
    weight_decay: float = 0.1
    """Of matrices; norms and biases do not decay."""
    max_grad_norm: float = 1.0
    """Gradients are scaled down to this global norm; 0 leaves them."""
    dtype: Literal["fp32", "bf16", "fp16"] = "bf16"
    """Type of weights and activations; the optimizer keeps float32."""
    seed: int = 7
    resume: str = "auto"
    """`auto` goes on from the newest whole checkpoint in output_model_path, if any; `never` refuses when there is one;
    or the folder of a checkpoint."""
    save_checkpoint_steps: int = 1000
    keep_checkpoints: int = 2
    """Older ones are removed after a new one is whole; 0 keeps all."""


@dataclass(frozen=True, kw_only=True)
class ParallelSection:
    """How the work is spread over processes."""

    zero: Literal[0, 1, 2, 3] = 1
    """What is partitioned: 1 optimizer state, 2 and gradients, 3 and weights."""
    offload: Literal["none", "optimizer", "all"] = "none"
    """What is kept in the host's memory; `all` needs zero 3."""
    deepspeed: dict[str, Any] = field(default_factory=dict)
    """More DeepSpeed settings, for instance bucket sizes; none that this recipe decides."""


@dataclass(frozen=True, kw_only=True)
class EvaluateSection:
    """Held-out text to measure on: before the first step, every `steps`, and at the end."""

    datasets: dict[str, str] = field(default_factory=dict)
    """Name to folder written by preprocess.py with the same tokenizer; each is read whole."""
    steps: int = 1000
    micro_batch_size: int | None = None
    """Instances at once; null means train.micro_batch_size."""


@dataclass(frozen=True, kw_only=True)
class LogSection:
    """What is told, and where."""

    report_steps: int = 10
    """Steps between two lines on the console, in metrics.jsonl and wandb."""
    wandb_project: str | None = None
    """null leaves wandb out; without a login it writes an offline run."""
    wandb_name: str | None = None


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A training run."""

    model: ModelSection
    data: DataSection
    train: TrainSection
    parallel: ParallelSection = field(default_factory=ParallelSection)
    evaluate: EvaluateSection = field(default_factory=EvaluateSection)
    log: LogSection = field(default_factory=LogSection)

    def dataset_paths(self) -> list[str]:
        """Every dataset that is learned from."""
        data = self.data
        return [source.dataset_path for source in data.sources.values()] or [str(data.dataset_path)]

    def to_json(self) -> dict[str, Any]:
        """Every setting, the defaults too."""
        return dataclasses.asdict(self)

    def accumulation_steps(self, world_size: int) -> int:
        """Micro-batches of a process in one step. Raises RecipeError when the batch does not divide."""
        train = self.train
        share = train.micro_batch_size * world_size
        if train.global_batch_size % share:
            raise RecipeError(
                f"recipe.train: global_batch_size {train.global_batch_size} is not a multiple of micro_batch_size "
                f"{train.micro_batch_size} x {world_size} processes; {train.global_batch_size // share * share or share} "
                f"or {(train.global_batch_size // share + 1) * share} would be"
            )
        return train.global_batch_size // share


def read_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe in `path` with `section.name=value` overrides. Raises RecipeError with every problem, a line each."""
    values = read_json(path, RecipeError)
    problems: list[str] = []
    for override in overrides:
        _override(values, override, problems)
    return parse_recipe(values, problems)


def parse_recipe(values: Mapping[str, Any], problems: Sequence[str] = ()) -> Recipe:
    """A recipe from its JSON. Raises RecipeError with every problem, those in `problems` first."""
    found = list(problems)
    recipe = build(Recipe, values, "recipe", found)
    if recipe is not None:
        found += _contradictions(recipe)
    raise_all(RecipeError, found)
    assert recipe is not None
    return recipe


def _override(values: dict[str, Any], override: str, problems: list[str]) -> None:
    """Set what `section.name=value` names; the value is JSON, or else a string."""
    name, equals, text = override.partition("=")
    path = name.split(".")
    if not equals or len(path) < 2 or not all(path):
        problems.append(f"'{override}': expected section.name=value, for instance train.learning_rate=1e-4")
        return
    try:
        value = json.loads(text)
    except ValueError:
        value = text
    node = values
    for part in path[:-1]:
        if node.get(part) is None:
            node[part] = {}
        node = node[part]
        if not isinstance(node, dict):
            problems.append(f"'{override}': {part} has no settings inside")
            return
    node[path[-1]] = value


def _contradictions(recipe: Recipe) -> list[str]:
    """Everything in the recipe that cannot be, whatever the data and the machine."""
    model, train, parallel, evaluate = recipe.model, recipe.train, recipe.parallel, recipe.evaluate
    problems = []
    given = [name for name in ("size", "config_path", "config") if getattr(model, name) is not None]
    if len(given) > 1:
        problems.append(f"model: give one of {' and '.join(given)}, not {len(given)}")
    if not given and model.pretrained_model_path is None:
        problems.append("model: give size, config_path or config, or a pretrained_model_path that has its own")
    for section, name, least in _LEAST:
        value = getattr(getattr(recipe, section), name)
        if value is not None and value < least:
            problems.append(f"{section}.{name}: is {value}; it must be at least {least}")
    for name in ("learning_rate", "eps"):
        if getattr(train, name) <= 0:
            problems.append(f"train.{name}: is {getattr(train, name)}; it must be above 0")
    if train.epochs is not None and train.epochs <= 0:
        problems.append(f"train.epochs: is {train.epochs}; it must be above 0")
    for name in ("beta1", "beta2"):
        if not 0 <= getattr(train, name) < 1:
            problems.append(f"train.{name}: is {getattr(train, name)}; it must be at least 0 and below 1")
    if (train.total_steps is None) == (train.epochs is None):
        problems.append("train: give one of total_steps and epochs")
    if train.scheduler not in SCHEDULES:
        problems.append(f"train.scheduler: {train.scheduler!r} is not one of {', '.join(SCHEDULES)}")
    if train.min_learning_rate > train.learning_rate:
        problems.append(f"train.min_learning_rate: {train.min_learning_rate} is above learning_rate {train.learning_rate}")
    if train.warmup >= 1 and train.warmup != int(train.warmup):
        problems.append(f"train.warmup: {train.warmup} is neither a share below 1 nor a whole number of steps")
    if train.total_steps is not None and train.warmup >= 1 and train.warmup >= train.total_steps:
        problems.append(f"train.warmup: {int(train.warmup)} steps do not fit into total_steps {train.total_steps}")
    if train.global_batch_size % max(train.micro_batch_size, 1):
        problems.append(f"train.global_batch_size: {train.global_batch_size} is not a multiple of micro_batch_size "
                        f"{train.micro_batch_size}")  # fmt: skip
    if parallel.zero == 0 and train.dtype != "fp32":
        problems.append(f"parallel.zero: 0 with train.dtype {train.dtype}: DeepSpeed's optimizer for that does not follow "
                        "the float32 run; use zero 1, which costs the same on one process")  # fmt: skip
    if parallel.offload == "all" and parallel.zero != 3:
        problems.append(f"parallel.offload: 'all' needs zero 3, found zero {parallel.zero}")
    if parallel.offload == "optimizer" and parallel.zero == 0:
        problems.append("parallel.offload: 'optimizer' needs zero 1, 2 or 3, found zero 0")
    decided = sorted(set(parallel.deepspeed) & DECIDED)
    if decided:
        problems.append(f"parallel.deepspeed: {', '.join(decided)}: decided by the recipe's own settings; remove it here")
    zero = parallel.deepspeed.get("zero_optimization", {})
    if not isinstance(zero, dict) or {"stage", "offload_optimizer", "offload_param"} & set(zero):
        problems.append("parallel.deepspeed.zero_optimization: an object, without what parallel.zero and offload decide")
    problems += _of_sources(recipe.data)
    if recipe.data.sources and train.epochs is not None:
        problems.append("train.epochs: data.sources end at different times; give total_steps")
    for section, names in (("evaluate.datasets", evaluate.datasets), ("data.sources", recipe.data.sources)):
        problems += [f"{section}: '{name}' is not a name of letters, digits and underscores" for name in names
                     if not name.isidentifier()]  # fmt: skip
    return [f"recipe.{problem}" for problem in problems]


def _of_sources(data: DataSection) -> list[str]:
    """What cannot be about where the data come from."""
    if (data.dataset_path is None) == (not data.sources):
        return [f"data: give one of dataset_path and sources, not {'both' if data.sources else 'none'}"]
    return [
        f"data.sources.{name}.weight: is {source.weight}; it must be above 0, or leave the source out"
        for name, source in data.sources.items()
        if source.weight <= 0
    ]


DECIDED = {
    "train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "gradient_clipping", "bf16",
    "fp16", "optimizer", "scheduler", "zero_allow_untested_optimizer", "steps_per_print",
}  # fmt: skip
"""Keys of the DeepSpeed configuration that are derived from a recipe."""

_LEAST = [
    ("data", "seq_length", 1), ("train", "global_batch_size", 1), ("train", "micro_batch_size", 1),
    ("train", "total_steps", 1), ("train", "min_learning_rate", 0), ("train", "warmup", 0), ("train", "weight_decay", 0),
    ("train", "max_grad_norm", 0), ("train", "save_checkpoint_steps", 1), ("train", "keep_checkpoints", 0),
    ("train", "seed", 0), ("evaluate", "steps", 1), ("evaluate", "micro_batch_size", 1), ("log", "report_steps", 1),
]  # fmt: skip
