"""What is judged to be out of the ordinary, and what a run does with it."""

import json
import shutil

import numpy as np
import pytest
import torch
from conftest import metrics, pretrain
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
