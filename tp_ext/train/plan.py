"""What a run will need and take, before anything is spent."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from tp_ext.checkpoint.formats import open_model
from tp_ext.checkpoint.tensors import DTYPES
from tp_ext.config import ModelConfig
from tp_ext.errors import RecipeError, UserError
from tp_ext.models import families
from tp_ext.tokens.tokenizer import open_tokenizer
from tp_ext.train.choices import Choice, choices
from tp_ext.train.inputs import check_model, config_of_recipe, cut_problems, open_inputs
from tp_ext.train.lora import Counts, counts_of
from tp_ext.train.memory import PROCESS, Memory, checkpoint_bytes, memories_of
from tp_ext.train.pace import GIB, Machines, Pace, pace_of
from tp_ext.train.parallel.mesh import data_degree
from tp_ext.train.recipe import Recipe
from tp_ext.train.report import flops_per_token
from tp_ext.train.share import Share, shares_of


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a run will need."""

    config: ModelConfig
    parameters: Counts
    stages: list[tuple[Share, Memory]]
    """What a process of each pipeline stage has and needs; none where the model cannot be cut as the recipe says."""
    otherwise: int
    """Bytes of the largest process if activations were kept where they are computed again, or the other way round."""
    host: int
    """Bytes of a machine's own memory, for all of its processes."""
    checkpoint: int
    result: int
    """Bytes of what is written at the end."""
    steps: int | None
    """None where the data that decide it are not there yet."""
    tokens_per_step: int
    flops_per_step: float
    seconds: float | None
    pace: Pace | None
    """None where the processes do not divide."""
    problems: list[str]
    notes: list[str]
    choices: list[Choice]
    """The shapes that fit, the fastest first."""


@dataclass(frozen=True)
class _Found:
    """What could be opened of what a recipe names."""

    config: ModelConfig
    steps: int | None
    problems: list[str]
    notes: list[str]


def plan(recipe: Recipe, machines: Machines, dataset_tokens: int | None = None) -> Plan:
    """The plan of a recipe. What its inputs lack or contradict is among the problems, as far as a plan can be made.

    `dataset_tokens` stand for data that are not there yet. Raises a UserError where not even the model is known.
    """
    found = _opened(recipe, dataset_tokens)
    config, problems, notes = found.config, found.problems, found.notes
    parallel, length = recipe.parallel, recipe.data.seq_length
    on_gpu, pace, is_cut = machines.gpus > 0, None, not cut_problems(config, parallel)
    counts = counts_of(config, recipe.lora)
    try:
        data = data_degree(parallel, machines.processes)
        recipe.accumulation_steps(data)
        pace = pace_of(recipe, config, machines) if is_cut else None
        notes += _notes(recipe, machines, data)
    except RecipeError as error:
        problems.append(str(error))
    stages, otherwise, host, checkpoint = [], 0, 0, 0
    if is_cut:
        needs = memories_of(recipe, config, machines.processes, on_gpu)
        stages = list(zip(shares_of(config, recipe.lora, parallel.tensor, parallel.pipeline), needs, strict=True))
        largest = max(needs, key=lambda memory: memory.device)
        host = machines.per_machine * int(PROCESS + (largest.offloaded if on_gpu else largest.device))
        problems += _too_little(largest, host, machines)
        otherwise, checkpoint = _otherwise(recipe, config, machines), checkpoint_bytes(recipe, config)
    tokens = recipe.train.global_batch_size * length
    flops = flops_per_token(counts.all, config, length, counts.multiplied) * tokens
    speed = machines.processes * machines.flops * machines.utilisation
    return Plan(
        config=config, parameters=counts, stages=stages, otherwise=otherwise, host=host, checkpoint=checkpoint,
        result=_result(recipe, counts), steps=found.steps, tokens_per_step=tokens, flops_per_step=flops,
        seconds=found.steps * flops / speed if found.steps else None, pace=pace, problems=problems, notes=notes,
        choices=choices(recipe, config, machines),
    )  # fmt: skip


