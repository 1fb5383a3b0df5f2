"""LoRA under tensor and pipeline parallelism gives what one process gives, and goes on at the same bits."""

import pytest
import torch
from adapted_bases import BOTH, adapting, make_bases
from conftest import metrics, pretrain
from models_on_disk import same, tensors

from tp_ext.checkpoint.adapters import merged, open_adapter
from tp_ext.checkpoint.containers.torch_file import read_values
from tp_ext.checkpoint.formats import open_model
from tp_ext.checkpoint.source import EMBEDDING
from tp_ext.models import families
from tp_ext.train.recipe import parse_recipe
from tp_ext.train.start import explain_resume

DROPS = {"lora__dropout": 0.2}
REST = [
    ("groups", (2, 1, 0), []), ("groups", (2, 1, 3), BOTH), ("groups", (2, 1, 2), []), ("groups", (1, 2, 1), BOTH),
    ("groups", (2, 2, 0), BOTH), ("groups", (2, 2, 1), []), ("bloom", (2, 1, 1), []), ("bloom", (2, 1, 3), BOTH),
    ("bloom", (1, 2, 1), []), ("bloom", (2, 2, 0), []), ("bloom", (2, 2, 1), BOTH),
]  # fmt: skip


@pytest.fixture(scope="module")
def bases(tmp_path_factory, corpus):
    """Grouped heads, and a head that is the embedding; of both the rows are odd, so that two parts need one more."""
    return make_bases(tmp_path_factory.mktemp("bases"), corpus, {"groups": 505, "bloom": 601})


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return tmp_path_factory.mktemp("alone")


def values_of(recipe, bases, folder, base, shape, also, **changes):
    tensor, pipeline, zero = shape
    return adapting(recipe, bases)(
        base, parallel__tensor=tensor, parallel__pipeline=pipeline, parallel__zero=zero, lora__also_train=also,
        lora__merge=True, train__output_model_path=str(folder / "out"), train__learning_rate=1e-3, **changes,
    )  # fmt: skip


def run(values, folder, data=1):
    folder.mkdir(exist_ok=True)
    processes = values["parallel"]["tensor"] * values["parallel"]["pipeline"] * data
    done = pretrain(values, folder, processes=processes if processes > 1 else 0)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def compare(recipe, bases, alone, folder, base, shape, also, data=1, **changes):
    """Train at a shape and on one process: losses, norms, the merged model and the adapter in both forms are equal."""
    other = alone / f"{base} {len(also)} {len(changes)}"
    if not other.exists():
        run(values_of(recipe, bases, other, base, (1, 1, 1), also, **changes), other)
    values = values_of(recipe, bases, folder, base, shape, also, **changes)
    run(values, folder, data)
    expected, found = other / "out", folder / "out"
    for name in ("loss", "grad_norm", "text_loss"):
        assert metrics(found, name) == pytest.approx(metrics(expected, name), rel=1e-5), name
    assert metrics(found, "tokens") == metrics(expected, "tokens")
    for read in (lambda out: tensors(out / "model"), lambda out: adapter(out, bases, base),
                 lambda out: adapter(out, bases, base, "adapter_peft")):  # fmt: skip
        one, two = read(expected), read(found)
        assert list(one) == list(two)
        assert all(torch.allclose(one[name], two[name], atol=1e-4) for name in one)
    return values


def adapter(out, bases, base, name="adapter"):
    found = open_adapter(out / name, open_model(bases[base][0], families))
    factors = {f"{owner} {which}": part() for owner, parts in found.parts.items()
               for which, part in zip("AB", parts, strict=True)}  # fmt: skip
    return {**factors, **{name: read() for name, read in found.whole.items()}}


