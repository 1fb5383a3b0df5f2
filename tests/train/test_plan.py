"""A plan says what a run then takes."""

import json
import os
import runpy

import pytest
import torch
from conftest import BLOOM, LLAMA, ROOT, command, metrics, pretrain, tiny
from torch.utils.flop_counter import FlopCounterMode

from tp_ext.checkpoint.formats import write_trained
from tp_ext.checkpoint.source import shapes_of
from tp_ext.errors import RecipeError, run_command
from tp_ext.models import build, config_of, families
from tp_ext.models.decoder import initial_weight
from tp_ext.models.llama import LLAMA as LLAMA_FAMILY
from tp_ext.tokens.tokenizer import open_tokenizer
from tp_ext.train.lora import counts_of
from tp_ext.train.memory import PROCESS, checkpoint_bytes, layer_bytes, memory_of
from tp_ext.train.pace import Machines, pace_of, parse_bytes
from tp_ext.train.plan import plan
from tp_ext.train.recipe import parse_recipe, read_recipe
from tp_ext.train.report import flops_per_token

WIDE = {"emb_size": 640, "hidden_size": 640, "feedforward_size": 1728, "heads_num": 10, "layers_num": 6, "vocab_size": 12000,
        "vocab_padding": 11500, "max_seq_length": 1024}  # fmt: skip
LONG = {"data__seq_length": 1024, "train__micro_batch_size": 2}
RUNS = [
    pytest.param(LLAMA, {"parallel__zero": 1}, 0),
    pytest.param(LLAMA, {"parallel__zero": 2}, 2),
    pytest.param(BLOOM, {"parallel__zero": 0, **LONG}, 0, marks=pytest.mark.slow),
    pytest.param(LLAMA, {"parallel__zero": 3}, 2, marks=pytest.mark.slow),
    pytest.param(LLAMA, {"parallel__zero": 1, **LONG}, 0, marks=pytest.mark.slow),
    pytest.param(LLAMA, {"parallel__zero": 1, "model__checkpoint_activations": True, **LONG}, 0, marks=pytest.mark.slow),
    pytest.param(BLOOM, {"parallel__zero": 1, "train__dtype": "bf16"}, 2, marks=pytest.mark.slow),
    pytest.param(LLAMA, {"parallel__zero": 1, "parallel__pipeline": 2}, 2, marks=pytest.mark.slow),
    pytest.param(LLAMA, {"parallel__zero": 1, "parallel__pipeline": 2, "train__dtype": "bf16"}, 2, marks=pytest.mark.slow),
    pytest.param(LLAMA, {"parallel__zero": 1, "parallel__tensor": 2}, 2, marks=pytest.mark.slow),
    pytest.param(LLAMA, {"parallel__zero": 3, "parallel__tensor": 2}, 2, marks=pytest.mark.slow),
    pytest.param(BLOOM, {"parallel__zero": 1, "parallel__tensor": 2}, 2, marks=pytest.mark.slow),
]


