"""How a run ends before its time."""

from __future__ import annotations

import signal
from pathlib import Path

from tp_ext.train import resume
from tp_ext.train.recipe import Recipe
from tp_ext.train.resume import State
from tp_ext.train.seen import odd_step
from tp_ext.train.step import Outcome

STOPPED = 128 + signal.SIGTERM
"""The exit code of a run that was stopped and has saved; 0 is that of one that is complete."""


def reason_to_stop(recipe: Recipe, state: State, outcome: Outcome) -> str:
    """What is told of a run that its guard ends at `state`: why, where the text is, and how it goes on."""
    output, in_row = Path(recipe.train.output_model_path), state.watched.in_row
    said = f"step {state.step}: {outcome.verdict.reason} (loss {outcome.loss:.4g}, norm {outcome.grad_norm:.4g}); "
    if in_row >= recipe.guard.stop_after:
        said += f"{in_row} step{'s' * (in_row > 1)} skipped in a row, "
    said += f"the text is in {odd_step(output, 0).parent}. "
    if outcome.verdict.is_spike:
        return said + (
            f"The weights as they were before it are in {resume.folder_of(output, state.step)}: the same command goes on "
            "from there with the step after it, guard.spike=skip by itself. If they are spoilt, remove that checkpoint and "
            "those before it that are, and lower train.learning_rate"
        )
    whole = resume.checkpoints(output)
    return said + (
        "Lower train.learning_rate, lengthen train.warmup, set train.max_grad_norm or the recipe's guard section; the "
        f"same command {f'goes on from {whole[-1].name}' if whole else 'begins anew, as nothing is saved yet'}"
    )
