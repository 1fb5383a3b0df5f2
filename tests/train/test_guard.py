"""What is judged to be out of the ordinary, and what a run does with it."""

import json
import shutil

import numpy as np
import pytest
import torch
from conftest import metrics, pretrain
from driven import driven
from safetensors.torch import load_file, save_file

from tp_ext.data.mixture import Epochs
from tp_ext.data.pack import pack
from tp_ext.data.store import Store
from tp_ext.output import write_manifest
from tp_ext.train.guard import Guard, Watched
from tp_ext.train.recipe import GuardSection

EMBEDDING = "embedding.word.embedding.weight"


def judged(guard, losses, norm=1.0, scaled=False):
    """The last verdict on steps with these losses."""
    for loss in losses:
        verdict = guard.count(loss, guard.of_gradients(guard.of_loss(loss), norm, scaled))
    return verdict


@pytest.mark.parametrize("spike", ["off", "warn", "skip", "stop"])
def test_a_loss_far_above_a_full_window_is_a_spike(spike):
    def verdict(losses):
        return judged(Guard(GuardSection(spike=spike, spike_window=4, spike_deviation=3.0), Watched()), losses)

    even = [2.0, 2.1, 1.9, 2.0]
    assert not verdict([*even, 2.15]).reason
    assert not verdict([2.0, 2.1, 1.9, 9.0]).reason  # the window was not full
    assert not verdict([*even, 0.1]).reason  # downwards is no spike
    found = verdict([*even, 9.0])
    assert (bool(found.reason), found.skips, found.stops) == {
        "off": (False, False, False), "warn": (True, False, False), "skip": (True, True, False), "stop": (True, True, True),
    }[spike]  # fmt: skip


def test_a_skipped_spike_does_not_move_the_window_and_a_new_level_ends_the_run():
    guard = Guard(GuardSection(spike="skip", spike_window=3, stop_after=3), Watched())
    judged(guard, [2.0, 2.1, 1.9])
    assert [judged(guard, [9.0]).stops for _ in range(3)] == [False, False, True]
    assert guard.watched == Watched(recent=(2.0, 2.1, 1.9), in_row=3, skipped=3)


def test_steps_that_are_no_numbers_end_the_run_when_they_follow_each_other():
    guard = Guard(GuardSection(stop_after=2), Watched())
    nan = float("nan")
    assert not judged(guard, [nan, 2.0, nan]).stops
    assert judged(guard, [2.0], norm=float("inf")).stops
    assert guard.watched.skipped == 3


def test_an_overflow_of_float16_is_skipped_and_ends_nothing():
    guard = Guard(GuardSection(stop_after=1), Watched())
    verdict = judged(guard, [2.0] * 5, norm=float("inf"), scaled=True)
    assert verdict.skips and verdict.is_expected and not verdict.stops
    assert guard.watched == Watched(skipped=5)


@pytest.fixture(scope="module")
def poisoned(dataset, spm_path, tmp_path_factory):
    """A model in which one rare token is no number, and the steps of 8 instances of 32 that see it among the first 8."""
    from conftest import LLAMA

    folder = tmp_path_factory.mktemp("poisoned")
    values = {
        "model": {"spm_model_path": str(spm_path), "config": {**LLAMA, "local_kv_heads_num": 2}},
        "data": {"dataset_path": str(dataset), "seq_length": 32},
        "train": {"output_model_path": str(folder / "out"), "global_batch_size": 8, "micro_batch_size": 2, "total_steps": 1,
                  "learning_rate": 1e-3, "dtype": "fp32", "warmup": 0},
    }  # fmt: skip
    assert pretrain(values, folder).returncode == 0
    stream = Epochs(pack(Store(dataset), 32), 7)
    steps = stream.read(np.arange(64)).src.reshape(8, 8, 32)
    token, found = next(
        (token, found) for token in range(3, 500)
        if len(found := [number + 1 for number in range(8) if (steps[number] == token).any()]) == 2
        and found[1] > found[0] + 1 and found[0] > 1
    )  # fmt: skip
    shutil.copytree(folder / "out" / "model", folder / "model")
    weights = load_file(folder / "model" / "model.safetensors")
    weights[EMBEDDING][token] = torch.nan
    save_file(weights, folder / "model" / "model.safetensors")
    manifest = json.loads((folder / "model" / "manifest.json").read_text())
    write_manifest(folder / "model", manifest["kind"], {"format": "native", "family": "llama"})
    first = next(row for row in range(8) if (steps[found[0] - 1][row] == token).any())
    return folder / "model", found, 8 * (found[0] - 1) + first


