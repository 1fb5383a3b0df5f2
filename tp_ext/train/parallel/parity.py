"""The same few steps at a recipe's shape and on one process, compared."""

# B batch, T tokens

from __future__ import annotations

import dataclasses
import itertools
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, multiprocessing

from tp_ext.config import ModelConfig
from tp_ext.errors import RecipeError, UserError, end_at_once, raise_all
from tp_ext.train import feed
from tp_ext.train.guard import Guard, Watched
from tp_ext.train.inputs import config_of_recipe, cut_problems, open_inputs
from tp_ext.train.recipe import Recipe

TOLERANCE = 1e-5
"""How far losses and norms may be apart, as a share of their size: float32, of which sums are added up in another order."""
OF_WEIGHTS = 0.1
"""How far a weight may be apart, in learning rates: what was learned wrongly is so by whole ones."""
EPS = 1e-5
"""AdamW's eps, at least. It makes steps of the learning rate's size of gradients that are nothing but rounding, where they
are larger than eps; with a usual 1e-8 few steps take two runs that are the same far apart."""
LAYERS, HEADS, HEAD_SIZE, SEQ_LENGTH, VOCABULARY = 3, 8, 8, 64, 1024
"""What a model is shrunk to: least layers, about so many query heads of so much width, positions, and rows."""


@dataclass(frozen=True)
class Figures:
    """What the steps at one shape came to."""

    losses: list[float]
    norms: list[float]
    weights: dict[str, Tensor]


@dataclass(frozen=True)
class Compared:
    """Two runs beside each other."""

    alone: Figures
    spread: Figures
    learning_rate: float

    @property
    def worst(self) -> float:
        """The largest difference of a loss or a norm, as a share of it."""
        pairs = zip(self.alone.losses + self.alone.norms, self.spread.losses + self.spread.norms, strict=True)
        return max(abs(one - other) / max(abs(one), 1e-12) for one, other in pairs)

    @property
    def apart(self) -> tuple[str, float]:
        """The weight that differs most, and by how much."""
        apart = {name: float((one - self.spread.weights[name]).abs().max()) for name, one in self.alone.weights.items()}
        name = max(apart, key=apart.__getitem__)
        return name, apart[name]

    @property
    def is_equal(self) -> bool:
        """Whether they are the same run but for rounding."""
        return self.worst <= TOLERANCE and self.apart[1] <= OF_WEIGHTS * self.learning_rate


