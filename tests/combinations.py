"""Losses of a tiny model under combinations of settings, one after the other in one process.

    python tests/combinations.py RECIPE.json COMBINATIONS.json

The first file is a recipe, the second a list of objects of `section.name` to value; a line of JSON is printed for each.
"""

import json
import os
import sys
from pathlib import Path

from tp_ext.train import processes as process_group
from tp_ext.train.engine import Engine
from tp_ext.train.feed import Step
from tp_ext.train.guard import Guard, Watched
from tp_ext.train.inputs import open_inputs
from tp_ext.train.parallel.parity import _random_step
from tp_ext.train.recipe import read_recipe
from tp_ext.train.step import make_step
from tp_ext.train.watch import StopWatch

STEPS = 4


def main() -> None:
    path, combinations = Path(sys.argv[-2]), json.loads(Path(sys.argv[-1]).read_text())
    processes = process_group.join()
    for changes in combinations:
        recipe = read_recipe(path, [f"{name}={json.dumps(value)}" for name, value in changes.items()])
        engine, guard = Engine(recipe, open_inputs(recipe).config, None, processes), Guard(recipe.guard, Watched())
        outcomes = []
        for _ in range(STEPS):
            whole = _random_step(recipe, engine.config, 0)
            own = Step(whole.micro_batches[processes.rank :: processes.world_size], whole.targets_num)
            rate = recipe.train.learning_rate
            outcomes.append(make_step(engine, own, rate, guard, processes, StopWatch(processes.device), False))
        if processes.is_first:
            made = [(outcome.loss, outcome.grad_norm, outcome.verdict.skips) for outcome in outcomes]
            print("MADE", json.dumps(made), flush=True)
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
