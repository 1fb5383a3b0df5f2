"""A run that goes on at other shapes, one after the other, gives what the run gives that never stopped."""

import json
import shutil

import pytest
import torch
from adapted_bases import BOTH, make_bases, sections
from conftest import BLOOM, LLAMA, metrics, pretrain

from tp_ext.checkpoint.formats import open_model
from tp_ext.checkpoint.partitions import Layout, open_optimized
from tp_ext.errors import CheckpointError
from tp_ext.models import families
from tp_ext.output import write_manifest
from tp_ext.train.resume import KIND, Identity, read_state

MODELS = {
    "groups": {**LLAMA, "layers_num": 3, "local_kv_heads_num": 2},
    "bloom": {**BLOOM, "layers_num": 3},
}
"""BLOOM's output layer is its embedding; of both the vocabulary of 501 is odd, so that tensor parts need a row more."""
STEPS = 10
CORE = {
    "groups": ["t1 p1 z1 d1", "t1 p1 z3 d2", "t2 p2 z1 d1", "t1 p1 z0 d1"],
    "bloom": ["t1 p1 z2 d2", "t2 p1 z1 d1", "t1 p2 z0 d1"],
}
REST = {
    "groups": ["t1 p1 z2 d1", "t2 p1 z1 d2", "t1 p2 z0 d1", "t2 p1 z3 d2", "t1 p2 z1 d2"],
    "bloom": ["t2 p2 z0 d1", "t1 p2 z1 d1", "t2 p1 z3 d1", "t2 p2 z1 d1", "t1 p1 z3 d2"],
}
ADAPTED = {
    "groups": ["t1 p1 z1 d1", "t2 p2 z1 d1", "t1 p1 z3 d2", "t1 p1 z0 d1"],
    "bloom": ["t1 p1 z0 d2", "t2 p1 z3 d1", "t1 p2 z0 d1", "t2 p2 z0 d1", "t1 p1 z2 d1"],
    "more": ["t1 p1 z3 d1", "t2 p1 z1 d2", "t1 p2 z1 d2", "t2 p1 z0 d1", "t1 p1 z1 d2"],
}
TARGETS = {"groups": ["q_proj", "v_proj", "o_proj", "down_proj"], "bloom": ["query_key_value", "dense", "dense_4h_to_h"]}


def settings(shape):
    """The recipe's section of `shape` and the processes it takes; a shape can end with what it offloads."""
    words, offload = shape.split()[:4], [*shape.split()[4:], "none"][0]
    tensor, pipeline, zero, data = (int(word[1:]) for word in words)
    section = {"tensor": tensor, "pipeline": pipeline, "zero": zero, "offload": offload}
    return {f"parallel__{name}": value for name, value in section.items()}, tensor * pipeline * data


def go(recipe, folder, shape, **changes):
    """Go on from where the run in `folder` stopped, to its end."""
    folder.mkdir(exist_ok=True)
    section, processes = settings(shape)
    values = recipe(train__output_model_path=str(folder / "out"), train__total_steps=STEPS, train__learning_rate=1e-3,
                    train__save_checkpoint_steps=2, train__keep_checkpoints=0, evaluate__steps=STEPS,
                    **section, **changes)  # fmt: skip
    done = pretrain(values, folder, processes=processes)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def stop_at(out, step):
    """Make a finished run one that stopped at a step."""
    for path in (out / "checkpoints").iterdir():
        if int(path.name.removeprefix("step_")) > step:
            shutil.rmtree(path)
    for name in ("model", "adapter", "adapter_peft"):
        shutil.rmtree(out / name, ignore_errors=True)


def follow(recipe, tmp_path, shapes, tolerance=1e-5, **changes):
    """Change the shape every two steps, from one of `shapes` to the next, beside a run that stays at the first."""
    alone, out = tmp_path / "alone" / "out", tmp_path / "moved" / "out"
    go(recipe, alone.parent, shapes[0], **changes)
    shutil.copytree(alone, out)
    for number, shape in enumerate(shapes[1:], 1):
        stop_at(out, 2 * number)
        output = go(recipe, out.parent, shape, **changes)
        assert f"resuming at step {2 * number}," in output
        assert "converting the optimizer's state: tensor " in output
        assert metrics(out, "position", "steps") == metrics(alone, "position", "steps")
        assert metrics(out, "learning_rate", "steps") == metrics(alone, "learning_rate", "steps")
        for name, file in (("loss", "steps"), ("grad_norm", "steps"), ("text_loss", "metrics")):
            expected, found = metrics(alone, name, file), metrics(out, name, file)
            assert found == pytest.approx(expected, rel=tolerance), (shape, name)
    return alone, out


def compare_models(*folders):
    expected, found = (dict(open_model(folder, families).read()) for folder in folders)
    assert list(found) == list(expected)
    assert all(torch.allclose(found[name], expected[name], atol=1e-4) for name in expected)


def config(model):
    return {"model__config": {**MODELS[model], "vocab_size": 501, "vocab_padding": 1}}


