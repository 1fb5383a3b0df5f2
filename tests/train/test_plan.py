"""A plan says what a run then takes."""

import json
import os

import pytest
import torch
from conftest import BLOOM, LLAMA, ROOT, command, metrics, pretrain, tiny
from torch.utils.flop_counter import FlopCounterMode

from tp_ext.checkpoint.formats import write_trained
from tp_ext.checkpoint.source import shapes_of
from tp_ext.errors import RecipeError
from tp_ext.models import build, config_of, families
from tp_ext.models.decoder import initial_weight
from tp_ext.models.llama import LLAMA as LLAMA_FAMILY
from tp_ext.tokens.tokenizer import open_tokenizer
from tp_ext.train.lora import counts_of
from tp_ext.train.memory import PROCESS, checkpoint_bytes, layer_bytes, memory_of
from tp_ext.train.plan import Machines, parse_bytes, plan
from tp_ext.train.recipe import parse_recipe, read_recipe
from tp_ext.train.report import flops_per_token

WIDE = {"emb_size": 640, "hidden_size": 640, "feedforward_size": 1728, "heads_num": 10, "layers_num": 6, "vocab_size": 12000,
        "vocab_padding": 11500, "max_seq_length": 1024}  # fmt: skip
LONG = {"data__seq_length": 1024, "train__micro_batch_size": 2}
RUNS = [
    pytest.param(LLAMA, {"parallel__zero": 1}, 0),
    pytest.param(LLAMA, {"parallel__zero": 2}, 2),
    pytest.param(BLOOM, {"parallel__zero": 0, **LONG}, 0),
    pytest.param(LLAMA, {"parallel__zero": 3}, 2, marks=pytest.mark.slow),
    pytest.param(LLAMA, {"parallel__zero": 1, **LONG}, 0, marks=pytest.mark.slow),
    pytest.param(LLAMA, {"parallel__zero": 1, "model__checkpoint_activations": True, **LONG}, 0, marks=pytest.mark.slow),
    pytest.param(BLOOM, {"parallel__zero": 1, "train__dtype": "bf16"}, 2, marks=pytest.mark.slow),
]


