"""What cannot be in a recipe, whatever the data and the machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tp_ext.train.schedule import SCHEDULES

if TYPE_CHECKING:
    from tp_ext.train.recipe import DataSection, LoraSection, Recipe


def contradictions(recipe: Recipe) -> list[str]:
    """A line for everything in the recipe that cannot be, each with the path of the setting."""
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
    if parallel.pipeline > 1 and parallel.zero >= 2:
        problems.append(f"parallel.zero: {parallel.zero} with pipeline {parallel.pipeline}: DeepSpeed's pipeline keeps all "
                        "gradients of a stage until its step; use zero 1 with it, or zero "
                        f"{parallel.zero} with parallel.tensor instead")  # fmt: skip
    decided = sorted(set(parallel.deepspeed) & DECIDED)
    if decided:
        problems.append(f"parallel.deepspeed: {', '.join(decided)}: decided by the recipe's own settings; remove it here")
    zero = parallel.deepspeed.get("zero_optimization", {})
    if not isinstance(zero, dict) or {"stage", "offload_optimizer", "offload_param"} & set(zero):
        problems.append("parallel.deepspeed.zero_optimization: an object, without what parallel.zero and offload decide")
    problems += _of_sources(recipe.data)
    if recipe.lora is not None:
        problems += _of_lora(recipe.lora, model.pretrained_model_path)
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


def _of_lora(lora: LoraSection, pretrained: str | None) -> list[str]:
    """What cannot be about a change of low rank."""
    problems = []
    if pretrained is None:
        problems.append("model.pretrained_model_path: is missing; LoRA changes a model that has learned something")
    if lora.r < 1:
        problems.append(f"lora.r: is {lora.r}; it must be at least 1")
    if lora.alpha <= 0:
        problems.append(f"lora.alpha: is {lora.alpha}; it must be above 0")
    if not 0 <= lora.dropout < 1:
        problems.append(f"lora.dropout: is {lora.dropout}; it must be at least 0 and below 1")
    if not lora.target_modules:
        problems.append("lora.target_modules: name at least one linear layer")
    return problems


DECIDED = {
    "train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "gradient_clipping", "bf16",
    "fp16", "optimizer", "scheduler", "zero_allow_untested_optimizer", "steps_per_print",
}  # fmt: skip
"""Keys of the DeepSpeed configuration that are derived from a recipe."""

_LEAST = [
    ("model", "checkpoint_every", 1), ("data", "seq_length", 1), ("train", "global_batch_size", 1),
    ("train", "micro_batch_size", 1), ("train", "total_steps", 1), ("train", "min_learning_rate", 0),
    ("train", "warmup", 0), ("train", "weight_decay", 0),
    ("train", "max_grad_norm", 0), ("train", "save_checkpoint_steps", 1), ("train", "keep_checkpoints", 0),
    ("train", "seed", 0), ("evaluate", "steps", 1), ("evaluate", "micro_batch_size", 1), ("log", "report_steps", 1),
    ("parallel", "tensor", 1), ("parallel", "pipeline", 1),
    ("guard", "stop_after", 1), ("guard", "spike_window", 2), ("guard", "spike_deviation", 0),
]  # fmt: skip