@pytest.mark.parametrize("model", list(CORE))
def test_it_goes_on_as_if_it_had_never_stopped(recipe, tmp_path, model):
    alone, out = follow(recipe, tmp_path, CORE[model], **config(model))
    compare_models(alone / "model", out / "model")
    in_parts = f"checkpoints/step_{4 if model == 'bloom' else 6:08}"  # written with tensor 2
    compare_models(alone / in_parts, out / in_parts)
    state = json.loads((out / "checkpoints" / f"step_{STEPS:08}" / "state.json").read_text())
    assert state["identity"]["zero"] == 0  # the shape it was written with
    engine = alone / "checkpoints" / "step_00000002" / "engine"
    min(engine.glob("*_optim_states.pt")).unlink()
    layout = Layout(2 if model == "bloom" else 1, 1, 1, model == "bloom")
    with pytest.raises(CheckpointError, match="has the files of the ranks"):
        open_optimized(engine, layout)
    for wrong in (Layout(0, 1, 1, False), Layout(layout.zero, 2, 2, False), Layout(7, 1, 1, False)):
        with pytest.raises(CheckpointError):
            open_optimized(engine, wrong)


@pytest.mark.slow
@pytest.mark.parametrize("model", list(REST))
def test_so_do_other_shapes(recipe, tmp_path, model):
    alone, out = follow(recipe, tmp_path, REST[model], **config(model))
    compare_models(alone / "model", out / "model")


@pytest.mark.slow
def test_parts_that_had_to_be_filled_up_are_read_without_the_filling(recipe, tmp_path):
    shapes = ["t1 p1 z1 d3", "t1 p1 z3 d3", "t1 p1 z2 d1", "t2 p1 z3 d3"]
    alone, out = follow(recipe, tmp_path, shapes, train__global_batch_size=6, **config("groups"))
    compare_models(alone / "model", out / "model")


@pytest.mark.slow
def test_so_does_what_is_offloaded(recipe, tmp_path):
    shapes = ["t1 p1 z1 d1", "t1 p1 z1 d1 optimizer", "t1 p1 z3 d2 all", "t1 p1 z0 d1"]
    alone, out = follow(recipe, tmp_path, shapes, **config("groups"))
    compare_models(alone / "model", out / "model")


@pytest.mark.slow
def test_bfloat16_differs_by_its_rounding_only(recipe, tmp_path):
    shapes = ["t1 p1 z1 d1", "t1 p1 z3 d2", "t1 p2 z1 d1", "t2 p1 z2 d1"]
    follow(recipe, tmp_path, shapes, tolerance=1e-3, train__dtype="bf16", **config("groups"))


@pytest.fixture(scope="module")
def bases(tmp_path_factory, corpus):
    """Random models, of which the rows are odd, with their tokenizers and data tokenized for them."""
    bases = make_bases(tmp_path_factory.mktemp("bases"), corpus, {"groups": 505, "bloom": 601})
    return {shape: sections(bases, shape) for shape in bases}


def follow_adapter(recipe, tmp_path, bases, model, shapes, also):
    alone, out = follow(recipe, tmp_path, shapes, **bases[model], lora__target_modules=TARGETS[model],
                        lora__r=4, lora__also_train=also)  # fmt: skip
    expected, found = (torch.load(folder / "adapter" / "lora.bin", weights_only=True) for folder in (alone, out))
    assert list(found) == list(expected)
    assert all(torch.allclose(found[name], expected[name], atol=1e-4) for name in expected)


def test_so_does_lora_with_what_it_trains_whole(recipe, tmp_path, bases):
    follow_adapter(recipe, tmp_path, bases, "groups", ADAPTED["groups"], BOTH)


@pytest.mark.slow
@pytest.mark.parametrize(("model", "shapes", "also"), [
    ("groups", "groups", []), ("groups", "more", BOTH), ("bloom", "bloom", []), ("bloom", "bloom", BOTH),
])  # fmt: skip
def test_so_do_other_adapters(recipe, tmp_path, bases, model, shapes, also):
    follow_adapter(recipe, tmp_path, bases, model, ADAPTED[shapes], also)


def test_float16_goes_on_at_its_own_shape_only(tmp_path):
    made = {"dataset_sha256": "0", "tokenizer_sha256": "0", "seq_length": 8, "seed": 1, "shuffle": True, "model": {},
            "dtype": "fp16", "zero": 1, "offload": "none", "processes_num": 2, "pretrained": None}  # fmt: skip
    state = {"step": 2, "position": 8, "tokens": 60, "identity": made, "recipe": {}}
    (tmp_path / "state.json").write_text(json.dumps(state))
    write_manifest(tmp_path, KIND, {"step": 2})
    assert read_state(tmp_path, Identity(**made)).step == 2
    with pytest.raises(CheckpointError, match="with fp16 a run goes on at the same shape only"):
        read_state(tmp_path, Identity(**{**made, "zero": 3}))