def _opened(recipe: Recipe, dataset_tokens: int | None) -> _Found:
    """The model, the number of steps, and what is wrong with the inputs."""
    try:
        inputs = open_inputs(recipe)
        return _Found(inputs.config, inputs.total_steps, [], [])
    except UserError as error:
        lines = str(error).splitlines()
        config, source = _model(recipe)
        if config is None:
            raise RecipeError(f"{error}; without it a plan needs model.size, or a model JSON with vocab_size") from None
    notes = [f"the model is as {source} says, of {config.rows:,} rows: "
             f"{recipe.model.pretrained_model_path} is not here"] if source else []  # fmt: skip
    steps = recipe.train.total_steps
    if steps is None and recipe.train.epochs is not None and dataset_tokens is not None:
        tokens = recipe.train.global_batch_size * recipe.data.seq_length
        steps = max(1, round(recipe.train.epochs * dataset_tokens / tokens))
    problems = [*lines, *(line for line in check_model(recipe, config, steps) if line not in lines)]
    return _Found(config, steps, problems, notes)


def _model(recipe: Recipe) -> tuple[ModelConfig | None, str | None]:
    """The model as far as it is known without the rest, and where from when that is not the pretrained model."""
    model = recipe.model
    source = None
    try:
        config = open_model(Path(str(model.pretrained_model_path)), families).config if model.pretrained_model_path else None
    except UserError:
        config = None
    if config is None:
        config = config_of_recipe(recipe)
        given = next((name for name in ("size", "config_path", "config") if getattr(model, name) is not None), None)
        source = f"model.{given}" if given and model.pretrained_model_path else None
    if config is not None and config.vocab_size is None:
        try:
            pieces = open_tokenizer(model.spm_model_path).vocab_size
        except UserError:
            return None, None
        config = config.replace(vocab_size=pieces + config.vocab_padding)
    return config, source


def _too_little(memory: Memory, host: int, machines: Machines) -> list[str]:
    """What does not fit."""
    problems = []
    needed = memory.device if machines.gpus else host
    if needed > machines.memory:
        whose = "a GPU" if machines.gpus else "the process"
        problems.append(f"does not fit: {whose} needs {needed / GIB:.1f} GiB of {machines.memory / GIB:.1f}")
    if machines.gpus and machines.host_memory is not None and host > machines.host_memory:
        problems.append(f"does not fit: a machine's own memory must hold {host / GIB:.1f} GiB and has "
                        f"{machines.host_memory / GIB:.1f}")  # fmt: skip
    return problems


def _notes(recipe: Recipe, machines: Machines, data: int) -> list[str]:
    """What works but is slow."""
    tensor, pipeline = recipe.parallel.tensor, recipe.parallel.pipeline
    notes = []
    if tensor > machines.per_machine:
        notes.append(f"parallel.tensor {tensor} spans machines of {machines.per_machine} GPUs and sends several times a "
                     "layer: keep it in a machine and put parallel.pipeline across")  # fmt: skip
    micro_batches = recipe.accumulation_steps(data)
    if pipeline > 1 and micro_batches < 4 * pipeline:
        notes.append(f"parallel.pipeline {pipeline} with {micro_batches} micro-batches a step: stages wait "
                     f"{(pipeline - 1) / (micro_batches + pipeline - 1):.0%} of the time; have at least "
                     f"{4 * pipeline} (a smaller micro_batch_size or a larger global_batch_size)")  # fmt: skip
    return notes


def _otherwise(recipe: Recipe, config: ModelConfig, machines: Machines) -> int:
    model = dataclasses.replace(recipe.model, checkpoint_activations=not recipe.model.checkpoint_activations)
    other = dataclasses.replace(recipe, model=model)
    return max(each.device for each in memories_of(other, config, machines.processes, machines.gpus > 0))


def _result(recipe: Recipe, counts: Counts) -> int:
    """Bytes of the trained model, or of the adapter in its two forms and the merged model if it is asked for."""
    size = DTYPES[recipe.train.dtype].itemsize
    if not recipe.lora:
        return counts.all * size
    return size * (2 * counts.trained + (counts.all if recipe.lora.merge else 0))
