"""What a plan says each process has is what the engine builds there, parameter by parameter."""

import math

import pytest
import torch
from conftest import BLOOM, LLAMA, tiny
from torch import distributed
from torch.testing._internal.distributed.fake_pg import FakeStore

from tp_ext.train.engine import Engine
from tp_ext.train.lora import adapted_of, counts_of
from tp_ext.train.parallel.mesh import Mesh
from tp_ext.train.parallel.tensor import padded
from tp_ext.train.processes import Processes
from tp_ext.train.recipe import LoraSection, parse_recipe
from tp_ext.train.share import shares_of

MODELS = {
    "llama": {**LLAMA, "layers_num": 5},
    "groups": {**LLAMA, "layers_num": 5, "local_kv_heads_num": 2},
    "bloom": {**BLOOM, "layers_num": 5},
}
SHAPES = [(2, 1), (1, 2), (2, 2), (1, 4)]


@pytest.fixture
def built(recipe, monkeypatch):
    """A maker of what the engine builds in a process of a shape, without values and without the other processes."""
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    monkeypatch.setenv("LOCAL_RANK", "0")

    def make(rank, config, tensor, pipeline):
        import deepspeed

        monkeypatch.setitem(deepspeed.ops.__compatible_ops__, "deepspeed_shm_comm", False)  # which it would compile
        count = tensor * pipeline
        distributed.init_process_group(backend="fake", store=FakeStore(), rank=rank, world_size=count)
        try:
            deepspeed.init_distributed(dist_backend="fake", verbose=False)
            given = parse_recipe(recipe(parallel__tensor=tensor, parallel__pipeline=pipeline, train__global_batch_size=24))
            processes = Processes(rank, count, rank, torch.device("cpu"))
            engine = Engine.__new__(Engine)  # without weights and optimizer
            engine.mesh, engine._recipe, engine._processes = Mesh(given.parallel, processes), given, processes
            engine._padded, engine.adapted = padded(config, tensor), None
            model = engine._model({})
            return engine.mesh.stage, {name: math.prod(each.shape) for name, each in model.named_parameters()}
        finally:
            deepspeed.comm.comm.destroy_process_group()

    return make


@pytest.mark.parametrize(("tensor", "pipeline"), SHAPES)
@pytest.mark.parametrize("model", MODELS)
def test_parameters_of_every_process_are_those_of_its_model(built, model, tensor, pipeline):
    """A vocabulary that does not divide, a tied head in two stages, norms that all parts have, key and value heads."""
    config = tiny(MODELS[model])
    shares = shares_of(config, None, tensor, pipeline)
    assert [share.stage for share in shares] == list(range(pipeline))
    seen = set()
    for rank in range(tensor * pipeline):
        stage, sizes = built(rank, config, tensor, pipeline)
        assert shares[stage].counts.all == shares[stage].counts.trained == sum(sizes.values())
        layers = {name.split(".")[2] for name in sizes if name.startswith("encoder.transformer.")}
        assert shares[stage].layers_num == len(layers)
        seen.add(stage)
    assert seen == set(range(pipeline))


def test_one_process_has_the_whole_model_and_parts_add_up():
    config = tiny(MODELS["llama"])
    (whole,) = shares_of(config, None, 1, 1)
    assert whole.counts == counts_of(config, None) and whole.is_first and whole.is_last
    norms = (2 * config.layers_num + 1) * config.hidden_size
    rows = 2 * config.hidden_size  # of the 102nd piece, in embedding and head
    (part,) = shares_of(config, None, 2, 1)
    assert 2 * part.counts.all == whole.counts.all + norms + rows


def test_factors_are_counted_where_they_are():
    section = LoraSection(r=3, target_modules=("q_proj", "down_proj"), also_train=("embedding", "lm_head"))
    config = tiny(MODELS["llama"])
    assert len(adapted_of(section, config).layers) == 10
    (part,) = shares_of(config, section, 2, 1)
    query, down = 3 * (64 + 64 // 2), 3 * (96 // 2 + 64)  # A whole and half of B; half of A and B whole
    assert part.counts.trained == 5 * (query + down) + 2 * 51 * 64
    stages = shares_of(config, section, 1, 2)
    assert sum(stage.counts.trained for stage in stages) == counts_of(config, section).trained
    assert sum(stage.counts.multiplied for stage in stages) == counts_of(config, section).multiplied


@pytest.mark.parametrize(("pieces", "layers"), [(100, [3, 3]), (1000, [4, 2]), (20000, [6, 0])])
def test_an_output_layer_counts_in_its_stage_as_much_as_it_computes(pieces, layers):
    """The embedding is as large, and computes nothing."""
    config = tiny(LLAMA, vocab_size=pieces, layers_num=6)
    assert [share.layers_num for share in shares_of(config, None, 1, 2)] == layers
