"""Where a run begins: at its first step, or at a checkpoint that belongs to it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tp_ext.errors import CheckpointError, DatasetError, RecipeError
from tp_ext.train import resume
from tp_ext.train.inputs import Inputs, open_inputs, steps_of_epochs
from tp_ext.train.lora import adapted_of
from tp_ext.train.machines import check_alike
from tp_ext.train.processes import Processes
from tp_ext.train.recipe import Recipe
from tp_ext.train.report import say
from tp_ext.train.resume import Identity, State
from tp_ext.train.schedule import Span, rate_at
from tp_ext.train.seen import seen

NEXT = 4
"""Instances that are named before a run goes on."""


@dataclass(frozen=True)
class Start:
    """Where a run begins, and how long it is."""

    checkpoint: Path | None
    """None at the first step."""
    state: State
    total_steps: int
    """Steps of the whole run."""
    written: Identity | None = None
    """With which shape the checkpoint was written, where that is another one than that of the run."""


def find_start(recipe: Recipe, inputs: Inputs, processes: Processes) -> Start:
    """Where the run begins, once data and checkpoint are found to be undamaged; all processes raise together.

    Raises RecipeError and CheckpointError.
    """
    output = Path(recipe.train.output_model_path)
    identity = identity_of(recipe, inputs, processes.world_size)
    checkpoint = resume.find(output, recipe.train.resume)
    check_alike(identity, checkpoint, processes)
    state = State(step=0, position=0, tokens=0, identity=identity, recipe=recipe.to_json())
    problem = None
    try:
        if processes.local_rank == 0:  # one process of a machine reads the files to compare hashes
            for store in (*inputs.stores, *(windows.store for windows in inputs.held_out.values())):
                store.verify()
        if checkpoint:
            state = resume.read_state(checkpoint, identity, hashes=processes.is_first)
    except (CheckpointError, DatasetError) as error:
        problem = str(error)
    processes.agree(problem)
    if checkpoint:
        _refuse_later(output, checkpoint, state)
    written = state.identity if state.identity != identity else None
    state = dataclasses.replace(state, identity=identity)
    return Start(checkpoint, state, _total_steps(recipe, inputs, state), written)


def identity_of(recipe: Recipe, inputs: Inputs, processes_num: int) -> Identity:
    """What must be the same for the run to go on."""
    return Identity(
        dataset_sha256=inputs.sha256, sources=inputs.sources,
        packing=recipe.data.packing, document_mask=recipe.data.document_mask, tokenizer_sha256=inputs.tokenizer.sha256,
        seq_length=recipe.data.seq_length, seed=recipe.train.seed, shuffle=recipe.data.shuffle,
        model=inputs.config.to_json(), dtype=recipe.train.dtype, zero=recipe.parallel.zero,
        offload=recipe.parallel.offload, processes_num=processes_num, tensor=recipe.parallel.tensor,
        pipeline=recipe.parallel.pipeline,
        pretrained=inputs.source.fingerprint(whole=recipe.lora is not None) if inputs.source else None,
        lora=adapted_of(recipe.lora, inputs.config).to_json() if recipe.lora else None,
    )  # fmt: skip


def tell_changes(recipe: Recipe, start: Start) -> None:
    """Say from where the run goes on, what is converted, and which settings differ from those it began with."""
    state = start.state
    say(f"resuming at step {state.step}, instance {state.position:,}, {state.tokens:,} tokens")
    if start.written:
        say(f"converting the optimizer's state: {start.written.described()} -> {state.identity.described()}")
    for line in changes_of(recipe, state):
        say(line)


def resumed_as(recipe: Recipe, start: Start) -> list[str]:
    """What is kept of a resume with its first step: the shape, and each setting that differs from before."""
    return [start.state.identity.described(), *(line.strip() for line in changes_of(recipe, start.state))]


def changes_of(recipe: Recipe, state: State) -> Iterator[str]:
    """A line for each setting that differs from the one a run had up to its checkpoint."""
    for section, values in recipe.to_json().items():
        before = state.recipe.get(section) or {}
        for name, value in (values or {}).items():
            if name in before and before[name] != value:
                yield f"  recipe.{section}.{name}: was {before[name]}, is {value}"


def explain_resume(recipe: Recipe) -> Iterator[str]:
    """The lines that say where `pretrain.py` would go on: step, tokens, rate, the next documents, what has changed.

    Nothing is trained or written; files are compared by size, not by hash. Raises a UserError as a resumed run would.
    """
    inputs = open_inputs(recipe)
    checkpoint = resume.find(Path(recipe.train.output_model_path), recipe.train.resume)
    if checkpoint is None:
        yield "no checkpoint: the run would begin at step 1"
        return
    identity = identity_of(recipe, inputs, resume.processes_of(checkpoint))
    state = resume.read_state(checkpoint, identity, hashes=False)
    total = _total_steps(recipe, inputs, state)
    yield f"{checkpoint}: step {state.step} of {total}, {state.tokens:,} tokens learned from"
    yield from changes_of(recipe, state)
    if state.step >= total:
        yield "the run is complete"
        return
    span = Span.of(recipe.train.learning_rate, recipe.train.min_learning_rate, total, recipe.train.warmup)
    rate = rate_at(state.step + 1, recipe.train.scheduler, span)
    yield f"next: step {state.step + 1}, learning rate {rate:.6g}, from position {state.position:,} on"
    for each in seen(inputs.stream, inputs.tokenizer, range(state.position, state.position + NEXT)):
        found = [f"{passage.document} ({origin.path}, byte {origin.offset})" for passage, origin in each.passages]
        yield f"  instance {each.index}{f' of {each.source}' if each.source else ''}: document {', '.join(found)}"
    if state.identity == identity:
        yield f"converted: nothing; {state.identity.described()}, as before"
    else:
        yield f"converted: weights and optimizer state, from {state.identity.described()} to {recipe.parallel.described()}"


def _refuse_later(output: Path, checkpoint: Path, state: State) -> None:
    """Raise RecipeError when the run has checkpoints after the one it is to go on from: they would be mixed up."""
    name = resume.folder_of(output, state.step).name
    later = [path for path in resume.checkpoints(output) if path.name > name]
    if later:
        raise RecipeError(
            f"recipe.train.resume: {checkpoint} is at step {state.step}, but {output} has later checkpoints "
            f"({later[-1].name}); name another output_model_path, or remove them"
        )


def _total_steps(recipe: Recipe, inputs: Inputs, state: State) -> int:
    """Steps of the run in all; with epochs, what is left of them at the batch size of now."""
    if recipe.train.epochs is None:
        return inputs.total_steps
    left = steps_of_epochs(recipe, inputs.stream, state.position)
    return state.step + max(0 if state.step else 1, left)
