"""Which combinations of settings there are: those that fit learn as the plain float32 run does, the others are refused."""

import itertools
import json

import pytest
import torch
from conftest import metrics, pretrain, training

from tp_ext.errors import RecipeError
from tp_ext.train.recipe import parse_recipe

NAMES = ("train.dtype", "parallel.zero", "parallel.offload", "model.checkpoint_activations", "train.micro_batch_size")
EVERY = [dict(zip(NAMES, values, strict=True)) for values in itertools.product(
    ("fp32", "bf16", "fp16"), (0, 1, 2, 3), ("none", "optimizer", "all"), (False, True), (4, 2))]  # fmt: skip
PLAIN = dict(zip(NAMES, ("fp32", 0, "none", False, 4), strict=True))
FAR = {"fp32": 1e-5, "bf16": 0.01, "fp16": 0.01}
"""How far a loss may be from that of the plain float32 run."""
WITHOUT_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU here")


def refusals(each):
    """What a recipe is told about a combination that cannot be."""
    found = []
    if each["parallel.zero"] == 0 and each["train.dtype"] != "fp32":
        found.append("recipe.parallel.zero: 0 with train.dtype")
    if each["parallel.zero"] == 0 and each["parallel.offload"] == "optimizer":
        found.append("recipe.parallel.offload: 'optimizer' needs zero 1, 2 or 3, found zero 0")
    if each["parallel.zero"] != 3 and each["parallel.offload"] == "all":
        found.append(f"recipe.parallel.offload: 'all' needs zero 3, found zero {each['parallel.zero']}")
    return found


FITTING = [each for each in EVERY if not refusals(each)]
FEW = [each for number, each in enumerate(FITTING) if each["train.dtype"] != "fp16" and number % 7 == 3]
"""Every stage and offload, and every setting with some other."""


def compare(recipe, folder, combinations, processes=0):
    """Make every combination's steps and compare their losses with those of the plain run."""
    (folder / "recipe.json").write_text(json.dumps(recipe(train__learning_rate=2e-3)))
    (folder / "combinations.json").write_text(json.dumps([PLAIN, *combinations]))
    done = training("tests/combinations.py", folder / "recipe.json", folder / "combinations.json", processes=processes)
    assert done.returncode == 0, done.stdout + done.stderr
    made = [json.loads(line.removeprefix("MADE ")) for line in done.stdout.splitlines() if line.startswith("MADE ")]
    assert len(made) == len(combinations) + 1
    expected = [loss for loss, _, _ in made[0]]
    assert expected[-1] < expected[0]
    for each, steps in zip(combinations, made[1:], strict=True):
        found = [loss for loss, _, _ in steps]
        assert found == pytest.approx(expected, abs=FAR[each["train.dtype"]]), each
    return made


def test_what_cannot_be_is_refused_by_name_and_nothing_else(recipe):
    assert len(EVERY) == 144 and len(FITTING) == 88
    for each in EVERY:
        values = recipe(**{name.replace(".", "__"): value for name, value in each.items()})
        expected = refusals(each)
        if not expected:
            parse_recipe(values)
            continue
        with pytest.raises(RecipeError) as refused:
            parse_recipe(values)
        told = str(refused.value).splitlines()
        assert len(told) == len(expected)
        assert all(line.startswith(begin) for line, begin in zip(told, expected, strict=True))


def test_some_of_each_learn_as_the_plain_run(recipe, tmp_path):
    for name in NAMES[1:]:
        assert {each[name] for each in FEW} == {each[name] for each in FITTING}
    compare(recipe, tmp_path, FEW)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [0, 2])
@pytest.mark.parametrize("zero", [0, 1, 2, 3])
def test_all_that_a_cpu_can_do_learn_as_the_plain_run(recipe, tmp_path, processes, zero):
    of_stage = [each for each in FITTING if each["train.dtype"] != "fp16" and each["parallel.zero"] == zero]
    compare(recipe, tmp_path, of_stage, processes)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_fp16_on_a_cpu_is_refused(recipe, tmp_path):
    done = pretrain(recipe(train__dtype="fp16"), tmp_path)
    assert done.returncode == 2
    assert "error: recipe.train.dtype: fp16 needs a GPU; on a CPU use fp32 (or bf16, slowly)" in done.stderr


@pytest.mark.gpu
@WITHOUT_GPU
def test_on_a_gpu_all_learn_as_the_plain_run(recipe, tmp_path):
    """fp16 with its scaled loss, and optimizer and weights offloaded from the GPU into pinned memory, too."""
    fp16 = {"parallel.deepspeed": {"fp16": {"initial_scale_power": 8}}}  # small enough for the first step
    compare(recipe, tmp_path, [{**each, **(fp16 if each["train.dtype"] == "fp16" else {})} for each in FITTING])


@pytest.mark.gpu
@WITHOUT_GPU
@pytest.mark.parametrize("zero", [1, 2, 3])
def test_on_a_gpu_fp16_finds_its_scale_by_steps_that_are_skipped(recipe, tmp_path, zero):
    values = recipe(train__dtype="fp16", parallel__zero=zero, train__total_steps=30, evaluate__datasets={},
                    parallel__deepspeed={"fp16": {"initial_scale_power": 32, "hysteresis": 1}})  # fmt: skip
    done = pretrain(values, tmp_path)
    assert done.returncode == 0, done.stderr
    skipped = metrics(tmp_path / "out", "skipped", "steps")
    assert skipped[0] and not skipped[-1]
    assert "the gradients overflowed float16; skipped" in done.stdout