def go_on(values, folder):
    """Take the last checkpoint away and go on; the adapter before and after."""
    before = (folder / "out" / "adapter" / "lora.bin").read_bytes()
    last = folder / "out" / "checkpoints" / "step_00000006"
    last.rename(last.with_name("old"))
    processes = values["parallel"]["tensor"] * values["parallel"]["pipeline"]
    done = pretrain(values, folder, processes=processes)
    assert done.returncode == 0 and "resuming at step 3" in done.stdout, done.stderr[-3000:]
    return before, (folder / "out" / "adapter" / "lora.bin").read_bytes()


def test_parts_drop_what_one_process_drops(recipe, bases, alone, tmp_path):
    compare(recipe, bases, alone, tmp_path, "groups", (2, 1, 1), BOTH, **DROPS)


def test_a_pipeline_trains_a_tied_embedding_beside_factors(recipe, bases, alone, tmp_path):
    compare(recipe, bases, alone, tmp_path, "bloom", (1, 2, 0), BOTH)


def test_both_together_hold_whole_factors_and_go_on_to_the_same_bits(recipe, bases, alone, tmp_path):
    values = compare(recipe, bases, alone, tmp_path, "bloom", (2, 2, 1), BOTH)
    out, base = tmp_path / "out", open_model(bases["bloom"][0], families)
    checkpoint = out / "checkpoints" / "step_00000006"
    state = read_values(checkpoint / "engine" / "mp_rank_02_model_states.pt")["module"]
    assert {name for name in state if "lora_" not in name} == {EMBEDDING}  # of the second stage, once
    assert same(dict(merged(base, open_adapter(checkpoint, base)).read()), tensors(out / "model"))
    elsewhere = {**values, "parallel": {"tensor": 1, "pipeline": 1, "zero": 3}}
    before, after = go_on(values, tmp_path)
    assert before == after
    elsewhere["train"] = {**values["train"], "total_steps": 8}
    told = "\n".join(explain_resume(parse_recipe(elsewhere)))
    assert "from tensor 2, pipeline 2, ZeRO 1, offload none, 4 processes to tensor 1, pipeline 1, ZeRO 3" in told


@pytest.mark.slow
@pytest.mark.parametrize(("base", "shape", "also"), REST)
def test_so_do_other_shapes(recipe, bases, alone, tmp_path, base, shape, also):
    compare(recipe, bases, alone, tmp_path, base, shape, also)


@pytest.mark.slow
@pytest.mark.parametrize(("base", "shape"), [("groups", (2, 1, 3)), ("bloom", (1, 2, 1)), ("bloom", (2, 1, 0))])
def test_and_with_data_parallelism(recipe, bases, alone, tmp_path, base, shape):
    compare(recipe, bases, alone, tmp_path, base, shape, BOTH, data=2)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(2, 1, 3), (2, 1, 0), (1, 2, 0), (2, 2, 1)])
def test_dropout_and_bfloat16_go_on_to_the_same_bits(recipe, bases, tmp_path, shape):
    changes = {**DROPS, "model__checkpoint_activations": True, "train__dtype": "bf16" if shape[2] else "fp32"}
    values = values_of(recipe, bases, tmp_path, "groups", shape, BOTH, **changes)
    run(values, tmp_path)
    before, after = go_on(values, tmp_path)
    assert before == after


LAST = {"lora__target_modules": ["encoder.transformer.1.feed_forward.linear_1"]}


@pytest.mark.slow
def test_a_stage_may_have_nothing_to_train_without_zero(recipe, bases, alone, tmp_path):
    compare(recipe, bases, alone, tmp_path, "groups", (2, 2, 0), [], **LAST)


@pytest.mark.slow
def test_with_zero_such_a_stage_is_refused_in_a_line(recipe, bases, tmp_path):
    values = values_of(recipe, bases, tmp_path, "groups", (1, 2, 1), [], **LAST)
    done = pretrain(values, tmp_path, processes=2)
    assert done.returncode != 0 and "Traceback" not in done.stderr
    assert "recipe.parallel.pipeline: 2 stages, of which lora trains nothing in stage 1; " in done.stderr