@pytest.mark.parametrize(("zero", "processes", "dtype"),
                         [(0, 0, "fp32"), (1, 0, "bf16"), (1, 2, "fp32"), (2, 2, "bf16"), (3, 2, "fp32")])  # fmt: skip
def test_a_step_with_a_loss_that_is_no_number_changes_nothing_anywhere(poisoned, recipe, tmp_path, zero, processes, dtype):
    model, odd, position = poisoned
    values = recipe(
        model__pretrained_model_path=str(model), model__config=None, parallel__zero=zero, train__dtype=dtype,
        evaluate__datasets={}, train__save_checkpoint_steps=odd[0], train__keep_checkpoints=0,
    )  # fmt: skip
    done = pretrain(values, tmp_path, processes=processes)
    assert done.returncode == 0, done.stderr
    out = tmp_path / "out"
    assert [number + 1 for number, skipped in enumerate(metrics(out, "skipped", "steps")) if skipped] == odd
    assert metrics(out, "skipped_steps")[-1] == 2
    assert f"step {odd[0]}: the loss is no finite number; skipped" in done.stdout
    text = (out / "odd_steps" / f"step_{odd[0]:08}.txt").read_text()
    assert f"=== position {position}: instance " in text and "text.txt, byte " in text
    assert text.count("=== position") < 8  # the micro-batches that were well are left out
    # the checkpoint that was due waited for a step that is well
    assert not (out / "checkpoints" / f"step_{odd[0]:08}").exists()
    state = json.loads((out / "checkpoints" / f"step_{odd[0] + 1:08}" / "state.json").read_text())
    assert state["watched"]["skipped"] == 1 and len(state["watched"]["recent"]) == odd[0]
    weights = load_file(out / "model" / "model.safetensors")
    weights[EMBEDDING] = weights[EMBEDDING][~weights[EMBEDDING].isnan().any(1)]
    assert len(weights[EMBEDDING]) == 499
    assert all(bool(weight.isfinite().all()) for weight in weights.values())


def test_a_skipped_spike_leaves_the_weights_and_a_resumed_run_judges_alike(recipe, tmp_path):
    guard = {"spike": "skip", "spike_window": 2, "spike_deviation": 0.0, "stop_after": 50}
    values = recipe(train__total_steps=16, train__learning_rate=1e-3, evaluate__datasets={})
    values["guard"] = guard
    done = pretrain(values, tmp_path)
    assert done.returncode == 0, done.stderr
    skipped = metrics(tmp_path / "out", "skipped", "steps")
    assert 0 < sum(skipped) < 14
    assert done.stdout.count("standard deviations above the mean") == sum(skipped)
    expected = metrics(tmp_path / "out", "loss", "steps")
    for step in (12, 16):
        shutil.rmtree(tmp_path / "out" / "checkpoints" / f"step_{step:08}", ignore_errors=True)
    shutil.rmtree(tmp_path / "out" / "model")
    values["train"]["save_checkpoint_steps"] = 4
    assert pretrain(values, tmp_path).returncode == 0
    assert metrics(tmp_path / "out", "loss", "steps") == expected
    assert metrics(tmp_path / "out", "skipped", "steps") == skipped