def shrunk(config: ModelConfig, parallel_tensor: int, stages: int) -> ModelConfig:
    """A small model that is as awkward to cut: as many heads for a key and value head, a vocabulary and a feed-forward
    width with the same remainders, and as divisible by the degree as the large one.
    """
    group = config.heads_num // config.kv_heads
    kv_heads = _least(config.kv_heads, max(1, HEADS // group), parallel_tensor)
    heads = kv_heads * group
    size = HEAD_SIZE
    width = heads * size
    rows = VOCABULARY + config.rows % VOCABULARY
    inner = 4 * width + config.feedforward_size % (4 * parallel_tensor)
    return config.replace(
        layers_num=min(config.layers_num, max(LAYERS, stages + 1)), heads_num=heads, emb_size=width, hidden_size=width,
        local_kv_heads_num=None if config.local_kv_heads_num is None else kv_heads, attention_head_size=None,
        feedforward_size=inner, vocab_size=rows, vocab_padding=min(config.vocab_padding, rows - 1),
    )  # fmt: skip


def _least(count: int, wanted: int, degree: int) -> int:
    """A number near `wanted` that `degree` divides exactly when it divides `count`."""
    known = count % degree == 0
    return next(number for number in range(wanted, wanted + 2 * degree + 1) if (number % degree == 0) == known)


def compare(recipe: Recipe, shrink: bool, steps: int) -> Compared:
    """Make `steps` at (1, 1) and at the recipe's shape, on processes of this machine that talk through gloo.

    Weights and ids are random, so neither the model's weights nor the data need be there. All is float32, without
    dropout, and AdamW's eps at least EPS. Raises a UserError when the model cannot be cut so.
    """
    config = _config(recipe)
    tensor, pipeline = recipe.parallel.tensor, recipe.parallel.pipeline
    if shrink:
        config = shrunk(config, tensor, pipeline)
    config = config.replace(dropout=0.0)
    raise_all(RecipeError, cut_problems(config, recipe.parallel))
    length = min(recipe.data.seq_length, SEQ_LENGTH) if shrink else recipe.data.seq_length
    micro = min(recipe.train.micro_batch_size, 2) if shrink else recipe.train.micro_batch_size
    train = dataclasses.replace(
        recipe.train, dtype="fp32", micro_batch_size=micro, global_batch_size=micro * 2 * pipeline, resume="never",
        eps=max(recipe.train.eps, EPS),
    )
    model = dataclasses.replace(recipe.model, size=None, config_path=None, config=config.to_json())
    spread = dataclasses.replace(
        recipe, model=model, train=train, data=dataclasses.replace(recipe.data, seq_length=length),
        parallel=dataclasses.replace(recipe.parallel, offload="none"),
        lora=dataclasses.replace(recipe.lora, dropout=0.0) if recipe.lora else None,
    )  # fmt: skip
    alone = dataclasses.replace(spread, parallel=dataclasses.replace(spread.parallel, tensor=1, pipeline=1, zero=1))
    return Compared(_figures(alone, config, steps, 1), _figures(spread, config, steps, tensor * pipeline),
                    train.learning_rate)  # fmt: skip


def _config(recipe: Recipe) -> ModelConfig:
    """The model, from the weights it begins with or from the recipe alone."""
    given = config_of_recipe(recipe)
    try:
        return open_inputs(recipe).config
    except UserError:
        if given is None:
            raise
    if given.vocab_size is None:
        raise RecipeError("recipe.model: its vocabulary is known by the tokenizer only, which is not there; set "
                          "model.config.vocab_size, or make the tokenizer first")  # fmt: skip
    return given


def _figures(recipe: Recipe, config: ModelConfig, steps: int, processes_num: int) -> Figures:
    from tp_ext.train.processes import free_port

    with tempfile.TemporaryDirectory() as folder:
        multiprocessing.start_processes(  # type: ignore[attr-defined, no-untyped-call]
            _process, (recipe, config, steps, processes_num, free_port(), folder), processes_num, start_method="spawn"
        )
        found: dict[str, Any] = torch.load(Path(folder) / "figures.pt", weights_only=True)
    return Figures(**found)


def _process(rank: int, *given: Any) -> None:
    """One process of a run."""
    end_at_once(lambda: _learn(rank, *given))


def _learn(rank: int, recipe: Recipe, config: ModelConfig, steps: int, count: int, port: int, folder: str) -> None:
    """Learn from random ids; the first process writes down what came out."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1",
                   "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}  # fmt: skip
    torch.set_num_threads(1)
    from tp_ext.train import processes as process_group
    from tp_ext.train.engine import Engine
    from tp_ext.train.step import make_step
    from tp_ext.train.watch import StopWatch

    processes = process_group.join()
    try:
        engine = Engine(recipe, config, None, processes)
        guard = Guard(recipe.guard, Watched())
        losses, norms = [], []
        for number in range(steps):
            step, rate = _random_step(recipe, config, number), recipe.train.learning_rate
            outcome = make_step(engine, step, rate, guard, processes, StopWatch(processes.device), False)
            losses.append(outcome.loss)
            norms.append(outcome.grad_norm)
        each = itertools.chain(engine.weights(), engine.trained() if engine.adapted else ())
        weights = {name: weight.detach().clone() for name, weight in each}
        if processes.is_first:
            torch.save({"losses": losses, "norms": norms, "weights": weights}, Path(folder) / "figures.pt")
    finally:
        process_group.leave()


def _random_step(recipe: Recipe, config: ModelConfig, number: int) -> feed.Step:
    """Random ids of the vocabulary; the second half of a row is another document where documents are told apart."""
    train, length = recipe.train, recipe.data.seq_length
    shape = (train.global_batch_size // train.micro_batch_size, train.micro_batch_size, length + 1)
    ids = np.random.default_rng((train.seed, number)).integers(0, config.pieces, shape)
    documents = torch.arange(length).expand(shape[1], -1) * 2 // length
    beside = [documents] if recipe.data.document_mask else []
    seg = torch.ones(shape[1], length, dtype=torch.int64)
    return feed.Step([([torch.from_numpy(each), seg, *beside], 1.0) for each in ids], ids[..., 1:].size)