LORA = {"lora__target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]}
WITH_LORA = [
    pytest.param({"parallel__zero": 1, "model__checkpoint_activations": True, **LONG}, 0, marks=pytest.mark.slow),
    pytest.param({"parallel__zero": 3}, 2, marks=pytest.mark.slow),
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
    done = pretrain(values, tmp_path, processes=processes, cold=True)
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
    done = pretrain(values, tmp_path, processes=processes, cold=True)
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


@pytest.mark.parametrize("family", [LLAMA, BLOOM])
def test_operations_are_those_that_deepspeeds_profiler_counts(family, monkeypatch):
    """Of a forward pass with logits, a third of the plan's: products of matrices, two for each multiply-add. What the
    profiler counts of norms, activation and softmax beside them is left out, the embedding costs nothing in both."""
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    from deepspeed.profiling.flops_profiler import FlopsProfiler

    tokens = 64
    config = tiny(family, emb_size=240, hidden_size=240, feedforward_size=960, vocab_size=999)
    model = build(config).eval()
    profiler = FlopsProfiler(model)
    profiler.start_profile()
    with torch.no_grad():
        model(torch.randint(0, 101, (2, tokens)))
    macs = profiler.get_total_macs()
    profiler.end_profile()
    planned = 2 * tokens * flops_per_token(counts_of(config, None).all, config, tokens) / 3
    attention = 2 * tokens * 2 * config.layers_num * config.heads_num * config.head_size * tokens
    # attention is a triangle in the plan, and what the profiler sees of it the whole square
    assert planned + attention == pytest.approx(2 * macs, rel=0.01), (planned / (2 * macs), attention / (2 * macs))


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


def shape(choice):
    parallel = choice.recipe.parallel
    return parallel.tensor, parallel.pipeline, parallel.zero


def test_what_does_not_fit_is_a_problem_and_what_does_is_ranked():
    recipe = read_recipe(ROOT / "recipes" / "llama7b_zh.json")
    large = plan(recipe, Machines(gpus=8, memory=80 * 2**30))
    assert not any("needs" in problem for problem in large.problems)
    assert any("no such tokenizer" in problem for problem in large.problems)  # the data are not there
    small = plan(recipe, Machines(gpus=8, memory=24 * 2**30))
    assert any("a GPU needs 35.1 GiB of 24.0" in problem for problem in small.problems)
    assert {shape(choice) for choice in small.choices} < {shape(choice) for choice in large.choices}
    assert all(choice.memory.device <= 24 * 2**30 for choice in small.choices)
    assert any("is not a multiple of micro_batch_size" in problem for problem in plan(recipe, Machines(gpus=7)).problems)


def test_choices_are_shapes_that_a_run_could_have_the_fastest_first():
    recipe = read_recipe(ROOT / "recipes" / "llama13b_zh.json")
    made = plan(recipe, Machines(gpus=16, machines=2, memory=80 * 2**30))
    shapes = [shape(choice) for choice in made.choices]
    assert len(set(shapes)) == len(shapes) > 5
    assert all(tensor <= 8 and 16 % (tensor * pipeline) == 0 for tensor, pipeline, _ in shapes)  # 40 heads divide by 8
    assert all(zero <= 1 for _, pipeline, zero in shapes if pipeline > 1)
    paces = [choice.pace.total for choice in made.choices]
    assert paces == sorted(paces)
    alone = plan(recipe, Machines(gpus=1, memory=500 * 2**30))
    assert shape(alone.choices[0]) == (1, 1, 1)  # one process partitions nothing; zero 3 is for offloading weights too
    assert [(shape(each), each.recipe.parallel.offload) for each in alone.choices[1:]] == [((1, 1, 3), "all")]


def test_the_pace_knows_what_links_are_for():
    """Tensor across machines is slow, a pipeline across them is not; a pipeline waits for few micro-batches."""
    recipe, machines = read_recipe(ROOT / "recipes" / "llama7b_zh.json"), Machines(gpus=16, machines=2)
    config = config_of("llama-7b")

    def pace(machines=machines, batch=512, **parallel):
        values = recipe.to_json()
        values["parallel"] |= parallel
        values["train"]["global_batch_size"] = batch
        return pace_of(parse_recipe(values), config, machines)

    inside, across = pace(tensor=8, pipeline=2, zero=1), pace(tensor=16, zero=1)
    assert across.sent > 2 * inside.sent
    assert pace(zero=3).sent > pace(zero=2).sent > pace(zero=1).sent
    few, many = pace(pipeline=4, zero=1, batch=16), pace(pipeline=4, zero=1, batch=512)
    assert few.idle / few.compute == pytest.approx(3) and many.idle / many.compute == pytest.approx(3 / 32)
    assert pace(machines=Machines(gpus=16)).sent < pace().sent
    assert pace(zero=2).offload == 0 < pace(zero=2, offload="optimizer").offload


def test_the_command_tells_hours_and_ends_with_one_when_it_does_not_fit(recipe, tmp_path):
    (tmp_path / "recipe.json").write_text(json.dumps(recipe()))
    words = ("scripts/plan.py", "--config", tmp_path / "recipe.json", "--gpus", 0, "--tflops", 0.001, "--utilisation", 0.5)
    done = command(*words, "--gpu-memory", "4G", "train.total_steps=1000")
    assert done.returncode == 0, done.stderr
    assert "the run 1,000 steps, 256k tokens" in done.stdout and "problem" not in done.stdout
    done = command(*words, "--gpu-memory", "100M")
    assert done.returncode == 1
    assert "problem: does not fit: the process needs 0.4 GiB of 0.1" in done.stdout


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
    with pytest.raises(RecipeError, match="no shape, zero stage, offload or checkpointing would; use more processes"):
        fit.check_memory(given, config)
    fit.check_memory(parse_recipe(recipe(guard__memory="warn")), config)
    assert capsys.readouterr().out.startswith("warning: does not fit")
    huge = recipe(model__config={**LLAMA, **WIDE, "layers_num": 2000, "feedforward_size": 17280})
    done = pretrain(huge, tmp_path)
    assert done.returncode == 2 and "error: recipe: does not fit: a process needs" in done.stderr
    assert done.stderr.count("\n") == 1 and not (tmp_path / "out").exists()


def test_the_plan_of_two_machines_is_told_by_the_command():
    words = ("scripts/plan.py", "--config", "recipes/llama7b_zh.json", "--gpus", 8, "--machines", 2)
    done = command(*words, "--tokens", "2e9", "parallel.tensor=8", "parallel.zero=1")
    assert "8 GPUs in 2 machines: tensor 8, pipeline 1, data 1, ZeRO 1" in done.stdout
    assert "the run 1,907 steps, 2G tokens" in done.stdout and "what fits, the fastest first" in done.stdout
    assert "note: parallel.tensor 8 spans machines of 4 GPUs" in done.stdout
    assert done.returncode == 1 and done.stdout.count("problem:") == 1  # the tokenizer is not there


@pytest.mark.parametrize(("words", "expected"), [
    (["--gpus", "-1"], "--gpus -1: must be at least 1, or 0 for a process on a CPU"),
    (["--gpus", "8", "--machines", "3"], "--machines 3: 8 processes cannot be spread over them evenly"),
    (["--utilisation", "40"], "--utilisation 40.0: must be above 0 and at most 1"),
    (["--gpu-memory", "0"], "--gpu-memory 0: must be above 0"),
    (["--tokens", "0"], "--tokens 0.0: must be at least 1"),
    (["--tokens", "inf"], "--tokens inf: must be at least 1 and below 1e18"),
    (["parallel.pipeline=2"], "recipe.parallel.zero: 2 with pipeline 2: DeepSpeed's pipeline keeps all gradients"),
])  # fmt: skip
def test_what_no_machine_has_is_refused_in_a_line(words, expected, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["plan.py", "--config", str(ROOT / "recipes" / "llama7b_zh.json"), *words])
    with pytest.raises(SystemExit) as ended:
        run_command(runpy.run_path(str(ROOT / "scripts" / "plan.py"))["main"])
    assert ended.value.code == 2
    told = capsys.readouterr().err
    assert expected in told and told.count("\n") == 1


def test_every_contradiction_of_model_and_recipe_is_a_problem_without_data():
    overrides = ["data.seq_length=4096", "parallel.tensor=64", "train.epochs=null", "train.total_steps=10",
                 "train.warmup=0.96"]  # fmt: skip
    made = plan(read_recipe(ROOT / "recipes" / "llama7b_zh.json", overrides), Machines(gpus=8))
    expected = ["no such tokenizer", "recipe.data.seq_length: 4096", "recipe.parallel.tensor: cannot cut",
                "recipe.train.warmup", "recipe.parallel: tensor 64 x pipeline 1 needs a multiple of 64"]  # fmt: skip
    assert all(any(each in problem for problem in made.problems) for each in expected), made.problems
    assert made.steps == 10 and made.stages == [] and made.choices


def test_a_model_that_is_not_known_at_all_is_told_with_what_would_do():
    values = ["model.size=null", "model.spm_model_path=nowhere/tokenizer.model"]
    with pytest.raises(RecipeError, match=r"nowhere/tokenizer.model: no such .*; without it a plan needs model.size"):
        plan(read_recipe(ROOT / "recipes" / "llama7b_zh.json", values), Machines(gpus=1))


def test_a_layer_of_a_later_stage_is_planned_with_its_number_there(recipe):
    target = "encoder.transformer.1.feed_forward.linear_1"
    values = recipe(parallel__pipeline=2, model__pretrained_model_path="base", lora__target_modules=[target], lora__r=4)
    planned = memory_of(parse_recipe(values), tiny(LLAMA, vocab_size=500), 2, on_gpu=False)
    assert planned.optimizer == 12 * 4 * (64 + 96)  # with ZeRO 1, of one process's share: both factors
