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
from tp_ext.train.contradictions import contradictions


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
    checkpoint_every: int = 1
    """With checkpoint_activations, layers that are computed again together, as DeepSpeed's interval: one input is kept for
    all of them, but all their activations exist at once. A layer's activations are worth some 15 inputs, so more than 1
    saves memory only in models of hundreds of layers or where the inputs are what does not fit."""


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
class LoraSection:
    """What is trained instead of all weights: a change of low rank to some of them (LoRA); the base stays as it is.

    The adapter is written to train.output_model_path, in TencentPretrain's form (`adapter`) and in peft's (`adapter_peft`).
    """

    r: int = 8
    """Rank of a change: it is alpha / r x B A, with A of r rows and B of r columns."""
    alpha: float = 16.0
    dropout: float = 0.0
    """Of what goes into A, in training."""
    target_modules: tuple[str, ...] = ("linear_layers.0", "linear_layers.2")
    """Linear layers that get one, by the end of their name: TencentPretrain's (`linear_layers.0`), Hugging Face's
    (`q_proj`, `query_key_value`) or Meta's (`wq`). The default is query and value, as in TencentPretrain."""
    also_train: tuple[Literal["embedding", "lm_head"], ...] = ()
    """What is trained whole beside them. A vocabulary that was extended needs both: rows of new pieces learn nothing
    otherwise. A model whose lm_head is its embedding takes both names or none."""
    merge: bool = False
    """Also write the whole model with the changes in it, as training without LoRA does (`model`)."""


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
    """How the work is spread over processes: tensor x pipeline of them have one model, the rest is data parallelism."""

    tensor: int = 1
    """Into how many parts every layer is cut. The parts talk to each other several times a layer: keep them in a machine."""
    pipeline: int = 1
    """Into how many stages the layers are cut. Stages talk little; have at least four micro-batches a stage."""
    zero: Literal[0, 1, 2, 3] = 1
    """What is partitioned: 1 optimizer state, 2 and gradients, 3 and weights."""
    offload: Literal["none", "optimizer", "all"] = "none"
    """What is kept in the host's memory; `all` needs zero 3."""
    deepspeed: dict[str, Any] = field(default_factory=dict)
    """More DeepSpeed settings, for instance bucket sizes; none that this recipe decides."""

    def described(self) -> str:
        """In a few words."""
        return f"tensor {self.tensor}, pipeline {self.pipeline}, ZeRO {self.zero}"


@dataclass(frozen=True, kw_only=True)
class EvaluateSection:
    """Held-out text to measure on: before the first step, every `steps`, and at the end."""

    datasets: dict[str, str] = field(default_factory=dict)
    """Name to folder written by preprocess.py with the same tokenizer; each is read whole."""
    steps: int = 1000
    micro_batch_size: int | None = None
    """Instances at once; null means train.micro_batch_size."""


@dataclass(frozen=True, kw_only=True)
class GuardSection:
    """What happens when memory is short or a step out of the ordinary, whose text is written to train.output_model_path."""

    memory: Literal["refuse", "warn"] = "refuse"
    """What is done when by its plan a run does not fit into the memory there is: it does not begin, or it is told."""

    stop_after: int = 5
    """A step whose loss or gradients are no finite numbers changes nothing; so many skipped in a row end the run."""
    spike: Literal["off", "warn", "skip", "stop"] = "warn"
    """What is done when the loss is far above those of the steps before: it is told, the step changes nothing, or the
    run ends before it changes anything."""
    spike_window: int = 100
    """Steps that the loss is compared with; nothing is a spike before there are so many."""
    spike_deviation: float = 6.0
    """Standard deviations above their mean that make a spike."""


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
    lora: LoraSection | None = None
    """null trains all weights."""
    parallel: ParallelSection = field(default_factory=ParallelSection)
    evaluate: EvaluateSection = field(default_factory=EvaluateSection)
    guard: GuardSection = field(default_factory=GuardSection)
    log: LogSection = field(default_factory=LogSection)

    def dataset_paths(self) -> list[str]:
        """Every dataset that is learned from."""
        data = self.data
        return [source.dataset_path for source in data.sources.values()] or [str(data.dataset_path)]

    def to_json(self) -> dict[str, Any]:
        """Every setting, the defaults too, as JSON gives it back: its arrays are lists."""
        values: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return values

    def divides(self, shares: int) -> bool:
        """Whether data in so many shares make whole micro-batches of a global batch."""
        return self.train.global_batch_size % (self.train.micro_batch_size * shares) == 0

    def accumulation_steps(self, shares: int) -> int:
        """Micro-batches of a process in one step, of data in so many shares. Raises RecipeError when it does not divide."""
        train = self.train
        share = train.micro_batch_size * shares
        if not self.divides(shares):
            below = train.global_batch_size // share * share
            raise RecipeError(
                f"recipe.train: global_batch_size {train.global_batch_size} is not a multiple of micro_batch_size "
                f"{train.micro_batch_size} x {shares} processes; {f'{below} or ' * bool(below)}{below + share} would be"
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
        found += contradictions(recipe)
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
