"""Tensor and pipeline parallelism give what one process gives: through pretrain.py, as a user starts it."""

import shutil

import pytest
import torch
from conftest import BLOOM, LLAMA, metrics, pretrain

from tp_ext.checkpoint.formats import open_model
from tp_ext.models import families

MODELS = {
    "llama": {**LLAMA, "layers_num": 3},
    "groups": {**LLAMA, "layers_num": 3, "local_kv_heads_num": 2},
    "bloom": {**BLOOM, "layers_num": 3},
}
CORE = [("llama", (1, 2, 1)), ("groups", (2, 1, 3)), ("bloom", (2, 2, 0))]
SHAPES = [(2, 1, 0), (2, 1, 1), (2, 1, 2), (2, 1, 3), (1, 2, 0), (1, 2, 1), (2, 2, 0), (2, 2, 1)]
REST = [(model, shape) for model in MODELS for shape in SHAPES if (model, shape) not in CORE]


def run(recipe, folder, model, shape=(1, 1, 1), data=1, **changes):
    """Six steps at a shape; the vocabulary of 500 gets a row that stands for nothing, so that it is odd."""
    tensor, pipeline, zero = shape
    folder.mkdir(exist_ok=True)
    changes = {
        "model__config": {**MODELS[model], "vocab_size": 501, "vocab_padding": 1},
        "train__output_model_path": str(folder / "out"),
        "train__total_steps": 6, "train__learning_rate": 1e-3, "train__save_checkpoint_steps": 3, "evaluate__steps": 3,
        "parallel__tensor": tensor, "parallel__pipeline": pipeline, "parallel__zero": zero, **changes,
    }  # fmt: skip
    done = pretrain(recipe(**changes), folder, processes=tensor * pipeline * data)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def weights(folder):
    return dict(open_model(folder / "out" / "model", families).read())


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return tmp_path_factory.mktemp("alone")


def compare(recipe, alone, folder, model, shape, data=1):
    if not (alone / model).exists():
        run(recipe, alone / model, model)
    run(recipe, folder, model, shape, data)
    for name in ("loss", "grad_norm", "text_loss"):
        assert metrics(folder / "out", name) == pytest.approx(metrics(alone / model / "out", name), rel=1e-5), name
    assert metrics(folder / "out", "tokens") == metrics(alone / model / "out", "tokens")
    expected, found = weights(alone / model), weights(folder)
    assert list(found) == list(expected)
    assert all(torch.allclose(found[name], expected[name], atol=1e-4) for name in expected)


@pytest.mark.parametrize(("model", "shape"), CORE)
def test_a_shape_gives_the_losses_norms_and_weights_of_one_process(recipe, alone, tmp_path, model, shape):
    compare(recipe, alone, tmp_path, model, shape)


@pytest.mark.slow
@pytest.mark.parametrize(("model", "shape"), REST)
def test_so_do_the_others(recipe, alone, tmp_path, model, shape):
    compare(recipe, alone, tmp_path, model, shape)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(2, 1, 3), (1, 2, 1)])
def test_and_with_data_parallelism(recipe, alone, tmp_path, shape):
    compare(recipe, alone, tmp_path, "bloom", shape, data=2)


@pytest.mark.parametrize("shape", [(2, 2, 1), pytest.param((2, 1, 3), marks=pytest.mark.slow)])
def test_going_on_at_the_same_shape_ends_at_the_same_bits(recipe, tmp_path, shape):
    run(recipe, tmp_path, "groups", shape)
    before = (tmp_path / "out" / "model" / "model.safetensors").read_bytes()
    shutil.rmtree(tmp_path / "out" / "checkpoints" / "step_00000006")
    shutil.rmtree(tmp_path / "out" / "model")
    output = run(recipe, tmp_path, "groups", shape)
    assert "resuming at step 3" in output
    assert (tmp_path / "out" / "model" / "model.safetensors").read_bytes() == before


def test_documents_dropout_and_checkpointing_go_through_a_pipeline(recipe, tmp_path):
    changes = {"data__document_mask": True, "data__packing": "best_fit", "model__checkpoint_activations": True}
    run(recipe, tmp_path / "one", "bloom", **changes)
    run(recipe, tmp_path / "two", "bloom", (1, 2, 1), **changes)
    for name in ("loss", "grad_norm", "text_loss"):
        expected = metrics(tmp_path / "one" / "out", name)
        assert metrics(tmp_path / "two" / "out", name) == pytest.approx(expected, rel=1e-5), name


@pytest.mark.parametrize("zero", [1, pytest.param(0, marks=pytest.mark.slow)])
def test_a_spike_changes_nothing_in_a_pipeline(recipe, tmp_path, zero):
    guard = {"spike": "skip", "spike_window": 2, "spike_deviation": 0.0, "stop_after": 50}
    expected = None
    for name, shape in (("one", (1, 1, zero)), ("two", (1, 2, zero))):
        values = {"train__total_steps": 16, "evaluate__datasets": {}}
        values |= {f"guard__{key}": value for key, value in guard.items()}
        run(recipe, tmp_path / name, "llama", shape, **values)
        found = metrics(tmp_path / name / "out", "skipped", "steps"), metrics(tmp_path / name / "out", "loss", "steps")
        expected = expected or found
    assert 0 < sum(expected[0]) < 14
    assert found[0] == expected[0]
    assert found[1] == pytest.approx(expected[1], rel=1e-5)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"parallel__tensor": 3}, "recipe.parallel.tensor: cannot cut encoder.transformer.0.self_attn.linear_layers.0."
                                  "weight into 3: 4 heads; they divide into 1, 2, 4"),
        ({"parallel__pipeline": 3}, "recipe.parallel.pipeline: 3 stages for 2 layers"),
        ({"parallel__pipeline": 2, "parallel__zero": 2}, "recipe.parallel.zero: 2 with pipeline 2: "),
        ({"parallel__tensor": 2}, "recipe.parallel: tensor 2 x pipeline 1 needs a multiple of 2 processes; found 1"),
    ],
)  # fmt: skip
def test_what_cannot_be_cut_is_refused_in_a_line(recipe, tmp_path, changes, expected):
    done = pretrain(recipe(**changes), tmp_path)
    assert done.returncode == 2
    assert expected in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()
