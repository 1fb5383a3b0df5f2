"""The command that compares a recipe's degree of parallelism with one process."""

import json

import pytest
import torch
from conftest import BLOOM, LLAMA, ROOT, command, training

from tp_ext.config import ModelConfig
from tp_ext.errors import RecipeError
from tp_ext.models import config_of
from tp_ext.train.parallel.parity import Compared, Figures, compare, shrunk
from tp_ext.train.recipe import parse_recipe

MODELS = {"llama": LLAMA, "groups": {**LLAMA, "heads_num": 8, "local_kv_heads_num": 4}, "bloom": BLOOM}


def test_it_needs_neither_weights_nor_data():
    done = command("scripts/check_parallel.py", "--config", ROOT / "recipes" / "llama7b_zh.json", "--shrink", "--steps", 2,
                   "parallel.tensor=2", "parallel.zero=3")  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "tensor 2, pipeline 1, ZeRO 3" in done.stdout
    assert done.stdout.splitlines()[-1] == "equal but for rounding"


def compared(values, folder):
    (folder / "recipe.json").write_text(json.dumps(values))
    done = training(ROOT / "tests" / "compared.py", folder / "recipe.json")
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["is_equal"], found
    return found


@pytest.mark.parametrize("rows", [49953, 40076])
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(("tensor", "pipeline"), [(2, 1), (1, 2), (2, 2)])
def test_every_degree_is_equal_for_awkward_vocabularies(recipe, tmp_path, model, rows, tensor, pipeline):
    values = recipe(model__config={**MODELS[model], "vocab_size": rows}, parallel__tensor=tensor,
                    parallel__pipeline=pipeline, model__spm_model_path="nowhere", data__document_mask=True)  # fmt: skip
    compared(values, tmp_path)


@pytest.mark.parametrize(("also", "pipeline"), [([], 1), (["embedding", "lm_head"], 2)])
def test_factors_are_compared_too(recipe, tmp_path, also, pipeline):
    values = recipe(model__config={**BLOOM, "vocab_size": 501}, model__pretrained_model_path="nowhere",
                    model__spm_model_path="nowhere", parallel__tensor=2, parallel__pipeline=pipeline,
                    lora__target_modules=["query_key_value", "dense"], lora__dropout=0.5, lora__also_train=also)  # fmt: skip
    assert "encoder.transformer.0.self_attn.final_linear.lora_A" in compared(values, tmp_path)["weights"]


def test_what_is_shrunk_stays_awkward():
    large = config_of("llama2-70b").replace(vocab_size=49953)
    small = shrunk(large, 2, 4)
    assert small.vocab_size % 1024 == 49953 % 1024 and small.layers_num == 5
    assert (small.heads_num // small.kv_heads, small.kv_heads % 2) == (8, 0)
    assert shrunk(large, 3, 1).kv_heads % 3 != 0  # 8 heads are not divided by 3 either
    assert isinstance(small, ModelConfig)


def test_a_degree_that_heads_do_not_divide_by_is_refused_as_in_training(recipe):
    values = recipe(model__config={**LLAMA, "vocab_size": 101}, parallel__tensor=3, model__spm_model_path="nowhere")
    with pytest.raises(RecipeError, match="into 3: .* heads; they divide into 1, 2"):
        compare(parse_recipe(values), shrink=True, steps=1)


@pytest.mark.parametrize(("loss", "weight", "equal"), [(2.0, 0.0, True), (2.001, 0.0, False), (2.0, 2e-4, False)])
def test_more_than_rounding_is_a_difference(loss, weight, equal):
    alone = Figures([2.0], [1.0], {"a": torch.zeros(2)})
    spread = Figures([loss], [1.0], {"a": torch.tensor([0.0, weight])})
    assert Compared(alone, spread, learning_rate=1e-3).is_equal == equal