LORA = {"lora__target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]}
WITH_LORA = [
    pytest.param({"parallel__zero": 1, "model__checkpoint_activations": True, **LONG}, 0, marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("changes", "processes"), WITH_LORA)
def test_memory_and_checkpoints_of_lora_are_as_planned(recipe, tmp_path, spm_path, changes, processes, monkeypatch):
    """With a heap that gives back what is freed: else glibc keeps as much again as activations take."""
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", "1000000")
    config = tiny(LLAMA, **{**WIDE, "layers_num": 8})
    weights = ((name, initial_weight(name, shape, config, 1)) for name, shape in shapes_of(LLAMA_FAMILY, config).items())
    (tmp_path / "base").mkdir()
    write_trained(tmp_path / "base", config, families, weights, torch.float32, open_tokenizer(spm_path), {})
    settings = {"data__seq_length": 384, "train__micro_batch_size": 1, "train__global_batch_size": 4,
                "train__total_steps": 3, "train__save_checkpoint_steps": 3, **LORA, **changes}  # fmt: skip
    begun = {"model__config": None, "model__pretrained_model_path": str(tmp_path / "base")}
    values = recipe(**begun, evaluate__datasets={}, **settings)
    done = pretrain(values, tmp_path, processes=processes)
    assert done.returncode == 0, done.stderr
    given = parse_recipe(values)
    planned = PROCESS + memory_of(given, config, max(processes, 1), on_gpu=False).device
    assert planned / 2**30 == pytest.approx(max(metrics(tmp_path / "out", "memory_gib")), rel=0.15)
    folder = tmp_path / "out" / "checkpoints" / "step_00000003"
    written = sum(os.path.getsize(file) for file in folder.rglob("*") if file.is_file())
    assert checkpoint_bytes(given, config) == pytest.approx(written, rel=0.03)


@pytest.mark.parametrize(("family", "changes", "processes"), RUNS)
def test_memory_and_checkpoints_are_as_planned(recipe, tmp_path, family, changes, processes):
    settings = {"data__seq_length": 384, "train__micro_batch_size": 1, "train__global_batch_size": 4,
                "train__total_steps": 3, "train__save_checkpoint_steps": 3, **changes}  # fmt: skip
    values = recipe(model__config={**family, **WIDE}, evaluate__datasets={}, **settings)
    done = pretrain(values, tmp_path, processes=processes)
    assert done.returncode == 0, done.stderr
    config, given = tiny(family, **WIDE), parse_recipe(values)
    planned = PROCESS + memory_of(given, config, max(processes, 1), on_gpu=False).device
    assert planned / 2**30 == pytest.approx(max(metrics(tmp_path / "out", "memory_gib")), rel=0.15)
    folder = tmp_path / "out" / "checkpoints" / "step_00000003"
    written = sum(os.path.getsize(file) for file in folder.rglob("*") if file.is_file())
    assert checkpoint_bytes(given, config) == pytest.approx(written, rel=0.01)


def test_parameters_are_the_published_ones():
    assert counts_of(config_of("llama-7b"), None).all == 6_738_415_616
    assert counts_of(config_of("bloom-7b1"), None).all == 7_069_016_064  # its output layer is its embedding


@pytest.mark.parametrize("family", [LLAMA, BLOOM])
def test_operations_are_those_of_a_real_step(family):
    """Of the products with the weights; attention's own are a triangle where the counter counts the square."""
    tokens = 16
    config = tiny(family, emb_size=240, hidden_size=240, feedforward_size=960)
    model = build(config)
    ids = torch.randint(0, 101, (1, tokens + 1))
    counter = FlopCounterMode(display=False)
    with counter:
        model(ids[:, :-1], ids[:, 1:]).backward()
    counts = counter.get_flop_counts()["Global"]
    found = sum(count for operation, count in counts.items() if "attention" not in str(operation))
    found += 2 * tokens * config.rows * config.emb_size  # of the output layer's weight: made in place, and not counted
    attention = 6 * config.layers_num * config.heads_num * config.head_size * tokens
    planned = tokens * (flops_per_token(counts_of(config, None).all, config, tokens) - attention)
    assert planned == pytest.approx(found, rel=0.01)


def test_activations_are_those_that_autograd_keeps():
    config = tiny(LLAMA, emb_size=256, hidden_size=256, feedforward_size=512)
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    layer = build(config).encoder.transformer[0].train()
    weights = {parameter.untyped_storage().data_ptr() for parameter in layer.parameters()}
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        layer(torch.randn(2, 24, 256, requires_grad=True))
    real = sum(tensor.untyped_storage().nbytes() for at, tensor in kept.items() if at not in weights)
    rotations = 2048 * (config.head_size // 2) * 8  # a table that all layers share; at T tokens the plan has the same
    counted = layer_bytes(config, 2, 24, torch.float32)
    assert counted == pytest.approx(real, abs=rotations)
    assert layer_bytes(config, 4, 24, torch.float32) == pytest.approx(2 * counted, rel=0.02, abs=rotations)


def test_what_does_not_fit_is_a_problem_and_what_does_is_ranked():
    recipe = read_recipe(ROOT / "recipes" / "llama7b_zh.json")
    large = plan(recipe, Machines(gpus=8, memory=80 * 2**30))
    assert not any("needs" in problem for problem in large.problems)
    assert any("no such tokenizer" in problem for problem in large.problems)  # the data are not there
    small = plan(recipe, Machines(gpus=8, memory=24 * 2**30))
    assert any("GiB of the 24.0 GiB there are" in problem for problem in small.problems)
    assert {name for name, _ in small.choices} < {name for name, _ in large.choices}
    assert all(needed <= 24 * 2**30 for _, needed in small.choices)
    assert any("is not a multiple of micro_batch_size" in problem for problem in plan(recipe, Machines(gpus=7)).problems)


def test_the_command_tells_hours_and_ends_with_one_when_it_does_not_fit(recipe, tmp_path):
    (tmp_path / "recipe.json").write_text(json.dumps(recipe()))
    words = ("scripts/plan.py", "--config", tmp_path / "recipe.json", "--gpus", 0, "--tflops", 0.001, "--utilisation", 0.5)
    done = command(*words, "--gpu-memory", "4G", "train.total_steps=1000")
    assert done.returncode == 0, done.stderr
    assert "the run: 1,000 steps, 256k tokens" in done.stdout and "problem" not in done.stdout
    done = command(*words, "--gpu-memory", "100M")
    assert done.returncode == 1
    assert "problem: needs 0.4 GiB of the 0.1 GiB there are" in done.stdout


def test_amounts_of_memory():
    assert [parse_bytes(text) for text in ("80G", "1.5 GiB", "512m", "7")] == [80 * 2**30, 3 * 2**29, 2**29, 7]
    with pytest.raises(RecipeError, match="for instance 80G"):
        parse_bytes("lots")


def test_a_run_that_does_not_fit_is_refused_before_anything_is_loaded(recipe, tmp_path, monkeypatch, capsys):
    from tp_ext.train import fit

    given = parse_recipe(recipe(model__config={**LLAMA, **WIDE}, **LONG, parallel__zero=1))
    config = tiny(LLAMA, **WIDE)
    needed = PROCESS + memory_of(given, config, 1, on_gpu=False).device
    monkeypatch.setattr(fit, "host_memory", lambda: int(needed) + 2**20)
    fit.check_memory(given, config)
    monkeypatch.setattr(fit, "host_memory", lambda: int(needed) - 2**28)
    with pytest.raises(RecipeError, match=r"needs .* 0\.25 GiB too little; zero 0, .* kept would"):
        fit.check_memory(given, config)
    monkeypatch.setattr(fit, "host_memory", lambda: 2**28)
    with pytest.raises(RecipeError, match="no zero stage, offload or checkpointing would; use more processes"):
        fit.check_memory(given, config)
    fit.check_memory(parse_recipe(recipe(guard__memory="warn")), config)
    assert capsys.readouterr().out.startswith("warning: does not fit")
    huge = recipe(model__config={**LLAMA, **WIDE, "layers_num": 2000, "feedforward_size": 17280})
    done = pretrain(huge, tmp_path)
    assert done.returncode == 2 and "error: recipe: does not fit: a process needs" in done.stderr
    assert done.stderr.count("\n") == 1 and not (tmp_path / "out").exists()


def test_the_plan_of_two_machines_is_told_by_the_command():
    done = command("scripts/plan.py", "--config", "recipes/llama7b_zh.json", "--gpus", 8, "--machines", 2)
    assert "processes: 8; machines: 2" in done.stdout
    assert "what fits, the fastest first:" in done.stdout


def test_a_layer_of_a_later_stage_is_planned_with_its_number_there(recipe):
    target = "encoder.transformer.1.feed_forward.linear_1"
    values = recipe(parallel__pipeline=2, model__pretrained_model_path="base", lora__target_modules=[target], lora__r=4)
    planned = memory_of(parse_recipe(values), tiny(LLAMA, vocab_size=500), 2, on_gpu=False)
    assert planned.optimizer == 12 * 4 * (64 + 96)  # with ZeRO 1, of one process's share: both factors