def test_a_spike_that_ends_the_run_is_saved_and_the_run_goes_on_after_it(recipe, tmp_path):
    def run(name, spike):
        values = recipe(train__total_steps=12, train__learning_rate=1e-3, evaluate__datasets={},
                        train__output_model_path=str(tmp_path / name), train__save_checkpoint_steps=100)  # fmt: skip
        values["guard"] = {"spike": spike, "spike_window": 2, "spike_deviation": 0.0, "stop_after": 50}
        return pretrain(values, tmp_path)

    assert run("whole", "skip").returncode == 0
    skipped = metrics(tmp_path / "whole", "skipped", "steps")
    first = skipped.index(True) + 1
    done = run("stopped", "stop")
    assert done.returncode == 2
    (error,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert f"step {first}: the loss " in error and "in a row" not in error
    assert f"checkpoints/step_{first:08}: the same command goes on from there with the step after it" in error
    assert metrics(tmp_path / "stopped", "skipped", "steps") == skipped[:first]
    assert (tmp_path / "stopped" / "odd_steps" / f"step_{first:08}.txt").is_file()
    done = run("stopped", "skip")
    assert done.returncode == 0, done.stderr
    assert f"resuming at step {first}," in done.stdout and "recipe.guard.spike: was stop, is skip" in done.stdout
    for name in ("loss", "grad_norm", "skipped"):
        assert metrics(tmp_path / "stopped", name, "steps") == metrics(tmp_path / "whole", name, "steps")


POISON = """
import tp_ext.train.engine as engine, tp_ext.train.loop as loop
made, step, now = engine.Engine.__init__, loop.make_step, [0]
def init(self, *rest):
    made(self, *rest)
    parameter = list(self._engine.module.parameters())[-1]
    if os.environ["RANK"] == os.environ["POISONED"] and parameter.requires_grad:
        parameter.register_hook(lambda gradient: gradient * (float("nan") if now[0] in (3, 5, 6, 7) else 1))
def counted(*rest):
    now[0] += 1
    return step(*rest)
engine.Engine.__init__, loop.make_step = init, counted
"""
"""Gradients of one parameter are no numbers in some steps, in one process."""


@pytest.fixture(scope="module")
def poisoned_alone(tmp_path_factory):
    return tmp_path_factory.mktemp("poisoned_alone")


@pytest.mark.parametrize(
    ("zero", "pipeline", "dtype"),
    [pytest.param(0, 1, "fp32", marks=pytest.mark.slow), pytest.param(1, 1, "fp32", marks=pytest.mark.slow), (2, 1, "fp32"),
     pytest.param(3, 1, "fp32", marks=pytest.mark.slow), pytest.param(0, 2, "fp32", marks=pytest.mark.slow),
     pytest.param(1, 2, "fp32", marks=pytest.mark.slow), pytest.param(1, 2, "bf16", marks=pytest.mark.slow),
     pytest.param(1, 1, "bf16", marks=pytest.mark.slow), pytest.param(2, 1, "bf16", marks=pytest.mark.slow),
     pytest.param(3, 1, "bf16", marks=pytest.mark.slow)],
)  # fmt: skip
def test_gradients_that_only_one_process_sees_are_no_numbers_skip_the_step_in_all(
    recipe, tmp_path, poisoned_alone, monkeypatch, zero, pipeline, dtype
):
    values = recipe(parallel__zero=zero, parallel__pipeline=pipeline, train__dtype=dtype, evaluate__datasets={},
                    train__save_checkpoint_steps=2, train__keep_checkpoints=0, train__total_steps=20)  # fmt: skip
    values["guard"] = {"stop_after": 3}
    if not (poisoned_alone / "out").exists():  # what is expected: one process, all of whose gradients are poisoned
        alone = json.loads(json.dumps(values))
        alone["train"] |= {"output_model_path": str(poisoned_alone / "out"), "dtype": "fp32"}
        alone["parallel"] = {"zero": 1}
        monkeypatch.setenv("POISONED", "0")
        assert driven(alone, poisoned_alone, POISON).returncode == 2
    monkeypatch.setenv("POISONED", "1")
    done = driven(values, tmp_path, POISON, processes=2)
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("error: ") == 1
    assert "step 7: the gradients are no finite numbers (loss " in done.stderr
    assert "3 steps skipped in a row" in done.stderr and "goes on from step_00000004" in done.stderr
    assert metrics(tmp_path / "out", "skipped", "steps") == [False, False, True, False, True, True, True]
    assert all(np.isfinite(metrics(tmp_path / "out", "loss", "steps")))
    expected = metrics(poisoned_alone / "out", "loss", "steps")
    assert metrics(tmp_path / "out", "loss", "steps") == pytest.approx(expected, abs=1e-4 if dtype == "fp32" else 0.05)
    assert sorted(path.name for path in (tmp_path / "out" / "odd_steps").iterdir()) == [
        f"step_{step:08}.txt" for step in (3, 5, 6, 7)
    ]
    assert (tmp_path / "out" / "odd_steps" / "step_00000003.txt").read_text().count("=== position") == 8
